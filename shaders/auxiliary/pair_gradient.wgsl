// pair_gradient: adds the slabs in order, takes out the radial part, divides by the length; sums 1 / (1 + distance).
//
//   in      prototype       [classes, dim]
//   in      classes         [classes]              vec2 (inverse length, -) as class_norms writes it
//   in      batch           [1]                    Batch: prototypes that are not finite
//   in      distances       [rows, stride]         f32 in quads; -1 for a prototype with itself and in the padding
//   inout   slabs           [splits, rows, quads]  vec4; the sum is put into the first
//   out     sums            [classes]              f32
//   inout   store_gradient  [classes, dim]
//
// One workgroup per row; row 0 is prototype part.row_first.
// Twin: regularize in src/reference/auxiliary.rs

@group(0) @binding(3) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> batch: array<Batch>;
@group(0) @binding(5) var<storage, read> distances: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> slabs: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

// (radial part, sum)
alias Reduced = vec2<f32>;
const LANES = 64u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

fn prototype_width() -> u32 { return settings.dim; }
fn store_gradient_width() -> u32 { return settings.dim; }

@compute @workgroup_size(LANES)
fn pair_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= part.row_count) { return; }
    let j = part.row_first + row;
    let quads = (settings.dim + 3u) / 4u;
    let inverse = classes[j].x;
    let keep = inverse > 0.0 && batch[0].non_finite_prototypes == 0u;
    var own = vec2(0.0);
    for (var q = lane; q < quads; q += LANES) {
        var sum = vec4(0.0);
        for (var split = 0u; split < part.splits; split++) { sum += slabs[(split * part.row_count + row) * quads + q]; }
        slabs[row * quads + q] = sum;
        own.x += dot(sum, select(vec4(0.0), prototype(j, q * 4u) * inverse, keep));
    }
    for (var k = lane; k < part.stride / 4u; k += LANES) {
        let d = distances[row * (part.stride / 4u) + k];
        let terms = select(vec4(0.0), 1.0 / (1.0 + max(d, vec4(0.0))), d >= vec4(0.0));
        own.y += (terms.x + terms.y) + (terms.z + terms.w);
    }
    let all = reduce(lane, own);
    if (lane == 0u) { sums[j] = all.y; }
    let radial = all.x;
    let count = f32(part.count);
    let gain = 2.0 * settings.scale / (count * max(count - 1.0, 1.0)) * inverse;
    for (var q = lane; q < quads; q += LANES) {
        let unit = select(vec4(0.0), prototype(j, q * 4u) * inverse, keep);
        let v = (slabs[row * quads + q] - radial * unit) * gain;
        store_gradient(j, q * 4u, select(vec4(0.0), v, keep), has(ADD_PROTOTYPES));
    }
}
