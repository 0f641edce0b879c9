// predict_rows: the log-probabilities of the nearest classes of every row; CHOSEN of them.
//
//   in      slots     [rows, slots]   RowStatistics of the cosines as they are
//   inout   rows      [rows]          Row: one of a linear head whose logits f32 cannot hold becomes one that is not finite
//   inout   nearest   [rows, CHOSEN]  vec4 (bits of the cosine, class, prototype, bits of the log-probability: written)
//   out     log_sums  [rows]          f32, log-sum-exp over all classes
//
// The labelled class, where a row has one, is not among the sums and joins here.

@group(0) @binding(2) var<storage, read> slots: array<RowStatistics>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;
@group(0) @binding(4) var<storage, read_write> nearest: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> log_sums: array<f32>;

@compute @workgroup_size(64)
fn predict_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    let r = rows[row];
    var max_logit = LOWEST;
    var overflowed = 0u;
    for (var i = 0u; i < part.slots; i++) {
        max_logit = max(max_logit, slots[row * part.slots + i].max_logit);
        overflowed |= slots[row * part.slots + i].overflowed;
    }
    var sum = 0.0;
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        sum += slot.sum * exponential(slot.max_logit - max_logit);
    }
    var total = select(LOWEST, max_logit + logarithm(max(sum, SMALLEST_NORMAL)), sum > 0.0);
    if (r.label != NO_CLASS) {
        let own = r.scale * r.cosine;
        total = max(own, total) + log_one_plus(exponential(-abs(own - total)));
    }
    if (is_summed() && has(DOT_PRODUCT) && counts(r.state) && (overflowed != 0u || !finite(vec4(total)))) {
        rows[row].state = NON_FINITE;
    }
    log_sums[row] = total;
    for (var i = row * CHOSEN; i < (row + 1u) * CHOSEN; i++) {
        nearest[i].w = bitcast<u32>(log_probability(r.scale * bitcast<f32>(nearest[i].x), total));
    }
}
