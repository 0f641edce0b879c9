// Sums over the rows with an entry left in the classes of a tile.

@group(0) @binding(BINDING) var<storage, read> list: array<u32>;

// the first place of the tile's list, and where this pass ends
var<private> list_start: u32;
var<private> list_end: u32;

fn reach(tile: u32) -> u32 {
    // some tiles have fewer classes than a list has
    let start = tile * TILE_M / max(TILE_M, 64u) * (settings.rows + 1u);
    let end = min(list[start], row_end());
    list_start = start + 1u;
    list_end = end;
    return end;
}

fn rows_at(k: u32) -> vec4<u32> {
    let at = list_start + min(four(k), vec4(max(list_end, 1u) - 1u));
    return min(vec4(list[at.x], list[at.y], list[at.z], list[at.w]), vec4(max(settings.batch_rows, 1u) - 1u));
}

fn starts(first: u32, k: u32, pitch: u32) -> vec4<u32> { return (first + rows_at(k)) * pitch; }

fn in_reach(k: u32) -> vec4<bool> { return four(k) < vec4(list_end); }
