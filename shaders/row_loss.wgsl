// row_loss: softmax cross entropy of every row after the margin.
//
//   in      slots       [rows, slots]  vec4 (max logit, sum of exp, largest cosine, sum of weight * logit)
//   in      batch       [1]            Batch: the sum of all class weights, prototypes that are not finite
//   inout   rows        [rows]         Row: reads the target's logit; writes loss and log-sum-exp
//   out     row_losses  [rows]         bits of f32
//
// Slots are merged in order, so the result does not depend on timing. The target joins last:
// loss = softplus(others - target) keeps the digits of a tiny loss.

@group(0) @binding(2) var<storage, read> slots: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> batch: array<Batch>;
@group(0) @binding(4) var<storage, read_write> rows: array<Row>;
@group(0) @binding(5) var<storage, read_write> row_losses: array<u32>;

@compute @workgroup_size(64)
fn row_loss(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    var most = LOWEST;
    var nearest = -1.0;
    var weighted = 0.0;
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        most = max(most, slot.x);
        nearest = max(nearest, slot.z);
        weighted += slot.w;
    }
    var sum = 0.0;
    for (var i = 0u; i < part.slots; i++) {
        let slot = slots[row * part.slots + i];
        sum += slot.y * exponential(slot.x - most);
    }
    var r = rows[row];
    r.nearest = nearest;
    r.others = select(LOWEST, most + logarithm(max(sum, 1.0e-30)), sum > 0.0);
    let d = r.others - r.logit;
    // not logit + softplus(d), which cancels where the target lies far below the others
    r.total = max(r.logit, r.others) + log_one_plus(exponential(-abs(d)));
    r.mass = (1.0 - settings.smoothing) * r.weight + settings.share * batch[0].weights;
    let smoothed = settings.share * (r.logit * (batch[0].weights - r.weight) - weighted);
    r.loss = bitcast<u32>(r.mass * softplus(d) + smoothed);

    let broken = r.state == NON_FINITE || r.state == INVALID || batch[0].non_finite_prototypes > 0u;
    if (broken) { r.loss = settings.nan; }
    if (r.state == IGNORED) { r.loss = 0u; }
    if (!counts(r.state)) { r.nearest = -1.0; }
    rows[row] = r;
    row_losses[row] = r.loss;
}
