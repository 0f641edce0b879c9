// prototype_lengths: inverse length of every prototype, and how many are not finite.
//
//   in      prototype  [classes, dim]
//   out     inverses   [classes]       f32; 0 for a prototype that is not finite, negative for one shorter than 1e-12
//   out     bad        [groups]        u32: those that are not finite among 64
//
// Eight lanes per class, eight classes at a time, 64 per workgroup.
// Twin: Directions in src/reference/mod.rs

@group(0) @binding(3) var<storage, read_write> inverses: array<f32>;
@group(0) @binding(4) var<storage, read_write> bad: array<u32>;

var<workgroup> found: array<u32, 8>;

fn prototype_width() -> u32 { return settings.dim; }
fn vector(row: u32, d: u32) -> vec4<f32> { return prototype(row, d); }

@compute @workgroup_size(64)
fn prototype_lengths(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    if (group * 64u >= part.count) { return; }
    var total = 0u;
    for (var i = 0u; i < 64u; i += 8u) {
        let j = group * 64u + i + (lane >> 3u);
        let length = measure(min(j, part.count - 1u), lane);
        if (j < part.count && (lane & 7u) == 0u) {
            inverses[j] = select(length.inverse, -length.inverse, length.short);
            total += select(0u, 1u, length.inverse == 0.0);
        }
    }
    if ((lane & 7u) == 0u) { found[lane >> 3u] = total; }
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < 8u; i++) { total += found[i]; }
        bad[group] = total;
    }
}
