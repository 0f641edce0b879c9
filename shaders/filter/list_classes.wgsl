// list_classes: the prototypes of a chunk that have an entry of the gradient left, for every PER_LIST rows.
//
//   in      blocks  [rows / 64, classes / 64]     Block
//   out     list    [rows / PER_LIST, 1 + stride]     their number, then the prototypes in order, counted in the chunk
//
// One workgroup per list.

@group(0) @binding(2) var<storage, read> blocks: array<Block>;
@group(0) @binding(3) var<storage, read_write> list: array<u32>;

@compute @workgroup_size(LANES)
fn list_classes(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let tile = unfold(id, groups);
    let first = tile * (PER_LIST / 64u);
    if (first * 64u >= settings.rows) { return; }
    let end = min(first + PER_LIST / 64u, (settings.rows + 63u) / 64u);
    let units = (part.stride + settings.centers - 1u) / settings.centers;
    let wide = (units + 63u) / 64u;
    let start = tile * (part.stride + 1u) + 1u;
    for (var base = 0u; base < wide * 2u; base += LANES) {
        let at = base + lane;
        var word = 0u;
        for (var block = first; block < end; block++) {
            if (at < wide * 2u) { word |= blocks[block * wide + at / 2u].classes[at & 1u]; }
        }
        // all prototypes of a class, whichever it is
        var place = start + list_words(word, lane) * settings.centers;
        while (word != 0u) {
            let column = (at * 32u + firstTrailingBit(word)) * settings.centers;
            for (var k = 0u; k < settings.centers; k++) { list[place + k] = column + k; }
            place += settings.centers;
            word &= word - 1u;
        }
    }
    if (lane == 0u) { list[start - 1u] = bits_listed * settings.centers; }
}
