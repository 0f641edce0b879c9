// The numbers of a row that the backward pass needs: gain, pull, grad_scale, grad_bias, length_gradient, in slope_m2 dL/dvalue, 0 for
// a row that does not count, and the mass as G has it, upstream gradient and normalizer included.

// gain * weight / normalizer, where the quotient may be below f32 though the product is not, or the other way round
fn share_of(gain: f32, weight: f32, normalizer: f32) -> f32 {
    let part = weight / normalizer;
    return select(gain * part, gain * weight / normalizer, abs(part) < 1.0e-30);
}

fn with_gradients(row: Row, up: f32, normalizer: f32, class_totals: ClassTotals) -> Row {
    var r = row;
    let good = counts(r.state) && class_totals.non_finite == 0u && normalizer > 0.0;
    r.gain = select(0.0, up * r.scale, good);
    r.normalizer = select(1.0, normalizer, normalizer > 0.0);
    r.mass = share_of(r.gain, r.mass, r.normalizer);
    let pull = link_pull(r, share_of(r.gain, r.weight, r.normalizer), r.mass, share_of(r.gain, r.rest, r.normalizer));
    r.pull = select(0.0, pull * r.slope, good);
    r.grad_scale = select(0.0, up * (r.grad_scale / r.normalizer), good);
    r.grad_bias = select(0.0, up * (r.grad_bias / r.normalizer), good);
    if (settings.adaptive == MAGFACE) {
        // the length counts at the nearer end outside of these
        let free = r.length >= settings.lower && r.length <= settings.upper && good && settings.offset == 0u;
        let a = max(r.length, settings.lower);
        let term = settings.strength * (1.0 / (settings.upper * settings.upper) - 1.0 / (a * a));
        r.length_gradient = select(0.0, pull * r.slope_m2 * settings.rise + share_of(up, r.weight, r.normalizer) * term, free);
    }
    r.slope_m2 = select(0.0, pull, good);
    if (settings.adaptive == LENGTH_SCALE) {
        // the loss' own scale and the length share that of the row
        let free = r.length >= settings.lower && r.length <= settings.upper && good && settings.offset == 0u;
        r.length_gradient = select(0.0, settings.scale * r.grad_scale, free);
        r.grad_scale *= select(1.0, clamp(r.length, settings.lower, settings.upper), good);
    }
    return r;
}
