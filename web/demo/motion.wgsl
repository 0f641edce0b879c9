// motion: turns every vector against its gradient, and a little at random; lengths stay.
//
//   uniform  settings                        of one step of one kind of vector
//   in       gradients  [rows, 3]  f32
//   inout    vectors    [rows, 3]  f32
//
// One invocation per row. Twin: move in motion.js

struct Settings {
    factor: f32,
    noise: f32,
    step: u32,
    rows: u32,
}

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read> gradients: array<f32>;
@group(0) @binding(2) var<storage, read_write> vectors: array<f32>;

// no step turns a vector by more than this many radians
const MAX = 0.2;

// PCG's output function: 32 well mixed bits of a counter
fn hash(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn even(key: u32, place: u32) -> f32 {
    return f32(hash(key ^ place)) / 2147483648.0 - 1.0;
}

@compute @workgroup_size(64)
fn motion(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= settings.rows {
        return;
    }
    let at = 3u * row;
    let vector = vec3(vectors[at], vectors[at + 1u], vectors[at + 2u]);
    let gradient = vec3(gradients[at], gradients[at + 1u], gradients[at + 2u]);
    let size = length(vector);
    let unit = vector / size;
    let turn = -settings.factor * size * (gradient - dot(unit, gradient) * unit);
    let shrink = min(1.0, MAX / max(length(turn), 1e-30));
    let key = hash(settings.step);
    let push = settings.noise * vec3(even(key, at), even(key, at + 1u), even(key, at + 2u));
    let next = size * normalize(unit + shrink * turn + push);
    vectors[at] = next.x;
    vectors[at + 1u] = next.y;
    vectors[at + 2u] = next.z;
}
