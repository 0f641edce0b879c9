// OPERAND: bf16 of any width; two values share a word.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<u32>;

fn OPERAND_value(i: u32) -> f32 {
    let word = OPERAND_data[i >> 1u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}
