// What a filter left of 64 rows by 64 classes.
struct Block {
    rows: vec2<u32>,        // a bit per row that has an entry left
    classes: vec2<u32>,     // and per class
    dropped: f32,           // sum of |gradient| over the entries that were left out
    total: f32,             // and over all
    left: u32,              // entries
    pad0: u32,
}
