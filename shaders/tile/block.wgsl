// What tiles share: blocks of 4x4 values of an operand, and their product.
//
// An operand is lines of values that are read four at a time. One that lies along k has a line for each row (column) of
// the product, which a tile looks up once, before its loop; any other has a line for each k.
//
// The kernel supplies A_ALONG_K, B_ALONG_K; A_NORMALIZED, B_NORMALIZED (no value of the operand exceeds 1, unless the head is
// a linear one); lines_a(i), lines_b(i): four lines from any i on, their width_a(), width_b(),
// load_a(start, column, factor) and load_b, anything outside the matrix, and epilogue(m, n, v), which takes columns
// n .. n+3 of row m.

// Values of k that long sums add up at a time, whole steps of every tile.
const PIECE = 1024u;

fn four(first: u32) -> vec4<u32> { return vec4(first, first + 1u, first + 2u, first + 3u); }

struct Lines {
    start: vec4<u32>,   // as the operand's loader counts
    factor: vec4<f32>,  // a line whose factor is 0 is zero, whatever it holds
}

// What can be looked up before the loop over k,
fn held_a(m: u32) -> Lines { if (A_ALONG_K) { return lines_a(m); } return Lines(); }
fn held_b(n: u32) -> Lines { if (B_ALONG_K) { return lines_b(n); } return Lines(); }

// and what cannot; one result serves all blocks of these k.
fn next_a(k: u32) -> Lines { if (A_ALONG_K) { return Lines(); } return lines_a(k); }
fn next_b(k: u32) -> Lines { if (B_ALONG_K) { return Lines(); } return lines_b(k); }

fn lines_of_a(own: Lines, column: u32) -> mat4x4<f32> {
    let zero = vec4(0.0);
    let here = column < width_a();
    return mat4x4(select(zero, load_a(own.start.x, column, own.factor.x), here & (own.factor.x > 0.0)),
                  select(zero, load_a(own.start.y, column, own.factor.y), here & (own.factor.y > 0.0)),
                  select(zero, load_a(own.start.z, column, own.factor.z), here & (own.factor.z > 0.0)),
                  select(zero, load_a(own.start.w, column, own.factor.w), here & (own.factor.w > 0.0)));
}

fn lines_of_b(own: Lines, column: u32) -> mat4x4<f32> {
    let zero = vec4(0.0);
    let here = column < width_b();
    return mat4x4(select(zero, load_b(own.start.x, column, own.factor.x), here & (own.factor.x > 0.0)),
                  select(zero, load_b(own.start.y, column, own.factor.y), here & (own.factor.y > 0.0)),
                  select(zero, load_b(own.start.z, column, own.factor.z), here & (own.factor.z > 0.0)),
                  select(zero, load_b(own.start.w, column, own.factor.w), here & (own.factor.w > 0.0)));
}

// One vector along m per k. An operand that lies along k is transposed in registers, so workgroup memory is written in
// whole vec4: a store to one component may race with its neighbours in WGSL.
fn block_a(held: Lines, next: Lines, m: u32, k: u32) -> mat4x4<f32> {
    if (A_ALONG_K) { return transpose(lines_of_a(held, k)); }
    return lines_of_a(next, m);
}

// One vector along n per k.
fn block_b(held: Lines, next: Lines, n: u32, k: u32) -> mat4x4<f32> {
    if (B_ALONG_K) { return transpose(lines_of_b(held, k)); }
    return lines_of_b(next, n);
}
