// The weight of a row.
@group(0) @binding(BINDING) var<storage, read> row_weights: array<f32>;

fn weight_of_row(row: u32) -> f32 {
    return select(1.0, row_weights[min(row, arrayLength(&row_weights) - 1u)], has(ROW_WEIGHTS));
}
