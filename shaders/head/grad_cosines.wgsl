// grad_cosines: dL/dcosine of a chunk, in place, and its sums with the cosines over blocks of rows.
//
//   inout   cosine   [rows, stride]           f32: cosine in; gradient out, in a head times the prototype's inverse length and
//                                             Batch.balance; 0 in the padding
//   in      rows     [rows]                   Row
//   in      classes  [vectors]                vec2 (inverse length, weight)
//   inout   columns  [rows / 64, stride]      f32: sum of gradient as it is stored * cosine, the radial part of dW; of the
//                                             gradient alone for a linear head, which has a bias and no radial part; and then
//                                             one number, by which dW is multiplied
//   in      bias     [classes]                f32; of a linear head alone
//   in      batch    [1]                      Batch; where the gradient has the inverse lengths
//   out     blocks   [rows / 64, classes / 64]  Block; with a filter alone
//
// 64 classes by 64 rows per workgroup, which pull_block of its part goes through.

@group(0) @binding(3) var<storage, read> rows: array<Row>;
@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> columns: array<f32>;

// What the classes of a row need to know of it.
struct Pulling {
    push: vec4<f32>,    // scale, mass, total, pull
    place: vec4<f32>,   // gain, the weight of the row over the normalizer, bound, hardness
    known: vec2<u32>,   // label, last
}

// of the block's rows
var<workgroup> pulling: array<Pulling, 64>;

// dL/dcosine of one class, label space, with its smoothed weight; `here`: it exists, and the row counts.
fn pull_of(c: f32, row: Pulling, class_of: u32, weight: f32, here: bool) -> f32 {
    let curve = other(c, Place(row.place.z, row.place.w, class_of > row.known.y));
    var smoothed = 0.0;
    if (settings.share > 0.0) { smoothed = row.place.x * (weight * row.place.y); }
    let shared_pull = link_push(row.push.x * curve.value, row.push.y, row.push.z, smoothed) * curve.slope;
    return select(0.0, select(shared_pull, row.push.w, class_of == row.known.x), here);
}

// By its bits: a comparison with a NaN is what the driver likes, and an upstream gradient of NaN must not look like 0.
fn lives(row: Pulling) -> bool { return (bitcast<u32>(row.place.x) << 1u) != 0u; }

@compute @workgroup_size(64)
fn grad_cosines(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let units = (part.stride + centers() - 1u) / centers();
    let wide = (units + 63u) / 64u;
    let block = group / wide;
    let first = block * 64u;
    if (first >= settings.rows) { return; }
    if (first + lane < settings.rows) {
        let row = first + lane;
        pulling[lane] = Pulling(vec4(rows[row].scale, rows[row].mass, rows[row].total, rows[row].pull),
                                vec4(rows[row].gain, rows[row].row_weight / rows[row].normalizer, rows[row].bound, rows[row].hardness),
                                vec2(rows[row].label, rows[row].last));
    }
    if (group == 0u && lane == 0u) { columns[(settings.rows + 63u) / 64u * part.stride] = 1.0 / pull_balance(); }
    open_targets(first, group % wide * 64u, lane);
    workgroupBarrier();
    pull_block(first, min(settings.rows - first, 64u), group % wide * 64u, lane);
    close(group, lane);
}
