// list_rows: the rows that have an entry of the gradient left, for every PER_LIST prototypes of a chunk.
//
//   in      blocks  [rows / 64, classes / 64]     Block
//   out     list    [stride / PER_LIST, 1 + rows]     their number, then the rows in order
//
// One workgroup per list.

@group(0) @binding(2) var<storage, read> blocks: array<Block>;
@group(0) @binding(3) var<storage, read_write> list: array<u32>;

@compute @workgroup_size(LANES)
fn list_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let tile = unfold(id, groups);
    if (tile * PER_LIST >= part.stride) { return; }
    let units = (part.stride + settings.centers - 1u) / settings.centers;
    let wide = (units + 63u) / 64u;
    // the blocks with a class of these prototypes
    let first = tile * PER_LIST / settings.centers / 64u;
    let last = (min(tile * PER_LIST + PER_LIST, part.stride) - 1u) / settings.centers / 64u;
    let start = tile * (settings.rows + 1u) + 1u;
    let words = (settings.rows + 63u) / 64u * 2u;
    for (var base = 0u; base < words; base += LANES) {
        let at = base + lane;
        var word = 0u;
        for (var block = first; block <= last; block++) {
            if (at < words) { word |= blocks[at / 2u * wide + block].rows[at & 1u]; }
        }
        var place = start + list_words(word, lane);
        while (word != 0u) {
            list[place] = at * 32u + firstTrailingBit(word);
            place++;
            word &= word - 1u;
        }
    }
    if (lane == 0u) { list[start - 1u] = bits_listed; }
}
