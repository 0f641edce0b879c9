// margin_gradients: the gradient of every row by its margins m0..m3.
//
//   in      rows           [rows]        Row: the label's cosine, and in slope_m2 dL/dvalue
//   inout   gradients      [rows]        vec4; added to what is there where part.local is 1 and rows add up
//   in      class_margins  [classes, 4]  f32
//   in      row_margins    [rows, 4]     f32

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> gradients: array<vec4<f32>>;

@compute @workgroup_size(64)
fn margin_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    let r = rows[row];
    var gradient = vec4(0.0);
    if (counts(r.state)) { gradient = r.slope_m2 * margin_gradient(r.cosine, given_margins(r, row)); }
    if (part.local == 1u && has(ADD_EMBEDDINGS)) { gradient += gradients[row]; }
    gradients[row] = gradient;
}
