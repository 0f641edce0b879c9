// The margin of a row comes later.
fn close_row(row: u32, mine: bool, c: f32) {
    if (mine) { rows[row].cosine = c; }
}
