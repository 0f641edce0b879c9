// Small entries of the gradient become 0. Of every block of 64 x 64 rows and classes stays which rows and which classes have
// an entry left, and what was left out.
// Twin: Shard::gradients in src/reference/gradients.rs

@group(0) @binding(BINDING) var<storage, read_write> blocks: array<Block>;

// a bit per row, and per class
var<workgroup> row_bits: array<atomic<u32>, 2>;
var<workgroup> class_bits: array<atomic<u32>, 2>;
var<workgroup> left: atomic<u32>;
// (dropped, total)
alias Reduced = vec2<f32>;
const LANES = 64u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

var<private> own_rows: vec2<u32>;
var<private> own_left: u32;
var<private> own_sum: vec2<f32>;

// `row` counts in its block
fn keep(g: f32, gain: f32, normalizer: f32, row: u32) -> f32 {
    let size = abs(g);
    // divided first: a tiny normalizer must not overflow
    let large = (size > 0.0 && size >= abs(gain) * (bitcast<f32>(part.epsilon) / normalizer)) || !finite(vec4(g));
    own_sum += vec2(select(size, 0.0, large), size);
    own_left += select(0u, 1u, large);
    let bit = 1u << (row & 31u);
    own_rows |= select(vec2(0u), select(vec2(0u, bit), vec2(bit, 0u), row < 32u), large);
    return select(0.0, g, large);
}

// Once per workgroup, by all lanes; bits and counts do not depend on the order, and sums are added in a tree.
fn close(block: u32, lane: u32) {
    atomicOr(&row_bits[0], own_rows.x);
    atomicOr(&row_bits[1], own_rows.y);
    atomicOr(&class_bits[lane / 32u], select(0u, 1u << (lane & 31u), own_left > 0u));
    atomicAdd(&left, own_left);
    let sums = reduce(lane, own_sum);
    if (lane == 0u) {
        let rows = vec2(atomicLoad(&row_bits[0]), atomicLoad(&row_bits[1]));
        let classes = vec2(atomicLoad(&class_bits[0]), atomicLoad(&class_bits[1]));
        blocks[block] = Block(rows, classes, sums.x, sums.y, atomicLoad(&left), 0u);
    }
}
