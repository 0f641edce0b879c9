// OPERAND: any width, one value at a time; OPERAND_value(i) is the element's.

// From a row's start to the next one's, for OPERAND_from.
fn OPERAND_pitch() -> u32 { return OPERAND_width(); }

// Four values from `column`, a multiple of 4; zero past the end of the row.
fn OPERAND_from(start: u32, column: u32) -> vec4<f32> {
    let last = OPERAND_width() - 1u;
    let at = vec4(column) + vec4(0u, 1u, 2u, 3u);
    let i = vec4(start) + min(at, vec4(last));
    let v = vec4(OPERAND_value(i.x), OPERAND_value(i.y), OPERAND_value(i.z), OPERAND_value(i.w));
    return select(vec4(0.0), v, at <= vec4(last));
}

// Four values of a row from `column`, a multiple of 4; zero past the end of the row.
fn OPERAND(row: u32, column: u32) -> vec4<f32> { return OPERAND_from(row * OPERAND_pitch(), column); }
