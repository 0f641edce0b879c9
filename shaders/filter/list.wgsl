// Lists the set bits of words in order: 256 words at a time, a word per lane.

var<workgroup> found: array<u32, 256>;
var<private> bits_listed: u32;

// The place of a lane's first bit; by all lanes.
fn list_words(word: u32, lane: u32) -> u32 {
    found[lane] = countOneBits(word);
    workgroupBarrier();
    for (var step = 1u; step < 256u; step <<= 1u) {
        var sum = found[lane];
        if (lane >= step) { sum += found[lane - step]; }
        workgroupBarrier();
        found[lane] = sum;
        workgroupBarrier();
    }
    let first = bits_listed + found[lane] - countOneBits(word);
    bits_listed += found[255];
    workgroupBarrier();
    return first;
}
