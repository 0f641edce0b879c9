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

fn classes_at(k: u32) -> vec4<u32> {
    let at = list_start + min(four(k), vec4(max(list_length, 1u) - 1u));
    return vec4(list[at.x], list[at.y], list[at.z], list[at.w]);
}

fn starts(first: u32, k: u32, pitch: u32) -> vec4<u32> { return (first + classes_at(k)) * pitch; }

fn in_reach(k: u32) -> vec4<bool> { return four(k) < vec4(list_length); }

fn gradient(start: u32, k: u32) -> vec4<f32> {
    let at = start + classes_at(k);
    let v = vec4(cosine_value(at.x), cosine_value(at.y), cosine_value(at.z), cosine_value(at.w));
    return select(vec4(0.0), v, in_reach(k));
}
