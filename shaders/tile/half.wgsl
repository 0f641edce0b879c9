// half: halves without the rest of a value: one product of eleven bits in the place of three.

// from one line to the next: the depth of a tile, and eight more so that neighbours lie in other banks
const PITCH = 24u;

var<workgroup> high_a: array<f16, TILE_M * PITCH>;
var<workgroup> high_b: array<f16, TILE_N * PITCH>;

fn put_a(at: u32, high: vec4<f16>, low: vec4<f16>) {
    high_a[at] = high.x; high_a[at + 1u] = high.y; high_a[at + 2u] = high.z; high_a[at + 3u] = high.w;
}

fn put_b(at: u32, high: vec4<f16>, low: vec4<f16>) {
    high_b[at] = high.x; high_b[at + 1u] = high.y; high_b[at + 2u] = high.z; high_b[at + 3u] = high.w;
}

fn left_high(at: u32) -> Left { return coopLoadT<Left>(&high_a[at], PITCH); }
fn left_low(at: u32) -> Left { return Left(); }
fn right_high(at: u32) -> Right { return coopLoad<Right>(&high_b[at], PITCH); }
fn right_low(at: u32) -> Right { return Right(); }

// Metal adds no two matrices but in its units, which round as f32 does.
fn grown(s: Sum, left: Left, left_rest: Left, right: Right, right_rest: Right) -> Sum {
    return coopMultiplyAdd(left, right, s);
}
