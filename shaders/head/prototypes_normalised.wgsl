// Prototypes are normalised as they are loaded; one that is not finite counts as zero.

const B_NORMALIZED = true;

@group(0) @binding(BINDING) var<storage, read> classes: array<vec2<f32>>;

fn lines_b(k: u32) -> Lines {
    let first = entry * part.count;
    let own = part.first + first + classes_at(k);
    let inverse = abs(vec4(classes[own.x].x, classes[own.y].x, classes[own.z].x, classes[own.w].x));
    return Lines(starts(part.local + first, k, prototype_pitch()), select(vec4(0.0), inverse, in_reach(k)));
}

fn scaled_by(v: vec4<f32>, factor: f32) -> vec4<f32> { return v * factor; }
