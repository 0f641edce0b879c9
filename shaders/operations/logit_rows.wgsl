// logit_rows: label, state and target logit of every row of given logits.
//
//   in      logits   [rows, classes]  f32
//   in      labels   [rows]           i32
//   in      weights  [classes]        f32; unused without class weights
//   out     rows     [rows]           Row
//
// One workgroup per row: all of its logits are looked at once, for NaN and infinity.

@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> labels: array<i32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> rows: array<Row>;

var<workgroup> bad: array<u32, 64>;

@compute @workgroup_size(64)
fn logit_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    var own = 0u;
    for (var j = lane; j < settings.classes; j += 64u) {
        own |= select(1u, 0u, finite(vec4(logits[row * settings.classes + j])));
    }
    bad[lane] = own;
    workgroupBarrier();
    if (lane != 0u) { return; }
    for (var i = 1u; i < 64u; i++) { own |= bad[i]; }

    var r = labelled_row(row, select(COUNTS, NON_FINITE, own != 0u));
    if (counts(r.state)) { r.cosine = logits[row * settings.classes + r.label]; }
    r.value = r.cosine;
    r.slope = 1.0;
    rows[row] = r;
}
