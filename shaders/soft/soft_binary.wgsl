// Of a binary link every target is a positive, and whatever is none a negative of the label: once, not once for each target.

// Whether class u is among the negatives: a label without weight is.
fn soft_joins(u: u32, t: u32, row_weight: f32) -> bool { return u == 0u && t == 0u && row_weight == 0.0; }

fn soft_add(all: RowStatistics, v: f32, z: f32, weight: f32, c: f32) -> RowStatistics {
    var s = all;
    let p = sigmoid(z + settings.bias);
    s.sum += softplus(z + settings.bias);
    s.value_sum = fma(p, v, s.value_sum);
    s.weighted += p;
    return s;
}

// The negatives with the weight of the row alone, the positive with that of its target.
fn soft_finish(one: Row, all: RowStatistics, weights: f32, t: u32, row_weight: f32) -> Row {
    var r = one;
    let z = fma(r.scale, r.value, settings.bias);
    let weight = r.weight * r.row_weight;
    r.mass = select(0.0, r.weight * row_weight * settings.repel, t == 0u);
    r.loss = bitcast<u32>(weight * settings.attract * softplus(-z) + r.mass * all.sum);
    let pull = link_pull(r, weight, r.mass, 0.0);
    r.grad_scale = fma(pull, r.value, r.mass * all.value_sum);
    r.grad_bias = fma(r.mass, all.weighted, pull);
    return r;
}

fn soft_weight(one: Row, known: f32, t: u32, row_weight: f32) -> f32 { return select(0.0, one.weight * row_weight, t == 0u); }

fn soft_least(least: f32, total: f32) -> f32 { return 0.0; }

fn soft_share(total: f32, least: f32) -> f32 { return 1.0; }
