// Every class has the same weight.
fn class_weight(label: u32) -> f32 { return 1.0; }
