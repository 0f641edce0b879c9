// soft_gradients: what the backward pass needs to know of the targets of a row, after it is known of the label.
//
//   inout   rows  [rows]               Row: writes pull, mass, total and length_gradient
//   inout   soft  [rows, TARGETS + 1]  Row: writes the pull of each target
//
// The other classes are pulled by all targets at once: exp(z) * sum of mass_t / exp(total_t), as one mass relative to the smallest total.

@group(0) @binding(2) var<storage, read_write> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> soft: array<Row>;

// dL/dcosine of target u as another class of the other targets
fn soft_push(r: Row, first: u32, u: u32) -> f32 {
    let curve = other(soft[first + u].cosine, Place(0.0, 0.0, true));
    var sum = 0.0;
    for (var t = 0u; t <= TARGETS; t++) {
        let one = soft[first + t];
        if (one.label == NO_CLASS || !soft_joins(u, t, soft[first + u].row_weight)) { continue; }
        var smoothed = 0.0;
        if (settings.share > 0.0) {
            smoothed = r.gain * (settings.share * soft[first + u].weight * (one.row_weight / r.normalizer));
        }
        sum += link_push(r.scale * curve.value, share_of(r.gain, one.mass, r.normalizer), one.total, smoothed);
    }
    return sum * curve.slope;
}

@compute @workgroup_size(64)
fn soft_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    var r = rows[row];
    let first = row * (TARGETS + 1u);
    var alone = r.weight == soft[first].weight * soft[first].row_weight && r.row_weight == soft[first].row_weight;
    var least = -LOWEST;
    for (var t = 0u; t <= TARGETS; t++) {
        alone = alone && (t == 0u || soft[first + t].label == NO_CLASS);
        if (soft[first + t].row_weight > 0.0) { least = soft_least(least, soft[first + t].total); }
    }
    // the label alone is ready
    if (alone || !counts(r.state)) { return; }
    var mass = 0.0;
    var turned = 0.0;
    for (var t = 0u; t <= TARGETS; t++) {
        let one = soft[first + t];
        if (one.label == NO_CLASS) { continue; }
        let own = share_of(r.gain, one.mass, r.normalizer);
        let weight = share_of(r.gain, one.weight * one.row_weight, r.normalizer);
        let pull = link_pull(one, weight, own, share_of(r.gain, one.rest, r.normalizer));
        if (t == 0u || one.row_weight > 0.0) { mass += own * soft_share(one.total, least); }
        turned += pull * one.slope_m2;
        let all = fma(pull, one.slope, soft_push(r, first, t));
        soft[first + t].pull = all;
        if (t == 0u) { r.pull = all; }
    }
    r.mass = mass;
    r.total = least;
    if (settings.adaptive == MAGFACE) {
        // the length counts at the nearer end outside of these
        let free = r.length >= settings.lower && r.length <= settings.upper && settings.offset == 0u;
        let a = max(r.length, settings.lower);
        let term = settings.strength * (1.0 / (settings.upper * settings.upper) - 1.0 / (a * a));
        let up = r.gain / r.scale;
        r.length_gradient = select(0.0, turned * settings.rise + share_of(up, r.weight, r.normalizer) * term, free);
    }
    rows[row] = r;
}
