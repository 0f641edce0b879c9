// filter_totals: what a filter left out, and how many entries it left, added to the chunks before.
//
//   in      blocks   [rows / 64, classes / 64]   Block
//   inout   filtered [1]                         FilterTotals
//
// One workgroup; each lane adds its own in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> blocks: array<Block>;
@group(0) @binding(3) var<storage, read_write> filtered: array<FilterTotals>;

struct Sums {
    dropped: f32,
    total: f32,
    left: u32,              // below 2^32: a chunk has fewer than 2^31 entries
}

alias Reduced = Sums;
const LANES = 256u;
fn combine(a: Sums, b: Sums) -> Sums { return Sums(a.dropped + b.dropped, a.total + b.total, a.left + b.left); }

@compute @workgroup_size(LANES)
fn filter_totals(@builtin(local_invocation_index) lane: u32) {
    let units = (part.stride + settings.centers - 1u) / settings.centers;
    let count = (settings.rows + 63u) / 64u * ((units + 63u) / 64u);
    var own: Sums;
    for (var i = lane; i < count; i += LANES) {
        own = combine(own, Sums(blocks[i].dropped, blocks[i].total, blocks[i].left));
    }
    let chunk = reduce(lane, own);
    if (lane == 0u) {
        var all = FilterTotals(0.0, 0.0, 0u, 0u);
        if (part.begin == 0u) { all = filtered[0]; }
        let low = all.low + chunk.left;
        let high = all.high + select(0u, 1u, low < all.low);
        filtered[0] = FilterTotals(all.dropped + chunk.dropped, all.total + chunk.total, low, high);
    }
}
