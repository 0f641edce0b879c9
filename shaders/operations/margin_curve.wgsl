// What the kernels on given cosines share: 64 classes of a row per workgroup.

@group(0) @binding(2) var<storage, read> cosine: array<f32>;
@group(0) @binding(3) var<storage, read> labels: array<i32>;

struct Entry {
    inside: bool,           // false for a lane that has none
    place: u32,
    curve: ValueSlope,           // of the target at the label, and of the other classes elsewhere
}

fn margin_curve(group: u32, lane: u32) -> Entry {
    let wide = (settings.classes + 63u) / 64u;
    let row = group / wide;
    let j = group % wide * 64u + lane;
    if (row >= settings.rows || j >= settings.classes) { return Entry(); }
    let place = row * settings.classes + j;
    var curve = other(cosine[place], Place(-LOWEST, 0.0, true));
    margin_of_loss();
    if (labels[row] == i32(j)) { curve = margin_target(cosine[place]); }
    return Entry(true, place, curve);
}
