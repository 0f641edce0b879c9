// Small entries of the gradient become 0. Of every block of 64 x 64 rows and classes stays which rows and which classes have
// an entry left, and what was left out.
// Twin: Shard::gradients in src/reference/gradients.rs

@group(0) @binding(BINDING) var<storage, read_write> blocks: array<Block>;

alias Reduced = Block;
const LANES = 64u;
fn combine(a: Reduced, b: Reduced) -> Reduced {
    return Block(a.rows | b.rows, a.classes | b.classes, a.dropped + b.dropped, a.total + b.total, a.left + b.left, 0u);
}

var<private> own_rows: vec2<u32>;
var<private> own_classes: vec2<u32>;
var<private> own_left: u32;
var<private> own_sum: vec2<f32>;

// a bit of 64
fn bit_of(at: u32, on: bool) -> vec2<u32> {
    let bit = select(0u, 1u << (at & 31u), on);
    return select(vec2(0u, bit), vec2(bit, 0u), at < 32u);
}

// Of four classes in a row; `row` and the first class count in their block; `share`: the row's weight over the normalizer.
fn keep(g: vec4<f32>, gain: f32, share: f32, row: u32, class_of: u32) -> vec4<f32> {
    let size = abs(g);
    let least = vec4(abs(gain) * (bitcast<f32>(part.epsilon) * share));
    let endless = (bitcast<vec4<u32>>(g) & vec4(0x7f800000u)) == vec4(0x7f800000u);
    let large = select(select(vec4(false), size >= least, size > vec4(0.0)), vec4(true), endless);
    let small = select(size, vec4(0.0), large);
    own_sum += vec2((small.x + small.y) + (small.z + small.w), (size.x + size.y) + (size.z + size.w));
    let ones = select(vec4(0u), vec4(1u), large);
    own_left += (ones.x + ones.y) + (ones.z + ones.w);
    own_rows |= bit_of(row, any(large));
    own_classes |= bit_of(class_of, large.x) | bit_of(class_of + 1u, large.y)
        | bit_of(class_of + 2u, large.z) | bit_of(class_of + 3u, large.w);
    return select(vec4(0.0), g, large);
}

// Once per workgroup, by all lanes.
fn close(block: u32, lane: u32) {
    let all = reduce(lane, Block(own_rows, own_classes, own_sum.x, own_sum.y, own_left, 0u));
    if (lane == 0u) { blocks[block] = all; }
}
