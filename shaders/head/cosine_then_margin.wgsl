// The margin of a row follows from its cosine at once.
fn close_row(row: u32, mine: bool, c: f32) {
    var r = rows[row];
    if (mine) { r.cosine = c; }
    rows[row] = with_margin(r, row);
}
