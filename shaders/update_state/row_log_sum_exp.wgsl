// row_log_sum_exp: the log-sum-exp of every row over the other classes, at the scale so far (AdaCos).
//
//   in      slots  [rows, slots]  RowStatistics
//   inout   rows   [rows]         Row: writes others

@group(0) @binding(2) var<storage, read> slots: array<RowStatistics>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;

@compute @workgroup_size(64)
fn row_log_sum_exp(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    var max_logit = LOWEST;
    for (var i = 0u; i < part.slots; i++) { max_logit = max(max_logit, slots[row * part.slots + i].max_logit); }
    var sum = 0.0;
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        sum += slot.sum * exponential(slot.max_logit - max_logit);
    }
    rows[row].others = select(LOWEST, max_logit + logarithm(max(sum, 1.0e-30)), sum > 0.0);
}
