// Sums over all classes of the chunk.

fn reach(tile: u32) -> u32 { return part.count; }

fn span(end: u32) -> u32 { return part.split_span; }

fn class_at(k: u32) -> u32 { return min(k, part.count - 1u); }

fn beyond(k: u32) -> bool { return k >= part.count; }

fn gradient(row: u32, k: u32) -> vec4<f32> { return cosine(row, k); }
