// Targets beside the label stay out of the sums. A lane meets one in few of its quads, and knows in which.

@group(0) @binding(BINDING) var<storage, read> soft: array<Row>;

// the first of the row beside the label, and the class from which its place is counted
var<private> targets_at: u32;
var<private> targets_from: u32;
// a bit for each turn of the loop in which this lane meets one, modulo 32
var<private> target_turns: u32;

fn seek_targets(row: u32, own: u32, first: u32, lane: u32) {
    targets_at = row * (TARGETS + 1u) + 1u;
    targets_from = own;
    target_turns = 0u;
    for (var t = 0u; t < TARGETS; t++) {
        let at = soft[targets_at + t].label - own - first;
        let turn = 1u << ((at / (4u * LANES)) & 31u);
        target_turns |= select(0u, turn, at / 4u % LANES == lane);
    }
}

fn beside_targets(others: vec4<u32>, at: vec4<u32>, first: u32) -> vec4<u32> {
    var left = others;
    if (((target_turns >> (((at.x - first) / (4u * LANES)) & 31u)) & 1u) != 0u) {
        for (var t = 0u; t < TARGETS; t++) {
            left = select(left, vec4(0xffffffffu), at == vec4(soft[targets_at + t].label - targets_from));
        }
    }
    return left;
}
