// row_gradients: what the backward pass needs to know of a row.
//
//   in      batch     [batch]       Batch
//   in      upstream  [1 | rows]    f32; unused without an upstream gradient
//   inout   rows      [rows]        Row: writes gain and pull; 0 for a row that does not count

@group(0) @binding(2) var<storage, read> batch: array<Batch>;
@group(0) @binding(3) var<storage, read> upstream: array<f32>;
@group(0) @binding(4) var<storage, read_write> rows: array<Row>;

@compute @workgroup_size(64)
fn row_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    let entry = row / settings.batch_rows;
    let r = rows[row];
    var up = 1.0;
    if (has(UPSTREAM)) { up = upstream[select(entry, row, has(UPSTREAM_ROWS))]; }
    let normalizer = batch[entry].normalizer;
    let good = counts(r.state) && batch[0].non_finite_prototypes == 0u && normalizer > 0.0;
    let gain = select(0.0, up * settings.scale, good);
    // divided last: a tiny normalizer must not overflow
    let divisor = select(1.0, normalizer, normalizer > 0.0);
    let rest = settings.share * (batch[0].weights - r.weight);
    rows[row].gain = gain;
    rows[row].normalizer = divisor;
    rows[row].pull = select(0.0, gain * ((rest - r.mass * sigmoid(r.others - r.logit)) / divisor) * r.slope, good);
}
