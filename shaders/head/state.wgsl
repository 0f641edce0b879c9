// hardness, mean and deviation of the lengths, scale
@group(0) @binding(BINDING) var<storage, read> state: array<f32>;

fn state_now() -> vec4<f32> { return vec4(state[0], state[1], state[2], state[3]); }
