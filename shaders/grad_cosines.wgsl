// grad_cosines: dL/dcosine of a chunk, in place, and its sums with the cosines over blocks of rows.
//
//   inout   cosine   [rows, stride]           f32: cosine in, gradient out; 0 in the padding
//   in      rows     [rows]                   Row
//   in      classes  [classes]                vec2 (inverse length, weight)
//   out     columns  [rows / 64, stride]      f32: sum of gradient * cosine, the radial part of dW
//
// 64 classes by 64 rows per workgroup, a class per lane.

@group(0) @binding(2) var<storage, read_write> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;
@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> columns: array<f32>;

@compute @workgroup_size(64)
fn grad_cosines(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (part.stride + 63u) / 64u;
    let block = group / wide;
    let column = group % wide * 64u + lane;
    if (block * 64u >= settings.rows || column >= part.stride) { return; }
    let j = part.first + column;
    let inside = column < part.count;
    // a class that does not exist has no weight
    let weight = settings.share * classes[select(part.first, j, inside)].y;
    var sum = 0.0;
    for (var row = block * 64u; row < min(block * 64u + 64u, settings.rows); row++) {
        let place = row * part.stride + column;
        let c = cosine[place];
        let curve = other(c);
        let probability = exponential(settings.scale * curve.value - rows[row].total);
        let share = (rows[row].mass * probability - weight) / rows[row].normalizer;
        let shared_pull = rows[row].gain * share * curve.slope;
        let pull = select(shared_pull, rows[row].pull, rows[row].label == j);
        let g = select(0.0, pull, inside && rows[row].gain != 0.0);
        cosine[place] = g;
        sum = fma(g, c, sum);
    }
    columns[block * part.stride + column] = select(0.0, sum, inside);
}
