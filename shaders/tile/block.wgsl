// Four loads make a 4x4 block, one vec4 per k. An operand that lies along k is transposed in registers, so workgroup
// memory is written in whole vec4: a store to one component may race with its neighbours in WGSL.
//
// The kernel supplies A_ALONG_K, B_ALONG_K, load_a(m, k), load_b(n, k) -> four values along k (or along m, n), zero
// outside the matrix, and epilogue(m, n, v), which takes columns n .. n+3 of row m.

fn block_a(m: u32, k: u32) -> mat4x4<f32> {
    if (A_ALONG_K) {
        return transpose(mat4x4(load_a(m, k), load_a(m + 1u, k), load_a(m + 2u, k), load_a(m + 3u, k)));
    }
    return mat4x4(load_a(m, k), load_a(m, k + 1u), load_a(m, k + 2u), load_a(m, k + 3u));
}

fn block_b(n: u32, k: u32) -> mat4x4<f32> {
    if (B_ALONG_K) {
        return transpose(mat4x4(load_b(n, k), load_b(n + 1u, k), load_b(n + 2u, k), load_b(n + 3u, k)));
    }
    return mat4x4(load_b(n, k), load_b(n, k + 1u), load_b(n, k + 2u), load_b(n, k + 3u));
}
