// Targets beside the label have pulls of their own. A bit says which of a block's 64 classes are targets of a row.

@group(0) @binding(BINDING) var<storage, read> soft: array<Row>;

var<workgroup> target_bits: array<vec2<u32>, 64>;
// the block's first row, and its first class in label space
var<private> targets_row: u32;
var<private> targets_class: u32;

fn open_targets(first: u32, unit: u32, lane: u32) {
    targets_row = first;
    targets_class = settings.offset + part.first / centers() + unit;
    var bits = vec2(0u);
    if (first + lane < settings.rows) {
        for (var t = 1u; t <= TARGETS; t++) {
            let at = soft[(first + lane) * (TARGETS + 1u) + t].label - targets_class;
            let bit = 1u << (at & 31u);
            if (at < 64u) { bits |= select(vec2(0u, bit), vec2(bit, 0u), at < 32u); }
        }
    }
    target_bits[lane] = bits;
}

fn at_target(pull: f32, row: u32, class_of: u32) -> f32 {
    let bits = target_bits[row];
    if (((select(bits.y, bits.x, class_of < 32u) >> (class_of & 31u)) & 1u) == 0u || !lives(pulling[row])) { return pull; }
    let first = (targets_row + row) * (TARGETS + 1u);
    for (var t = 1u; t <= TARGETS; t++) {
        if (soft[first + t].label == targets_class + class_of) { return soft[first + t].pull; }
    }
    return pull;
}

fn at_targets(pulls: vec4<f32>, row: u32, class_of: u32) -> vec4<f32> {
    return vec4(at_target(pulls.x, row, class_of), at_target(pulls.y, row, class_of + 1u),
                at_target(pulls.z, row, class_of + 2u), at_target(pulls.w, row, class_of + 3u));
}
