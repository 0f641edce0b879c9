// grad_cosines: dL/dcosine of a chunk, in place, and its sums with the cosines over blocks of rows.
//
//   inout   cosine   [rows, stride]           f32: cosine in, gradient out; 0 in the padding
//   in      rows     [rows]                   Row
//   in      classes  [vectors]                vec2 (inverse length, weight)
//   inout   columns  [rows / 64, stride]      f32: sum of gradient * cosine, the radial part of dW; of the gradient alone
//                                             for a linear head, which has a bias and no radial part
//   in      bias     [classes]                f32; of a linear head alone
//   out     blocks   [rows / 64, classes / 64]  Block; with a filter alone
//
// 64 classes by 64 rows per workgroup, a class per lane: of its prototypes the one with the largest cosine is pulled.

@group(0) @binding(2) var<storage, read_write> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;
@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> columns: array<f32>;

// One class of a block of rows.
fn pull_class(block: u32, unit: u32) {
    let column = unit * centers();
    // fewer than all prototypes in the padding
    let here = min(centers(), part.stride - column);
    let inside = column < part.count;
    let j = part.first / centers() + unit;
    let label = settings.offset + j;
    // a class that does not exist has no weight
    let weight = settings.share * classes[select(part.first, part.first + column, inside)].y;
    let bias = product_bias(j);
    let plain = has(DOT_PRODUCT);
    var sum = 0.0;
    if (centers() > 1u) {
        for (var k = 0u; k < here; k++) { columns[block * part.stride + column + k] = 0.0; }
    }
    for (var row = block * 64u; row < min(block * 64u + 64u, settings.rows); row++) {
        let place = row * part.stride + column;
        var c = cosine[place];
        var best = 0u;
        if (centers() > 1u) {
            for (var k = 1u; k < here; k++) {
                let one = cosine[place + k];
                if (one > c) { c = one; best = k; }
            }
        }
        c += bias;
        let curve = other(c, Place(rows[row].bound, rows[row].hardness, label > rows[row].last));
        var smoothed = 0.0;
        // divided first: a tiny normalizer must not overflow
        if (settings.share > 0.0) { smoothed = rows[row].gain * (weight / rows[row].normalizer); }
        let shared_pull = link_push(rows[row].scale * curve.value, rows[row].mass, rows[row].total, smoothed) * curve.slope;
        let pull = select(shared_pull, rows[row].pull, rows[row].label == label);
        // by its bits: a comparison with a NaN is what the driver likes, and an upstream gradient of NaN must not look like 0
        let all = select(0.0, pull, inside && (bitcast<u32>(rows[row].gain) << 1u) != 0u);
        let g = keep(all, rows[row].gain, rows[row].normalizer, row - block * 64u);
        let radial = select(c, 1.0, plain);
        if (centers() > 1u) {
            for (var k = 0u; k < here; k++) { cosine[place + k] = select(0.0, g, k == best); }
            let at = block * part.stride + column + best;
            columns[at] = fma(g, radial, columns[at]);
        } else {
            cosine[place] = g;
            sum = fma(g, radial, sum);
        }
    }
    if (centers() == 1u) { columns[block * part.stride + column] = select(0.0, sum, inside); }
}

@compute @workgroup_size(64)
fn grad_cosines(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let units = (part.stride + centers() - 1u) / centers();
    let wide = (units + 63u) / 64u;
    let block = group / wide;
    if (block * 64u >= settings.rows) { return; }
    let unit = group % wide * 64u + lane;
    if (unit < units) { pull_class(block, unit); }
    close(group, lane);
}
