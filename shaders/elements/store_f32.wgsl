// OPERAND: f32 of any width, written.
@group(0) @binding(BINDING) var<storage, read_write> OPERAND_data: array<f32>;

// Writes, or adds, four values of a row from `column`, a multiple of 4; nothing past the end of the row.
fn OPERAND(row: u32, column: u32, v: vec4<f32>, add: bool) {
    let width = OPERAND_width();
    let i = row * width + column;
    if (column < width) { OPERAND_data[i] = v.x + select(0.0, OPERAND_data[i], add); }
    if (column + 1u < width) { OPERAND_data[i + 1u] = v.y + select(0.0, OPERAND_data[i + 1u], add); }
    if (column + 2u < width) { OPERAND_data[i + 2u] = v.z + select(0.0, OPERAND_data[i + 2u], add); }
    if (column + 3u < width) { OPERAND_data[i + 3u] = v.w + select(0.0, OPERAND_data[i + 3u], add); }
}
