// mean_gradient: weight / (classes * length) * (mean - radial part) of every prototype.
//
//   in      prototype       [classes, dim]
//   in      classes         [classes]       vec2 (inverse length, -) as class_norms writes it
//   in      mean            [quads]         vec4: of length 1, or 0
//   inout   store_gradient  [classes, dim]
//
// Eight prototypes per workgroup, eight lanes per prototype.
// Twin: regularize in src/reference/auxiliary.rs

@group(0) @binding(3) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> mean: array<vec4<f32>>;

fn prototype_width() -> u32 { return settings.dim; }
fn store_gradient_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn mean_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let place = unfold(id, groups) * 8u + (lane >> 3u);
    let j = min(place, part.count - 1u);
    let inverse = classes[j].x;
    let keep = inverse > 0.0;
    var sum = vec4(0.0);
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        sum = fma(select(vec4(0.0), prototype(j, d) * inverse, keep), mean[d >> 2u], sum);
    }
    let radial = eight_sum(lane, (sum.x + sum.y) + (sum.z + sum.w));
    if (place >= part.count) { return; }
    let gain = settings.scale / f32(part.count) * inverse;
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        let unit = select(vec4(0.0), prototype(j, d) * inverse, keep);
        store_gradient(j, d, select(vec4(0.0), (mean[d >> 2u] - radial * unit) * gain, keep), has(ADD_PROTOTYPES));
    }
}
