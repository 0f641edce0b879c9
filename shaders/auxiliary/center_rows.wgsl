// center_rows: what every row counts for, and the square of its distance to the center of its class.
//
//   in      embedding  [rows, dim]
//   in      center     [classes, dim]
//   in      labels     [rows]          i32
//   out     states     [rows]          u32, as Row.state
//   out     squared    [rows]          f32; 0 for a row that does not count
//
// Eight rows per workgroup, eight lanes per row.
// Twin: center_loss in src/reference/regularizer.rs

@group(0) @binding(4) var<storage, read> labels: array<i32>;
@group(0) @binding(5) var<storage, read_write> states: array<u32>;
@group(0) @binding(6) var<storage, read_write> squared: array<f32>;

fn embedding_width() -> u32 { return settings.dim; }
fn center_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn center_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let place = unfold(id, groups) * 8u + (lane >> 3u);
    let row = min(place, settings.rows - 1u);
    let label = labels[row];
    let known = label >= 0 && u32(label) < part.count;
    let j = select(0u, u32(label), known);
    var good = true;
    var sum = 0.0;
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        let t = embedding(row, d);
        let c = center(j, d);
        let apart = t - c;
        good = good && finite(t) && finite(c) && finite(apart);
        sum += squares(apart);
    }
    // the flag travels as a number, since a NaN may not survive max
    let bad = eight_max(lane, select(1.0, 0.0, good)) > 0.0;
    sum = eight_sum(lane, sum);
    if (place >= settings.rows || (lane & 7u) != 0u) { return; }
    var state = select(COUNTS, NON_FINITE, bad);
    if (!known) { state = INVALID; }
    if (has(HAS_IGNORE) && label == settings.ignore) { state = IGNORED; }
    states[row] = state;
    squared[row] = select(0.0, sum, state == COUNTS);
}
