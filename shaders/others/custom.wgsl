// custom: a transform from outside, whose text follows, with its numbers and the target of the row.
// Twin: src/objective/others/custom.rs
struct RowTarget { cosine: f32, value: f32 }

fn other_parameter(i: u32) -> f32 {
    return settings.other_series[(i & (MAX_PARAMETERS - 1u)) >> 2u][i & 3u];
}

fn other(c: f32, place: Place) -> ValueSlope {
    return margin_other(c, RowTarget(place.hardness, place.bound));
}
