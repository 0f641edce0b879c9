// The totals of all classes from those of groups of 64 prototypes, part.count of them; the same sums in every kernel.

const TOTALS_KNOWN = false;

@group(0) @binding(BINDING) var<storage, read> totals: array<vec4<f32>>;

var<workgroup> total_parts: array<vec4<f32>, 64>;

fn both(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return vec4(a.x + b.x, a.y + b.y, a.z + b.z, max(a.w, b.w)); }

// Every lane of a workgroup of at least 64 calls it.
fn class_totals_of(lane: u32) -> ClassTotals {
    var own = vec4(0.0);
    if (lane < 64u) {
        for (var i = lane; i < part.count; i += 64u) { own = both(own, totals[i]); }
        total_parts[lane] = own;
    }
    workgroupBarrier();
    if (lane < 8u) {
        for (var i = lane + 8u; i < 64u; i += 8u) { own = both(own, total_parts[i]); }
        total_parts[lane] = own;
    }
    workgroupBarrier();
    var all = total_parts[0];
    for (var i = 1u; i < 8u; i++) { all = both(all, total_parts[i]); }
    // Counts are whole f32: exact up to 2^24, rounded above.
    // 2^(a third of the exponent), which is at most 127: see Batch.balance
    let balance = bitcast<f32>((127u + u32(all.w) / 3u) << 23u);
    return ClassTotals(all.x, u32(all.y), u32(all.z), balance);
}
