// soft_loss: the loss of every row with several targets, in the place of row_loss.
//
//   in      slots         [rows, slots]        RowStatistics, over the classes that are no target
//   inout   rows          [rows]               Row: writes loss, weight and gradients of all targets, else what the label's are
//   inout   soft          [rows, TARGETS + 1]  Row: writes what the backward pass needs of each target
//   out     row_losses    [rows]               bits of f32
//   out     log_sum_exps  [rows]               f32, the label's
//   in      totals        [groups]             vec4, from class_norms
//
// Slots are merged in order, then targets. For each target the other ones are other classes: nothing is subtracted.

@group(0) @binding(2) var<storage, read> slots: array<RowStatistics>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;
@group(0) @binding(4) var<storage, read_write> soft: array<Row>;
@group(0) @binding(5) var<storage, read_write> row_losses: array<u32>;
@group(0) @binding(6) var<storage, read_write> log_sum_exps: array<f32>;

fn merged_slots(row: u32) -> RowStatistics {
    var all = RowStatistics(LOWEST, 0.0, 0.0, 0.0, LOWEST, 0u, 0u, 0u);
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        all.max_logit = max(all.max_logit, slot.max_logit);
        all.nearest = max(all.nearest, slot.nearest);
        all.weighted += slot.weighted;
        all.overflowed |= select(1u, slot.overflowed, finite(vec4(slot.max_logit, slot.sum, slot.value_sum, slot.weighted)));
    }
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        let factor = exponential(slot.max_logit - all.max_logit);
        all.sum += slot.sum * factor;
        all.value_sum += slot.value_sum * factor;
    }
    return all;
}

// A target as another class of the others.
fn among_others(all: RowStatistics, one: Row) -> RowStatistics {
    let curve = other(one.cosine, Place(0.0, 0.0, true));
    return soft_add(all, curve.value, one.scale * curve.value, one.weight, one.cosine);
}

@compute @workgroup_size(64)
fn soft_loss(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    let class_totals = class_totals_of(lane);
    if (row >= settings.rows) { return; }
    let none = merged_slots(row);
    let first = row * (TARGETS + 1u);
    // what the row weighs apart from its targets
    let before = rows[row];
    var r = before;
    var loss = 0.0;
    var weight = 0.0;
    var row_weight = 0.0;
    var grad_scale = 0.0;
    var grad_bias = 0.0;
    var invalid = false;
    var overflows = none.overflowed != 0u;
    var nearest = none.nearest;
    for (var t = 0u; t <= TARGETS; t++) {
        var one = soft[first + t];
        if (t > 0u && one.label == NO_CLASS) { continue; }
        invalid = invalid || one.state == INVALID;
        if (t > 0u) { nearest = max(nearest, one.cosine); }
        var all = none;
        for (var u = 0u; u <= TARGETS; u++) {
            let joins = soft[first + u].label != NO_CLASS && soft_joins(u, t, soft[first + u].row_weight);
            if (joins) { all = among_others(all, soft[first + u]); }
        }
        let known = one.row_weight;
        one = soft_finish(one, all, class_totals.weights, t, before.row_weight);
        let counted = soft_weight(one, known, t, before.row_weight);
        if (settings.adaptive == MAGFACE) {
            one.loss = bitcast<u32>(fma(counted * settings.strength, one.length_gradient, bitcast<f32>(one.loss)));
        }
        let held = finite(vec4(one.cosine, one.scale * one.value, bitcast<f32>(one.loss), one.grad_scale));
        overflows = overflows || !held;
        one.row_weight = known;
        soft[first + t] = one;
        if (t == 0u) { r = one; }
        loss += bitcast<f32>(one.loss);
        weight += counted;
        row_weight += known;
        grad_scale += one.grad_scale;
        grad_bias += one.grad_bias;
    }
    r.loss = bitcast<u32>(loss);
    r.weight = weight;
    r.row_weight = row_weight;
    r.grad_scale = grad_scale;
    r.grad_bias = grad_bias;
    r.nearest = select(max(nearest, NO_COSINE), nearest, has(DOT_PRODUCT) && settings.classes > 1u);
    if (invalid && counts(r.state)) { r.state = INVALID; }
    // a logit of a linear head that f32 cannot hold
    if (has(DOT_PRODUCT) && counts(r.state) && overflows) { r.state = NON_FINITE; }
    let broken = r.state == NON_FINITE || r.state == INVALID || class_totals.non_finite > 0u;
    if (broken) { r.loss = settings.nan; }
    if (r.state == IGNORED) { r.loss = 0u; }
    if (!counts(r.state)) { r.nearest = NO_COSINE; }
    rows[row] = r;
    row_losses[row] = r.loss;
    log_sum_exps[row] = select(0.0, r.total, counts(r.state) && class_totals.non_finite == 0u);
}
