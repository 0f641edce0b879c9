// log_sigmoid: of a logit with the bias of the binary link.
fn is_summed() -> bool { return false; }

fn log_probability(z: f32, total: f32) -> f32 { return -softplus(-(z + settings.bias)); }
