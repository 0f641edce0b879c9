// The gradient has the inverse lengths. Past the end it is 0, and where a prototype is not finite all of it is: no line is masked,
// and finish_embeddings leaves out what became of such prototypes.

const B_NORMALIZED = false;

fn lines_b(k: u32) -> Lines {
    return Lines((part.local + min(classes_at(k), vec4(part.count - 1u))) * prototype_pitch(), vec4(1.0));
}

fn scaled_by(v: vec4<f32>, factor: f32) -> vec4<f32> { return v; }
