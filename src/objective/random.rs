//! Random numbers that depend on their place alone.

/// Scrambles a counter: SplitMix64's finaliser. Its values are part of what a saved state promises.
pub(crate) fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A standard normal number that depends on its place alone.
pub(crate) fn normal(seed: u64, step: u64, row: u64) -> f64 {
    let key = scramble(scramble(scramble(seed) ^ step) ^ row);
    // in (0, 1] and [0, 1)
    let unit = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
    let (a, b) = (1.0 - unit(scramble(key)), unit(scramble(key ^ 1)));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}
