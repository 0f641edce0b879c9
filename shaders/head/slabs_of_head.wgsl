// The slabs are times Batch.balance. A row without a gradient has none, whatever the prototypes hold.

@group(0) @binding(BINDING) var<storage, read> batch: array<Batch>;

fn summed(v: vec4<f32>, row: u32) -> vec4<f32> {
    let lives = (bitcast<u32>(rows[row].gain) << 1u) != 0u;
    return select(vec4(0.0), v * (1.0 / batch[0].balance), lives);
}
