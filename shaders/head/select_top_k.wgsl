// select_top_k: the hardest classes of every row, a span of a chunk after the other.
//
//   in      cosine  [rows, stride]  f32
//   inout   rows    [rows]          Row: writes bound and last, those of the last one selected
//   inout   top     [rows, chosen]  vec2 (bits of the cosine, class), best first
//
// One workgroup per row. A list of MAX_TOP_K lies in workgroup memory; as many classes at a time find their places in it
// by counting. Of equal cosines the lower class comes first. A span is short, since software drivers stop a shader after
// 65,535 loop iterations.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;
@group(0) @binding(4) var<storage, read_write> top: array<vec2<u32>>;

struct Found { cosine: f32, label: u32 }

var<workgroup> best: array<Found, MAX_TOP_K>;
var<workgroup> fresh: array<Found, MAX_TOP_K>;
var<workgroup> hits: atomic<u32>;

fn before(a: Found, b: Found) -> bool {
    return a.cosine > b.cosine || (a.cosine == b.cosine && a.label < b.label);
}

@compute @workgroup_size(MAX_TOP_K)
fn select_top_k(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    let none = Found(LOWEST, NO_CLASS);
    var mine = none;
    if (part.begin == 0u && lane < settings.top_k) {
        let held = top[row * settings.top_k + lane];
        mine = Found(bitcast<f32>(held.x), held.y);
    }
    best[lane] = mine;
    let own = settings.offset + part.first / centers();
    let label = rows[row].label;
    let start = row * part.stride;
    let end = min(part.row_first + part.row_count, part.count / centers());
    for (var j = part.row_first; j < end; j += MAX_TOP_K) {
        var one = none;
        if (j + lane < end && own + j + lane != label) {
            let place = start + (j + lane) * centers();
            var c = cosine[place];
            for (var k = 1u; k < centers(); k++) { c = max(c, cosine[place + k]); }
            one = Found(c, own + j + lane);
        }
        if (lane == 0u) { atomicStore(&hits, 0u); }
        fresh[lane] = one;
        workgroupBarrier();
        if (before(one, best[settings.top_k - 1u])) { atomicOr(&hits, 1u); }
        workgroupBarrier();
        let any = atomicLoad(&hits) != 0u;
        mine = best[lane];
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
    workgroupBarrier();
    if (lane < settings.top_k) {
        top[row * settings.top_k + lane] = vec2(bitcast<u32>(best[lane].cosine), best[lane].label);
    }
    if (lane == 0u) {
        rows[row].bound = best[settings.top_k - 1u].cosine;
        rows[row].last = best[settings.top_k - 1u].label;
    }
}
