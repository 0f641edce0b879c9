// The best entries of a row in workgroup memory, best first. MAX_TOP_K lanes bring as many at a time, which find their places
// in the list by counting. Of equal cosines the lower class comes first.

struct Found { cosine: f32, label: u32, center: u32 }

fn nothing() -> Found { return Found(LOWEST, NO_CLASS, 0u); }

var<workgroup> best: array<Found, MAX_TOP_K>;
var<workgroup> fresh: array<Found, MAX_TOP_K>;
// which of the new ones may enter the list, and of each eighth of the lanes whether one may: a vote without atomics, which some
// drivers lose
var<workgroup> enters: array<u32, MAX_TOP_K>;
var<workgroup> any_enters: array<u32, 8>;

fn before(a: Found, b: Found) -> bool {
    return a.cosine > b.cosine || (a.cosine == b.cosine && a.label < b.label);
}

// Every lane calls it with an entry of its own, after a barrier; those beyond the first `count` places need not be right.
fn take_up(one: Found, count: u32, lane: u32) {
    fresh[lane] = one;
    enters[lane] = select(0u, 1u, before(one, best[count - 1u]));
    workgroupBarrier();
    if (lane < 8u) {
        var some = 0u;
        for (var i = lane; i < MAX_TOP_K; i += 8u) { some |= enters[i]; }
        any_enters[lane] = some;
    }
    workgroupBarrier();
    var votes = 0u;
    for (var i = 0u; i < 8u; i++) { votes |= any_enters[i]; }
    let any = votes != 0u;
    let mine = best[lane];
    var place = lane;       // of the one that was there
    var rank = 0u;          // of the new one
    for (var i = 0u; i < select(0u, MAX_TOP_K, any); i++) {
        place += select(0u, 1u, before(fresh[i], mine));
        rank += select(0u, 1u, before(fresh[i], one) || (i < lane && fresh[i].label == NO_CLASS && one.label == NO_CLASS));
        rank += select(0u, 1u, before(best[i], one) || (best[i].label == NO_CLASS && one.label == NO_CLASS));
    }
    workgroupBarrier();
    if (any) {
        if (place < MAX_TOP_K) { best[place] = mine; }
        if (rank < MAX_TOP_K) { best[rank] = one; }
    }
    workgroupBarrier();
}
