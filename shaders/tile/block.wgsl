// What tiles share: blocks of 4x4 values of an operand, and their product.
//
// An operand is lines of values that are read four at a time. One that lies along k has a line for each row (column) of
// the product, which a tile looks up once, before its loop; any other has a line for each k.
//
// The kernel supplies A_ALONG_K, B_ALONG_K, line_a(i), line_b(i) for any i, load_a(line, column), load_b(line, column),
// zero outside the matrix, and epilogue(m, n, v), which takes columns n .. n+3 of row m.

// Values of k that long sums add up at a time, whole steps of every tile.
const PIECE = 1024u;

struct Line {
    row: u32,
    factor: f32,    // 0 for a line that is read as zero
}

struct Lines { a: Line, b: Line, c: Line, d: Line }

fn lines_a(i: u32) -> Lines { return Lines(line_a(i), line_a(i + 1u), line_a(i + 2u), line_a(i + 3u)); }
fn lines_b(i: u32) -> Lines { return Lines(line_b(i), line_b(i + 1u), line_b(i + 2u), line_b(i + 3u)); }

// What can be looked up before the loop over k,
fn held_a(m: u32) -> Lines { if (A_ALONG_K) { return lines_a(m); } return Lines(); }
fn held_b(n: u32) -> Lines { if (B_ALONG_K) { return lines_b(n); } return Lines(); }

// and what cannot; one result serves all blocks of these k.
fn next_a(k: u32) -> Lines { if (A_ALONG_K) { return Lines(); } return lines_a(k); }
fn next_b(k: u32) -> Lines { if (B_ALONG_K) { return Lines(); } return lines_b(k); }

// One vector along m per k. An operand that lies along k is transposed in registers, so workgroup memory is written in
// whole vec4: a store to one component may race with its neighbours in WGSL.
fn block_a(held: Lines, next: Lines, m: u32, k: u32) -> mat4x4<f32> {
    if (A_ALONG_K) {
        return transpose(mat4x4(load_a(held.a, k), load_a(held.b, k), load_a(held.c, k), load_a(held.d, k)));
    }
    return mat4x4(load_a(next.a, m), load_a(next.b, m), load_a(next.c, m), load_a(next.d, m));
}

// One vector along n per k.
fn block_b(held: Lines, next: Lines, n: u32, k: u32) -> mat4x4<f32> {
    if (B_ALONG_K) {
        return transpose(mat4x4(load_b(held.a, k), load_b(held.b, k), load_b(held.c, k), load_b(held.d, k)));
    }
    return mat4x4(load_b(next.a, n), load_b(next.b, n), load_b(next.c, n), load_b(next.d, n));
}
