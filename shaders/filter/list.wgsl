// Lists the set bits of words in order: LANES words at a time, a word per lane.

const LANES = 256u;

var<workgroup> found: array<u32, LANES>;
var<private> bits_listed: u32;

// The place of a lane's first bit; by all lanes.
fn list_words(word: u32, lane: u32) -> u32 {
    found[lane] = countOneBits(word);
    workgroupBarrier();
    for (var step = 1u; step < LANES; step <<= 1u) {
        var sum = found[lane];
        if (lane >= step) { sum += found[lane - step]; }
        workgroupBarrier();
        found[lane] = sum;
        workgroupBarrier();
    }
    let first = bits_listed + found[lane] - countOneBits(word);
    bits_listed += found[LANES - 1u];
    workgroupBarrier();
    return first;
}
