// The gradient has the inverse length already, times a power of two whose inverse follows the columns.
var<private> held_factor: f32;

fn factor_before() {
    // without rows nobody has written it
    held_factor = select(1.0, columns[(settings.rows + 63u) / 64u * part.stride], settings.rows > 0u);
}

fn gradient_factor(inverse: f32) -> f32 { return held_factor; }
