// softmax: cross entropy over all classes, with label smoothing.
// Twin: Shard::statistics and Shard::gradients in src/reference/mod.rs

// where the largest logit starts
fn link_start() -> f32 { return LOWEST; }

fn link_max_logit(max_logit: f32, z: f32) -> f32 { return max(max_logit, z); }

// One more class; `max_logit` is final.
fn link_add(stats: RowStatistics, v: f32, z: f32, weight: f32) -> RowStatistics {
    var s = stats;
    let e = exponential(z - s.max_logit);
    s.sum += e;
    s.value_sum = fma(e, v, s.value_sum);
    s.weighted = fma(weight, v, s.weighted);
    return s;
}

// Loss and what the backward pass needs. The target joins last: softplus(others - target) keeps the precision of a tiny loss.
fn link_finish(row: Row, all: RowStatistics, weights: f32) -> Row {
    var r = row;
    let logit = r.scale * r.value;
    let some = all.sum > 0.0;
    r.others = select(LOWEST, all.max_logit + logarithm(max(all.sum, 1.0e-30)), some);
    let d = r.others - logit;
    // not logit + softplus(d), which cancels where the target lies far below the others
    r.total = max(logit, r.others) + log_one_plus(exponential(-abs(d)));
    r.mass = (1.0 - settings.smoothing) * r.weight + settings.share * weights;
    // the share first: large weights times large values leave f32, and what is 0 without smoothing must be 0 then too
    let smoothed = r.value * (settings.share * (weights - r.weight)) - settings.share * all.weighted;
    r.loss = bitcast<u32>(r.mass * softplus(d) + r.scale * smoothed);
    let mean = select(r.value, all.value_sum / select(1.0, all.sum, some), some);
    r.grad_scale = r.mass * sigmoid(d) * (mean - r.value) + smoothed;
    return r;
}

// dL/dlogit at the label; weight, mass and rest (the smoothing at the other classes) in whatever unit the result shall have
fn link_pull(r: Row, weight: f32, mass: f32, rest: f32) -> f32 {
    return rest - mass * sigmoid(r.others - r.scale * r.value);
}

// and elsewhere, from the logit, the mass, Row.total and the class' part of the smoothing
fn link_push(z: f32, mass: f32, total: f32, smoothed: f32) -> f32 {
    return mass * exponential(z - total) - smoothed;
}
