// select_nearest: the nearest classes of every row, a span of a chunk after the other; CHOSEN of them.
//
//   in      cosine   [rows, stride]  f32
//   inout   nearest  [rows, CHOSEN]  vec4 (bits of the cosine, class, its prototype, -), best first
//   in      bias     [classes]       f32; of a linear head alone
//
// One workgroup per row. A span is short, since software drivers stop a shader after 65,535 loop iterations.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read_write> nearest: array<vec4<u32>>;

@compute @workgroup_size(MAX_TOP_K)
fn select_nearest(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    var mine = nothing();
    if (part.begin == 0u && lane < CHOSEN) {
        let held = nearest[row * CHOSEN + lane];
        mine = Found(bitcast<f32>(held.x), held.y, held.z);
    }
    best[lane] = mine;
    workgroupBarrier();
    let own = part.first / centers();
    let start = row * part.stride;
    let end = min(part.row_first + part.row_count, part.count / centers());
    for (var j = part.row_first; j < end; j += MAX_TOP_K) {
        var one = nothing();
        if (j + lane < end) {
            let place = start + (j + lane) * centers();
            one = Found(cosine[place], settings.offset + own + j + lane, 0u);
            for (var k = 1u; k < centers(); k++) {
                let c = cosine[place + k];
                if (c > one.cosine) {
                    one.cosine = c;
                    one.center = k;
                }
            }
            one.cosine += product_bias(own + j + lane);
        }
        take_up(one, CHOSEN, lane);
    }
    if (lane < CHOSEN) {
        let found = best[lane];
        nearest[row * CHOSEN + lane] = vec4(bitcast<u32>(found.cosine), found.label, found.center, 0u);
    }
}
