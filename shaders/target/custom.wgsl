// custom: the numbers of a curve from outside, whose text follows.
fn parameter(i: u32) -> f32 {
    return settings.turned[(i & (MAX_PARAMETERS - 1u)) >> 2u][i & 3u];
}
