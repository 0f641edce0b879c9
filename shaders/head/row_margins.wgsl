// of rows; unused without them. NaN: not given
@group(0) @binding(BINDING) var<storage, read> row_margins: array<vec4<f32>>;

fn margins_of_one(row: u32) -> vec4<f32> { return row_margins[min(row, arrayLength(&row_margins) - 1u)]; }
