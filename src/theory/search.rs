//! The first place where a function of one variable reaches 0.

/// The place between `below` and `above` where `inside` turns from true to false, to the last bit; `inside(below)` must
/// hold.
pub(super) fn last_inside(mut below: f64, mut above: f64, inside: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = below + (above - below) / 2.0;
        if middle <= below || middle >= above {
            return below;
        }
        if inside(middle) { below = middle } else { above = middle }
    }
}

/// The first point, from the first to the last of `points` (rising), where h ≥ 0. Between neighbours h may jump and may
/// have one peak.
pub(super) fn first_reached(points: &[f64], h: impl Fn(f64) -> f64) -> Option<f64> {
    // the far side of the crossing, where h ≥ 0 holds
    let crossing = |below: f64, above: f64| {
        let last = last_inside(below, above, |x| h(x) < 0.0);
        if last.next_up() < above { last.next_up() } else { above }
    };
    let mut before = [(0.0, f64::NEG_INFINITY); 2]; // the last two points and their values
    for (i, &x) in points.iter().enumerate() {
        let value = h(x);
        let [(first, left), (middle, top)] = before;
        if i > 1 && top > left && top >= value {
            let peak = highest(first, x, &h);
            if h(peak) >= 0.0 {
                return Some(crossing(first, peak));
            }
        }
        if value >= 0.0 {
            return Some(if i == 0 { x } else { crossing(middle, x) });
        }
        before = [(middle, top), (x, value)];
    }
    None
}

/// Where a function with one peak between two points is highest: golden section.
fn highest(mut from: f64, mut to: f64, h: impl Fn(f64) -> f64) -> f64 {
    let golden = (5_f64.sqrt() - 1.0) / 2.0;
    let inner = |from: f64, to: f64| (to - golden * (to - from), from + golden * (to - from));
    for _ in 0..100 {
        let (a, b) = inner(from, to);
        if h(a) < h(b) { from = a } else { to = b }
    }
    from + (to - from) / 2.0
}
