// OPERAND: f32 in quads, written; the width is a multiple of 4.
@group(0) @binding(BINDING) var<storage, read_write> OPERAND_data: array<vec4<f32>>;

// Writes, or adds, four values of a row from `column`, a multiple of 4; nothing past the end of the row.
fn OPERAND(row: u32, column: u32, v: vec4<f32>, add: bool) {
    let width = OPERAND_width();
    if (column < width) {
        let i = (row * width + column) >> 2u;
        if (add) { OPERAND_data[i] += v; } else { OPERAND_data[i] = v; }
    }
}
