// OPERAND: f16 in quads, where the device has the type; the width is a multiple of 4.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<vec4<f16>>;

// Four values of a row from `column`, a multiple of 4; zero past the end of the row.
fn OPERAND(row: u32, column: u32) -> vec4<f32> {
    let width = OPERAND_width();
    let v = vec4<f32>(OPERAND_data[(row * width + min(column, width - 4u)) >> 2u]);
    return select(vec4(0.0), v, column < width);
}
