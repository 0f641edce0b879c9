// direction_sums: sums of the directions of the prototypes of a shard, a block of classes per workgroup.
//
//   in      prototype  [shard, dim]
//   in      classes    [classes]         vec2 (inverse length, -) as class_norms writes it
//   out     sums       [blocks, quads]   vec4; this shard's blocks from part.row_first on
//
// 64 lanes, each four values of a vector: a block takes as many workgroups as the vector needs, side by side. A lane adds
// the classes of its block, part.slot_span of them, in order.

@group(0) @binding(3) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;

fn prototype_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn direction_sums(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let quads = (settings.dim + 3u) / 4u;
    let wide = (quads + 63u) / 64u;
    let block = group / wide;
    let quad = group % wide * 64u + lane;
    let first = block * part.slot_span;
    if (first >= part.count || quad >= quads) { return; }
    var sum = vec4(0.0);
    for (var j = first; j < min(first + part.slot_span, part.count); j++) {
        let inverse = abs(classes[part.first + j].x);
        // not finite: 0 times it would be NaN
        sum += select(vec4(0.0), prototype(j, quad * 4u) * inverse, inverse > 0.0);
    }
    sums[(part.row_first + block) * quads + quad] = sum;
}
