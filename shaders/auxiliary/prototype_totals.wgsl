// prototype_totals: how many prototypes are not finite.
//
//   in      bad    [groups]  u32, from prototype_lengths
//   out     total  [1]       u32
//
// One workgroup; each lane adds its own, then the lanes are added in a tree.

@group(0) @binding(2) var<storage, read> bad: array<u32>;
@group(0) @binding(3) var<storage, read_write> total: array<u32>;

var<workgroup> lanes: array<u32, 256>;

@compute @workgroup_size(256)
fn prototype_totals(@builtin(local_invocation_index) lane: u32) {
    var sum = 0u;
    for (var i = lane; i < (part.count + 63u) / 64u; i += 256u) { sum += bad[i]; }
    lanes[lane] = sum;
    workgroupBarrier();
    for (var size = 128u; size > 0u; size >>= 1u) {
        if (lane < size) { lanes[lane] += lanes[lane + size]; }
        workgroupBarrier();
    }
    if (lane == 0u) { total[0] = lanes[0]; }
}
