// The gradient is stored as it is.
fn pull_balance() -> f32 { return 1.0; }

fn pull_factor(vector: u32) -> f32 { return 1.0; }
