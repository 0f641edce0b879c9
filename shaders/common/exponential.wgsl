// exp, log and log1p with errors of a few 1e-7 at any size: the built-in exp may lose 3 + 2|x| ulp.

// e^x for x <= 88; 0 below -87.
fn exponential(x: f32) -> f32 {
    let near = clamp(x, -87.0, 88.0);
    let n = round(near * 1.44269504);
    let r = fma(n, 2.12194440e-4, fma(n, -0.693359375, near));
    var p = fma(r, 1.9875691500e-4, 1.3981999507e-3);
    p = fma(r, p, 8.3334519073e-3);
    p = fma(r, p, 4.1665795894e-2);
    p = fma(r, p, 1.6666665459e-1);
    p = fma(r, p, 5.0000001201e-1);
    let y = fma(r * r, p, r) + 1.0;
    // 2^n: the last bits of n + 127 + 1.5 * 2^23 become the exponent; -126 <= n <= 127
    let power = bitcast<f32>(bitcast<u32>(n + 12583039.0) << 23u);
    return select(0.0, y * power, x > -87.0);
}

// log x for normal x > 0
fn logarithm(x: f32) -> f32 {
    let bits = bitcast<u32>(x) - 0x3f3504f3u;   // so that the rest lies in [sqrt 1/2, sqrt 2)
    let e = f32(bitcast<i32>(bits) >> 23u);
    let m = bitcast<f32>((bits & 0x007fffffu) + 0x3f3504f3u);
    let q = (m - 1.0) / (m + 1.0);
    let z = q * q;
    let p = z * (0.66666667 + z * (0.4 + z * (0.28571429 + z * 0.22222222)));
    return fma(e, 0.693359375, fma(e, -2.12194440e-4, fma(q, p, 2.0 * q)));
}

// log(1 + v) for 0 <= v <= 1, without forming 1 + v
fn log_one_plus(v: f32) -> f32 {
    let q = v / (2.0 + v);
    let z = q * q;
    let p = 0.33333333 + z * (0.2 + z * (0.14285714 + z * (0.11111111 + z * (0.09090909 + z * 0.07692308))));
    return 2.0 * fma(q * z, p, q);
}

// log(1 + e^d): keeps the precision of a tiny loss
fn softplus(d: f32) -> f32 {
    return max(d, 0.0) + log_one_plus(exponential(-abs(d)));
}

// 1 / (1 + e^-d)
fn sigmoid(d: f32) -> f32 {
    let v = exponential(-abs(d));
    return select(v, 1.0, d >= 0.0) / (1.0 + v);
}
