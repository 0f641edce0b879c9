// Sums over the classes with an entry left in the rows of a tile.

@group(0) @binding(BINDING) var<storage, read> list: array<u32>;

// the first place of the tile's list, and how many follow
var<private> list_start: u32;
var<private> list_length: u32;

fn reach(tile: u32) -> u32 {
    // some tiles have fewer rows than a list has
    let start = tile * TILE_M / max(TILE_M, 64u) * (part.stride + 1u);
    list_start = start + 1u;
    list_length = list[start];
    return list[start];
}

// whole steps of a tile's loop
fn span(end: u32) -> u32 { return ((end + part.splits - 1u) / part.splits + 15u) & 0xfffffff0u; }

fn class_at(k: u32) -> u32 { return list[list_start + min(k, max(list_length, 1u) - 1u)]; }

fn beyond(k: u32) -> bool { return k >= list_length; }

fn gradient(row: u32, k: u32) -> vec4<f32> {
    let start = row * part.stride;
    let v = vec4(cosine_value(start + class_at(k)), cosine_value(start + class_at(k + 1u)),
                 cosine_value(start + class_at(k + 2u)), cosine_value(start + class_at(k + 3u)));
    return select(vec4(0.0), v, vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(list_length));
}
