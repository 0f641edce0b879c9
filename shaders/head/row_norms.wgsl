// row_norms: inverse length, label and state of every row.
//
//   in      embedding  [rows, dim]
//   in      labels     [rows]       i32
//   in      weights    [classes]    f32; unused without class weights
//   out     inverses   [rows]       f32; 0 for a row that is not finite
//   out     rows       [rows]       Row
//
// Eight rows per workgroup, eight lanes per row.
// Twin: Directions in src/reference/directions.rs

@group(0) @binding(3) var<storage, read> labels: array<i32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> inverses: array<f32>;
@group(0) @binding(6) var<storage, read_write> rows: array<Row>;

fn embedding_width() -> u32 { return settings.dim; }
fn vector(row: u32, d: u32) -> vec4<f32> { return embedding(row, d); }

@compute @workgroup_size(64)
fn row_norms(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 8u + (lane >> 3u);
    let inside = row < settings.rows;
    let length = measure(min(row, settings.rows - 1u), lane);
    if (!inside || (lane & 7u) != 0u) { return; }

    let fresh = select(select(COUNTS, SHORT, length.short), NON_FINITE, length.inverse == 0.0);
    inverses[row] = length.inverse;
    var r = labelled_row(row, fresh);
    r.length = length.length;
    if (settings.adaptive == LENGTH_SCALE && counts(r.state)) { r.scale *= clamp(r.length, settings.lower, settings.upper); }
    rows[row] = r;
}
