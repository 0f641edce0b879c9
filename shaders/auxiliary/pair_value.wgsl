// pair_value: weight * mean of 1 / (1 + distance) over all pairs.
//
//   in      sums   [classes]  f32
//   in      total  [1]        u32: prototypes that are not finite
//   out     value  [1]        bits of f32
//
// One workgroup; each lane adds its own in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read> total: array<u32>;
@group(0) @binding(4) var<storage, read_write> value: array<u32>;

var<workgroup> lanes: array<f32, 256>;

@compute @workgroup_size(256)
fn pair_value(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var j = lane; j < part.count; j += 256u) { sum += sums[j]; }
    lanes[lane] = sum;
    workgroupBarrier();
    for (var size = 128u; size > 0u; size >>= 1u) {
        if (lane < size) { lanes[lane] += lanes[lane + size]; }
        workgroupBarrier();
    }
    if (lane == 0u) {
        let count = f32(part.count);
        let mean = lanes[0] / (count * max(count - 1.0, 1.0));
        value[0] = select(settings.nan, bitcast<u32>(settings.scale * mean), total[0] == 0u);
    }
}
