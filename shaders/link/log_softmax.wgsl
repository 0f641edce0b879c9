// log_softmax: of a logit, from the log-sum-exp of all; no rounding makes it a probability above 1.
fn is_summed() -> bool { return true; }

fn log_probability(z: f32, total: f32) -> f32 { return min(z - total, 0.0); }
