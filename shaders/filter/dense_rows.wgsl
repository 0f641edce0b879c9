// Sums over all rows. Four of them follow one another; those past the end are anywhere, and add nothing.

fn reach(tile: u32) -> u32 { return row_end(); }

fn rows_at(k: u32) -> vec4<u32> { return four(k); }

fn starts(first: u32, k: u32, pitch: u32) -> vec4<u32> { return (first + k) * pitch + four(0u) * pitch; }

fn in_reach(k: u32) -> vec4<bool> { return four(k) < vec4(row_end()); }
