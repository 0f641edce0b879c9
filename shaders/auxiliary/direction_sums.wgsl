// direction_sums: the sum of the directions of each block of prototypes.
//
//   in      prototype  [classes, dim]
//   in      inverses   [classes]        f32; 0 for a prototype that is not finite, negative for one shorter than 1e-12
//   out     sums       [blocks, quads]  vec4
//
// A lane takes four values of every prototype of a block (part.splits blocks of part.split_span), in order.

@group(0) @binding(3) var<storage, read> inverses: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;

fn prototype_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn direction_sums(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let quads = (settings.dim + 3u) / 4u;
    let wide = (quads + 63u) / 64u;
    let block = group / wide;
    let q = group % wide * 64u + lane;
    if (block >= part.splits || q >= quads) { return; }
    var sum = vec4(0.0);
    for (var j = block * part.split_span; j < min((block + 1u) * part.split_span, part.count); j++) {
        let inverse = abs(inverses[j]);
        sum += select(vec4(0.0), prototype(j, q * 4u) * inverse, inverse > 0.0);
    }
    sums[block * quads + q] = sum;
}
