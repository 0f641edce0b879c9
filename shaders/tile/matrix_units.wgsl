// matrix_units: a tile of a few matrices of f32 sums, which one subgroup forms by cooperative products of f16.
//
// A value is two f16: its upper eleven bits, and the rest of it. Three products of four (the fourth is below an f32's
// rounding) give the precision of f32, for values whose range f16 has: every line (row of A, column of B) is multiplied by the power
// of two that brings its largest value to 2^14..2^15, and the outputs are divided by it. So 2^-29 of the largest value of
// a line still has all bits of its upper part.
//
// The tile's own text declares its sizes and the types of the matrices; `halves` the workgroup memory, where the values of a
// line lie side by side along k, and `grown`; `units_2x2` or `units_4x4` the matrices.

// quads of lines; so many invocations load the same ones
const QUADS = TILE_M / 4u;
const SHARES = TILE_LANES / QUADS;

// the largest value of each line, by those that load it, and then the power of two
var<workgroup> most_a: array<array<vec4<f32>, QUADS>, SHARES>;
var<workgroup> most_b: array<array<vec4<f32>, QUADS>, SHARES>;
var<workgroup> lift_a: array<vec4<i32>, QUADS>;
var<workgroup> lift_b: array<vec4<i32>, QUADS>;
// UNIT rows of outputs
var<workgroup> strip: array<f32, UNIT * TILE_N>;

fn power_of_two(exponent: vec4<i32>) -> vec4<f32> { return bitcast<vec4<f32>>(vec4<u32>(exponent + 127) << vec4(23u)); }

// The exponent of the power that brings a largest value to 2^14..2^15; its inverse is no subnormal either.
fn lift(most: vec4<f32>) -> vec4<i32> {
    let exponent = vec4<i32>((bitcast<vec4<u32>>(most) >> vec4(23u)) & vec4(255u));
    return min(141 - exponent, vec4(126));
}

fn largest_of(v: mat4x4<f32>) -> vec4<f32> { return max(max(abs(v[0]), abs(v[1])), max(abs(v[2]), abs(v[3]))); }

// A quad of lines of an operand: the largest values among the k of this invocation.
fn reach_of_a(held: Lines, m: u32, first: u32, k1: u32) -> vec4<f32> {
    if (A_NORMALIZED && !has(DOT_PRODUCT)) { return vec4(1.0); }
    var most = vec4(0.0);
    for (var k = first; k < k1; k += 4u * SHARES) { most = max(most, largest_of(block_a(held, next_a(k), m, k))); }
    return most;
}

fn reach_of_b(held: Lines, n: u32, first: u32, k1: u32) -> vec4<f32> {
    if (B_NORMALIZED && !has(DOT_PRODUCT)) { return vec4(1.0); }
    var most = vec4(0.0);
    for (var k = first; k < k1; k += 4u * SHARES) { most = max(most, largest_of(block_b(held, next_b(k), n, k))); }
    return most;
}

// The upper eleven bits: an f16 has them exactly, however it rounds.
fn upper(v: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((bitcast<vec4<u32>>(v) + vec4(0x1000u)) & vec4(0xffffe000u));
}

fn keep_line_a(at: u32, v: vec4<f32>) { let high = upper(v); put_a(at, vec4<f16>(high), vec4<f16>(v - high)); }
fn keep_line_b(at: u32, v: vec4<f32>) { let high = upper(v); put_b(at, vec4<f16>(high), vec4<f16>(v - high)); }

// Four k of four lines, as block_a gives them, times their powers.
fn keep_a(line: u32, k: u32, block: mat4x4<f32>, power: vec4<f32>) {
    let v = transpose(mat4x4(block[0] * power, block[1] * power, block[2] * power, block[3] * power));
    let at = line * PITCH + k;
    keep_line_a(at, v[0]); keep_line_a(at + PITCH, v[1]); keep_line_a(at + 2u * PITCH, v[2]); keep_line_a(at + 3u * PITCH, v[3]);
}

fn keep_b(line: u32, k: u32, block: mat4x4<f32>, power: vec4<f32>) {
    let v = transpose(mat4x4(block[0] * power, block[1] * power, block[2] * power, block[3] * power));
    let at = line * PITCH + k;
    keep_line_b(at, v[0]); keep_line_b(at + PITCH, v[1]); keep_line_b(at + 2u * PITCH, v[2]); keep_line_b(at + 3u * PITCH, v[3]);
}

// A row of matrices has been put into the strip: its outputs.
fn store_strip(m0: u32, n0: u32, first: u32, lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < UNIT * QUADS; i += TILE_LANES) {
        let row = first + i / QUADS;
        let quad = i % QUADS;
        let v = vec4(strip[4u * i], strip[4u * i + 1u], strip[4u * i + 2u], strip[4u * i + 3u]);
        // by halves of the exponent: what fits an f32 at the end fits between them
        let down = -(lift_a[row / 4u][row % 4u] + lift_b[quad]);
        let half = down >> vec4(1u);
        epilogue(m0 + row, n0 + 4u * quad, v * power_of_two(half) * power_of_two(down - half));
    }
    workgroupBarrier();
}

// What an invocation loads in each step: blocks of one quad of lines of both operands.
struct Share {
    m: u32,
    n: u32,
    line: u32,          // the first one in workgroup memory
    first: u32,         // k
    held_m: Lines,
    held_n: Lines,
    power_m: vec4<f32>,
    power_n: vec4<f32>,
}

fn share_of(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) -> Share {
    let quad = lane % QUADS;
    let share = lane / QUADS;
    let m = m0 + quad * 4u;
    let n = n0 + quad * 4u;
    let held_m = held_a(m);
    let held_n = held_b(n);
    most_a[share][quad] = reach_of_a(held_m, m, k0 + share * 4u, k1);
    most_b[share][quad] = reach_of_b(held_n, n, k0 + share * 4u, k1);
    workgroupBarrier();
    var most_m = most_a[0][quad];
    var most_n = most_b[0][quad];
    for (var i = 1u; i < SHARES; i++) {
        most_m = max(most_m, most_a[i][quad]);
        most_n = max(most_n, most_b[i][quad]);
    }
    let lift_m = lift(most_m);
    let lift_n = lift(most_n);
    if (share == 0u) { lift_a[quad] = lift_m; lift_b[quad] = lift_n; }
    return Share(m, n, quad * 4u, share * 4u, held_m, held_n, power_of_two(lift_m), power_of_two(lift_n));
}

// The operands of the next TILE_DEPTH k.
fn stage(own: Share, k: u32) {
    workgroupBarrier();
    for (var i = own.first; i < TILE_DEPTH; i += 4u * SHARES) {
        keep_a(own.line, i, block_a(own.held_m, next_a(k + i), own.m, k + i), own.power_m);
        keep_b(own.line, i, block_b(own.held_n, next_b(k + i), own.n, k + i), own.power_n);
    }
    workgroupBarrier();
}
