// filter_totals: what a filter left out, and how many entries it left, added to the chunks before.
//
//   in      blocks   [rows / 64, classes / 64]   Block
//   inout   filtered [1]                         Filtered
//
// One workgroup; each lane adds its own in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> blocks: array<Block>;
@group(0) @binding(3) var<storage, read_write> filtered: array<Filtered>;

struct Filtered {
    dropped: f32,
    total: f32,
    // a number of 64 bits
    low: u32,
    high: u32,
}

var<workgroup> lanes: array<vec2<f32>, 256>;
var<workgroup> left: array<u32, 256>;

@compute @workgroup_size(256)
fn filter_totals(@builtin(local_invocation_index) lane: u32) {
    let units = (part.stride + settings.centers - 1u) / settings.centers;
    let count = (settings.rows + 63u) / 64u * ((units + 63u) / 64u);
    var sum = vec2(0.0);
    // below 2^32: a chunk has fewer than 2^31 entries
    var entries = 0u;
    for (var i = lane; i < count; i += 256u) {
        sum += vec2(blocks[i].dropped, blocks[i].total);
        entries += blocks[i].left;
    }
    lanes[lane] = sum;
    left[lane] = entries;
    workgroupBarrier();
    for (var size = 128u; size > 0u; size >>= 1u) {
        if (lane < size) {
            lanes[lane] += lanes[lane + size];
            left[lane] += left[lane + size];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        var all = Filtered(0.0, 0.0, 0u, 0u);
        if (part.begin == 0u) { all = filtered[0]; }
        let low = all.low + left[0];
        let high = all.high + select(0u, 1u, low < all.low);
        filtered[0] = Filtered(all.dropped + lanes[0].x, all.total + lanes[0].y, low, high);
    }
}
