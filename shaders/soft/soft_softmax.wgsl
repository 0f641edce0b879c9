// Of a softmax every target is a problem of its own, in which the other targets are other classes.

// Whether target u is among the other classes of target t.
fn soft_joins(u: u32, t: u32, row_weight: f32) -> bool { return u != t; }

fn soft_add(all: RowStatistics, v: f32, z: f32, weight: f32, c: f32) -> RowStatistics {
    let max_logit = max(all.max_logit, z);
    let fa = exponential(all.max_logit - max_logit);
    let fb = exponential(z - max_logit);
    let overflowed = select(1u, all.overflowed, finite(vec4(z)));
    return RowStatistics(max_logit, fma(all.sum, fa, fb), fma(all.value_sum, fa, v * fb), fma(weight, v, all.weighted),
                         max(all.nearest, c), overflowed, 0u, 0u);
}

fn soft_finish(one: Row, all: RowStatistics, weights: f32, t: u32, row_weight: f32) -> Row {
    return link_finish(one, all, weights);
}

// Of a target in the sum of the rows' weights.
fn soft_weight(one: Row, known: f32, t: u32, row_weight: f32) -> f32 { return one.weight * known; }

// The number that the masses of the targets are relative to: the smallest of their sums, so that no quotient leaves f32.
fn soft_least(least: f32, total: f32) -> f32 { return min(least, total); }

fn soft_share(total: f32, least: f32) -> f32 { return exponential(least - total); }
