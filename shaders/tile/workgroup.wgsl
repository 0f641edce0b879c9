// workgroup: a tile whose operands go through workgroup memory, TILE_DEPTH values of k at a time.
//
// The tile's own text declares its sizes, Sums (the outputs of an invocation), `step` (adds the products of one k),
// `steps` (of the k in workgroup memory, all of them or up to an end) and `store`. Workgroup memory is indexed [k][quad along
// m or n]: with a constant k the compiler checks one index for all k, before the loop, and k is a part of the instruction's
// address.

const QUADS_M = TILE_M / 4u;
const QUADS_N = TILE_N / 4u;
// blocks of 4x4 values of an operand; invocations beyond them load nothing
const BLOCKS_A = QUADS_M * TILE_DEPTH / 4u;
const BLOCKS_B = QUADS_N * TILE_DEPTH / 4u;

var<workgroup> tile_a: array<array<vec4<f32>, QUADS_M>, TILE_DEPTH>;
var<workgroup> tile_b: array<array<vec4<f32>, QUADS_N>, TILE_DEPTH>;

// s + a b^T; a column of s is a row of outputs.
fn outer(s: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(vec4(a.x), b, s[0]), fma(vec4(a.y), b, s[1]), fma(vec4(a.z), b, s[2]), fma(vec4(a.w), b, s[3]));
}

// Four rows of two blocks, 4 * LANES_N columns apart.
fn store_rows(m: u32, n: u32, left: mat4x4<f32>, right: mat4x4<f32>) {
    let o = n + 4u * LANES_N;
    epilogue(m, n, left[0]); epilogue(m, o, right[0]);
    epilogue(m + 1u, n, left[1]); epilogue(m + 1u, o, right[1]);
    epilogue(m + 2u, n, left[2]); epilogue(m + 2u, o, right[2]);
    epilogue(m + 3u, n, left[3]); epilogue(m + 3u, o, right[3]);
}

fn keep_a(k: u32, quad: u32, v: mat4x4<f32>) {
    tile_a[k][quad] = v[0]; tile_a[k + 1u][quad] = v[1]; tile_a[k + 2u][quad] = v[2]; tile_a[k + 3u][quad] = v[3];
}

fn keep_b(k: u32, quad: u32, v: mat4x4<f32>) {
    tile_b[k][quad] = v[0]; tile_b[k + 1u][quad] = v[1]; tile_b[k + 2u][quad] = v[2]; tile_b[k + 3u][quad] = v[3];
}

fn tile_run(m0: u32, n0: u32, k0: u32, k1: u32, lane: u32) {
    // eight by four neighbours of a warp, interleaved: pairs of them read the same address
    let x = (lane & 1u) | ((lane >> 1u) & 6u) | ((lane >> 3u) & 8u);
    let y = ((lane >> 1u) & 1u) | ((lane >> 3u) & 6u);
    let quad_a = lane % QUADS_M;
    let deep_a = lane / QUADS_M * 4u;
    let quad_b = lane % QUADS_N;
    let deep_b = lane / QUADS_N * 4u;
    let loads_a = BLOCKS_A >= TILE_LANES || lane < BLOCKS_A;
    let loads_b = BLOCKS_B >= TILE_LANES || lane < BLOCKS_B;
    let held_m = held_a(m0 + quad_a * 4u);
    let held_n = held_b(n0 + quad_b * 4u);
    var s: Sums;
    for (var k = k0; k < k1; k += TILE_DEPTH) {
        // one operand after the other: half the registers of loading both first
        workgroupBarrier();
        if (loads_a) { keep_a(deep_a, quad_a, block_a(held_m, next_a(k + deep_a), m0 + quad_a * 4u, k + deep_a)); }
        if (loads_b) { keep_b(deep_b, quad_b, block_b(held_n, next_b(k + deep_b), n0 + quad_b * 4u, k + deep_b)); }
        workgroupBarrier();
        s = steps(s, min(TILE_DEPTH, k1 - k), x, y);
    }
    store(m0 + y * 4u, n0 + x * 4u, s);
}
