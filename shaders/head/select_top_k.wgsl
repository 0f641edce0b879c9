// select_top_k: the hardest classes of every row, a span of a chunk after the other.
//
//   in      cosine  [rows, stride]  f32
//   inout   rows    [rows]          Row: writes bound and last, those of the last one selected
//   inout   top     [rows, chosen]  vec2 (bits of the cosine, class), best first
//
// One workgroup per row. A span is short, since software drivers stop a shader after 65,535 loop iterations.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;
@group(0) @binding(4) var<storage, read_write> top: array<vec2<u32>>;

@compute @workgroup_size(MAX_TOP_K)
fn select_top_k(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    var mine = nothing();
    if (part.begin == 0u && lane < settings.top_k) {
        let held = top[row * settings.top_k + lane];
        mine = Found(bitcast<f32>(held.x), held.y, 0u);
    }
    best[lane] = mine;
    workgroupBarrier();
    let own = settings.offset + part.first / centers();
    let label = rows[row].label;
    let start = row * part.stride;
    let end = min(part.row_first + part.row_count, part.count / centers());
    for (var j = part.row_first; j < end; j += MAX_TOP_K) {
        var one = nothing();
        if (j + lane < end && own + j + lane != label) {
            let place = start + (j + lane) * centers();
            var c = cosine[place];
            for (var k = 1u; k < centers(); k++) { c = max(c, cosine[place + k]); }
            one = Found(c, own + j + lane, 0u);
        }
        take_up(one, settings.top_k, lane);
    }
    if (lane < settings.top_k) {
        top[row * settings.top_k + lane] = vec2(bitcast<u32>(best[lane].cosine), best[lane].label);
    }
    if (lane == 0u) {
        rows[row].bound = best[settings.top_k - 1u].cosine;
        rows[row].last = best[settings.top_k - 1u].label;
    }
}
