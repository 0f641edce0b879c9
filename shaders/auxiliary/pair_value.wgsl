// pair_value: weight * mean of 1 / (1 + distance) over all pairs.
//
//   in      sums   [classes]  f32
//   in      batch  [1]        Batch: prototypes that are not finite
//   out     value  [1]        bits of f32
//
// One workgroup; each lane adds its own in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<Batch>;
@group(0) @binding(4) var<storage, read_write> value: array<u32>;

alias Reduced = f32;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn pair_value(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var j = lane; j < part.count; j += LANES) { sum += sums[j]; }
    sum = reduce(lane, sum);
    if (lane == 0u) {
        let count = f32(part.count);
        let mean = sum / (count * max(count - 1.0, 1.0));
        value[0] = select(settings.nan, bitcast<u32>(settings.scale * mean), batch[0].non_finite_prototypes == 0u);
    }
}
