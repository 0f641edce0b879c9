// binary: one binary problem per class (SphereFace2).
// Twin: Shard::statistics and Shard::gradients in src/reference/mod.rs

fn link_start() -> f32 { return 0.0; }

fn link_max_logit(max_logit: f32, z: f32) -> f32 { return 0.0; }

fn link_add(stats: RowStatistics, v: f32, z: f32, weight: f32) -> RowStatistics {
    var s = stats;
    let p = sigmoid(z + settings.bias);
    s.sum += softplus(z + settings.bias);
    s.value_sum = fma(p, v, s.value_sum);
    s.weighted += p;
    return s;
}

fn link_finish(row: Row, all: RowStatistics, weights: f32) -> Row {
    var r = row;
    let z = fma(r.scale, r.value, settings.bias);
    r.mass = r.weight * settings.repel;
    r.loss = bitcast<u32>(r.weight * settings.attract * softplus(-z) + r.mass * all.sum);
    let pull = link_pull(r, r.weight, r.mass, 0.0);
    r.grad_scale = fma(pull, r.value, r.mass * all.value_sum);
    r.grad_bias = fma(r.mass, all.weighted, pull);
    return r;
}

fn link_pull(r: Row, weight: f32, mass: f32, rest: f32) -> f32 {
    return -weight * settings.attract * sigmoid(-fma(r.scale, r.value, settings.bias));
}

fn link_push(z: f32, mass: f32, total: f32, smoothed: f32) -> f32 {
    return mass * sigmoid(z + settings.bias);
}
