// binary: one binary problem per class (SphereFace2).
// Twin: Shard::statistics in src/reference/shard.rs and Shard::gradients in src/reference/gradients.rs

fn link_start() -> f32 { return 0.0; }

fn link_weighs() -> bool { return false; }

fn link_add(stats: RowStatistics, here: vec4<bool>, v: vec4<f32>, z: vec4<f32>) -> RowStatistics {
    var s = stats;
    let d = z + settings.bias;
    let zero = vec4(0.0);
    let p = select(zero, vec4(sigmoid(d.x), sigmoid(d.y), sigmoid(d.z), sigmoid(d.w)), here);
    let loss = select(zero, vec4(softplus(d.x), softplus(d.y), softplus(d.z), softplus(d.w)), here);
    s.sum += (loss.x + loss.y) + (loss.z + loss.w);
    s.value_sum += fma(p.x, v.x, p.y * v.y) + fma(p.z, v.z, p.w * v.w);
    s.weighted += (p.x + p.y) + (p.z + p.w);
    return s;
}

fn link_finish(row: Row, all: RowStatistics, weights: f32) -> Row {
    var r = row;
    let z = fma(r.scale, r.value, settings.bias);
    let weight = r.weight * r.row_weight;
    r.mass = weight * settings.repel;
    r.loss = bitcast<u32>(weight * settings.attract * softplus(-z) + r.mass * all.sum);
    let pull = link_pull(r, weight, r.mass, 0.0);
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
