// OPERAND: f16 of any width, where the device has the type.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<f16>;

fn OPERAND_value(i: u32) -> f32 {
    return f32(OPERAND_data[i]);
}
