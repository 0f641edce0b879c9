// Without an upstream gradient the rows are ready for the backward pass as soon as the normalizer is known.
fn finish_rows(start: u32, lane: u32, normalizer: f32, class_totals: ClassTotals) {
    if (has(UPSTREAM)) { return; }
    for (var i = lane; i < settings.batch_rows; i += LANES) {
        rows[start + i] = with_gradients(rows[start + i], 1.0, normalizer, class_totals);
    }
}
