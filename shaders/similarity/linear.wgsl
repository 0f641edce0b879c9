// linear: a bias per class of this head, added where products are read.
@group(0) @binding(BINDING) var<storage, read> bias: array<f32>;

fn product_bias(j: u32) -> f32 { return bias[min(j, arrayLength(&bias) - 1u)]; }
