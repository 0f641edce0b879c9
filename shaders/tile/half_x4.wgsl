// half_x4: halves_x4 without the rest of a value: one product of eleven bits in the place of three.

// from one line to the next, in values: the depth of a tile, and eight more so that neighbours lie in other banks
const PITCH = 24u;
const QUADS_PITCH = PITCH / 4u;

var<workgroup> high_a: array<vec4<f16>, TILE_M * QUADS_PITCH>;
var<workgroup> high_b: array<vec4<f16>, TILE_N * QUADS_PITCH>;

fn put_a(at: u32, high: vec4<f16>, low: vec4<f16>) { high_a[at >> 2u] = high; }
fn put_b(at: u32, high: vec4<f16>, low: vec4<f16>) { high_b[at >> 2u] = high; }

fn left_high(at: u32) -> Left { let quad = at >> 2u; return coopLoadT<Left>(&high_a[quad], QUADS_PITCH); }
fn left_low(at: u32) -> Left { return Left(); }
fn right_high(at: u32) -> Right { let quad = at >> 2u; return coopLoad<Right>(&high_b[quad], QUADS_PITCH); }
fn right_low(at: u32) -> Right { return Right(); }

// NVIDIA's units round their sums towards zero: those of one step are added outside of them, as f32 round.
fn grown(s: Sum, left: Left, left_rest: Left, right: Right, right_rest: Right) -> Sum {
    return s + coopMultiplyAdd(left, right, Sum());
}
