// The gradient is that of the cosine.
fn factor_before() {}

fn gradient_factor(inverse: f32) -> f32 { return inverse; }
