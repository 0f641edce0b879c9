// OPERAND: bf16 in quads; the width is a multiple of 4.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<vec2<u32>>;

// Four values of a row from `column`, a multiple of 4; zero past the end of the row.
fn OPERAND(row: u32, column: u32) -> vec4<f32> {
    let width = OPERAND_width();
    let two = OPERAND_data[(row * width + min(column, width - 4u)) >> 2u];
    let bits = vec4(two.x << 16u, two.x & 0xffff0000u, two.y << 16u, two.y & 0xffff0000u);
    return select(vec4(0.0), bitcast<vec4<f32>>(bits), column < width);
}
