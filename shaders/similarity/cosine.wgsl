// cosine: nothing is added to the product of two directions.
fn product_bias(j: u32) -> f32 { return 0.0; }
