// OPERAND: f16 of any width; two values share a word. Needs no f16 feature.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<u32>;

fn OPERAND_value(i: u32) -> f32 {
    let word = OPERAND_data[i >> 1u];
    return select(unpack2x16float(word).x, unpack2x16float(word).y, (i & 1u) == 1u);
}
