// Sums over all rows.

fn reach(tile: u32) -> u32 { return row_end(); }

fn row_at(k: u32) -> u32 { return min(k, max(settings.batch_rows, 1u) - 1u); }

fn beyond(k: u32) -> bool { return k >= row_end(); }
