// softmax: cross entropy over all classes, with label smoothing.
// Twin: Shard::statistics in src/reference/shard.rs and Shard::gradients in src/reference/gradients.rs

// where the largest logit starts
fn link_start() -> f32 { return LOWEST; }

fn link_weighs() -> bool { return has(WEIGHS); }

// Four more classes, as far as they are here. The sums are rescaled where the largest logit grows, at most once for four.
fn link_add(stats: RowStatistics, here: vec4<bool>, v: vec4<f32>, z: vec4<f32>) -> RowStatistics {
    var s = stats;
    let top = largest(select(vec4(LOWEST), z, here));
    if (top > s.max_logit) {
        let factor = exponential(s.max_logit - top);
        s.sum *= factor;
        s.value_sum *= factor;
        s.max_logit = top;
    }
    let d = z - s.max_logit;
    let e = select(vec4(0.0), vec4(exponential(d.x), exponential(d.y), exponential(d.z), exponential(d.w)), here);
    s.sum += (e.x + e.y) + (e.z + e.w);
    s.value_sum += fma(e.x, v.x, e.y * v.y) + fma(e.z, v.z, e.w * v.w);
    return s;
}

// (1 - P)^focal, which the cross entropy softplus(d) is multiplied by, and the factor of its slope sigmoid(d) then.
// Twin: MarginSoftmax::focal_terms in src/objective/prepared.rs
fn focal_terms(d: f32) -> vec2<f32> {
    if (settings.focal == 0.0) { return vec2(1.0); }
    let wrong = sigmoid(d);
    // softplus(d) is -ln(1 - wrong)
    let tiny = wrong < SMALL_PROBABILITY;
    let ratio = select(softplus(d) / select(wrong, 1.0, tiny), 1.0, tiny);
    let factor = exponential(-settings.focal * softplus(-d));
    return vec2(factor, factor * fma(settings.focal * sigmoid(-d), ratio, 1.0));
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
    let mass = r.row_weight * ((1.0 - settings.smoothing) * r.weight + settings.share * weights);
    // the share first: large weights times large values leave f32, and what is 0 without smoothing must be 0 then too
    let rest = settings.share * (weights - r.weight);
    let smoothed = r.row_weight * (r.value * rest - settings.share * all.weighted);
    let focal = focal_terms(d);
    // the square of the log-sum-exp, and its slope by any logit for each unit of that logit's probability
    let half = select(0.0, r.row_weight * r.weight * settings.z_loss * r.total, settings.z_loss > 0.0);
    let square = select(0.0, half * r.total, settings.z_loss > 0.0);
    r.loss = bitcast<u32>(mass * focal.x * softplus(d) + r.scale * smoothed + square);
    let mean = select(r.value, all.value_sum / select(1.0, all.sum, some), some);
    let pulled = mass * focal.y;
    r.grad_scale = pulled * sigmoid(d) * (mean - r.value) + smoothed
        + 2.0 * half * (sigmoid(d) * mean + sigmoid(-d) * r.value);
    r.mass = pulled + 2.0 * half;
    r.rest = r.row_weight * rest + 2.0 * half;
    return r;
}

// dL/dlogit at the label; weight, mass and rest in whatever unit the result shall have
fn link_pull(r: Row, weight: f32, mass: f32, rest: f32) -> f32 {
    return rest - mass * sigmoid(r.others - r.scale * r.value);
}

// and elsewhere, from the logit, the mass, Row.total and the class' part of the smoothing
fn link_push(z: f32, mass: f32, total: f32, smoothed: f32) -> f32 {
    return mass * exponential(z - total) - smoothed;
}
