// OPERAND: f16 in quads, where the device has the type; the width is a multiple of 4.
@group(0) @binding(BINDING) var<storage, read> OPERAND_data: array<vec4<f16>>;

// From a row's start to the next one's, for OPERAND_from: in quads.
fn OPERAND_pitch() -> u32 { return OPERAND_width() >> 2u; }

// Four values from `column`, a multiple of 4; past the end of the row they are the last four.
fn OPERAND_from(start: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(OPERAND_data[start + (min(column, OPERAND_width() - 4u) >> 2u)]);
}

// Four values of a row from `column`, a multiple of 4; zero past the end of the row.
fn OPERAND(row: u32, column: u32) -> vec4<f32> {
    return select(vec4(0.0), OPERAND_from(row * OPERAND_pitch(), column), column < OPERAND_width());
}
