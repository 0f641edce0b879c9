// registers: blocks of 4x4 outputs that a tile without workgroup memory adds up, four k at a time.

// s + the sum over k of a[k] b[k]; a column of s is a row of outputs.
fn added(s: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4(
        fma(vec4(a[3].x), b[3], fma(vec4(a[2].x), b[2], fma(vec4(a[1].x), b[1], fma(vec4(a[0].x), b[0], s[0])))),
        fma(vec4(a[3].y), b[3], fma(vec4(a[2].y), b[2], fma(vec4(a[1].y), b[1], fma(vec4(a[0].y), b[0], s[1])))),
        fma(vec4(a[3].z), b[3], fma(vec4(a[2].z), b[2], fma(vec4(a[1].z), b[1], fma(vec4(a[0].z), b[0], s[2])))),
        fma(vec4(a[3].w), b[3], fma(vec4(a[2].w), b[2], fma(vec4(a[1].w), b[1], fma(vec4(a[0].w), b[0], s[3])))));
}

fn store_block(m: u32, n: u32, s: mat4x4<f32>) {
    epilogue(m, n, s[0]);
    epilogue(m + 1u, n, s[1]);
    epilogue(m + 2u, n, s[2]);
    epilogue(m + 3u, n, s[3]);
}
