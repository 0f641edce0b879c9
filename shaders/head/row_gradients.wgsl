// row_gradients: what the backward pass needs to know of a row, under an upstream gradient.
//
//   in      batch     [batch]       Batch
//   in      upstream  [1 | rows]    f32
//   inout   rows      [rows]        Row
//
// Only where there is an upstream gradient: without one batch_loss does the same.

@group(0) @binding(2) var<storage, read> batch: array<Batch>;
@group(0) @binding(3) var<storage, read> upstream: array<f32>;
@group(0) @binding(4) var<storage, read_write> rows: array<Row>;

@compute @workgroup_size(64)
fn row_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    let entry = row / settings.batch_rows;
    let up = upstream[select(entry, row, has(UPSTREAM_ROWS))];
    rows[row] = with_gradients(rows[row], up, divisor_of(batch[entry].normalizer), class_totals_of(lane));
}
