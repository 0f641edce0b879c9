// row_loss: the loss of every row after the margin.
//
//   in      slots       [rows, slots]  RowStatistics
//   inout   rows        [rows]         Row: reads the target's value and length_gradient; writes loss, log-sum-exp, dL/dscale
//   out     row_losses  [rows]         bits of f32
//   out     log_sum_exps [rows]        f32, over all classes
//   in      totals      [groups]       vec4, from class_norms; or batch [1], where the totals are known
//
// Slots are merged in order, so the result does not depend on timing.

@group(0) @binding(2) var<storage, read> slots: array<RowStatistics>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;
@group(0) @binding(4) var<storage, read_write> row_losses: array<u32>;
@group(0) @binding(5) var<storage, read_write> log_sum_exps: array<f32>;

@compute @workgroup_size(64)
fn row_loss(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    let class_totals = class_totals_of(lane);
    if (row >= settings.rows) { return; }
    var all = RowStatistics(LOWEST, 0.0, 0.0, 0.0, LOWEST, 0u, 0u, 0u);
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        all.max_logit = max(all.max_logit, slot.max_logit);
        all.nearest = max(all.nearest, slot.nearest);
        all.weighted += slot.weighted;
        // sums of other shards come from the host
        all.overflowed |= select(1u, slot.overflowed, finite(vec4(slot.max_logit, slot.sum, slot.value_sum, slot.weighted)));
    }
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        let factor = exponential(slot.max_logit - all.max_logit);
        all.sum += slot.sum * factor;
        all.value_sum += slot.value_sum * factor;
    }
    var r = link_finish(rows[row], all, class_totals.weights);
    r.weight *= r.row_weight;
    if (settings.adaptive == MAGFACE) {
        r.loss = bitcast<u32>(fma(r.weight * settings.strength, r.length_gradient, bitcast<f32>(r.loss)));
    }
    // plain products have no lower end
    r.nearest = select(max(all.nearest, NO_COSINE), all.nearest, has(DOT_PRODUCT) && settings.classes > 1u);

    // a logit of a linear head that f32 cannot hold: such a row counts as one that is not finite, in place of a wrong loss
    if (has(DOT_PRODUCT) && counts(r.state)) {
        let held = finite(vec4(r.cosine, r.scale * r.value, bitcast<f32>(r.loss), r.grad_scale));
        if (all.overflowed != 0u || !held) { r.state = NON_FINITE; }
    }
    let broken = r.state == NON_FINITE || r.state == INVALID || class_totals.non_finite > 0u;
    if (broken) { r.loss = settings.nan; }
    if (r.state == IGNORED) { r.loss = 0u; }
    if (!counts(r.state)) { r.nearest = NO_COSINE; }
    rows[row] = r;
    row_losses[row] = r.loss;
    log_sum_exps[row] = select(0.0, r.total, counts(r.state) && class_totals.non_finite == 0u);
}
