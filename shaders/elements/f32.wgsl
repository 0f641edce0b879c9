// OPERAND: f32 of any width.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<f32>;

fn OPERAND_value(i: u32) -> f32 {
    return OPERAND_data[i];
}
