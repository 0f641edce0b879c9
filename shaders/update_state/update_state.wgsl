// update_state: moves the state by what the batch shows, in a training step alone: an evaluation leaves it out.
//
//   in      rows   [rows]  Row: target cosine, length, and for AdaCos the log-sum-exp of the other classes
//   in      batch  [1]     Batch: the median
//   inout   state  [4]     f32: hardness, mean and deviation of the lengths, scale
//   in      totals [groups] vec4, from class_norms
//
// One workgroup; each lane adds its rows in order, 256 at a time, then the lanes are added in a fixed tree.
// Twin: State::follow in src/objective/follow.rs

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> batch: array<Batch>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;

// (rows, cosines, lengths, -), then (largest log-sum-exp, -, squares, sum of exp)
alias Reduced = vec4<f32>;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return vec4(max(a.x, b.x), a.yzw + b.yzw); }

fn clamped(length: f32) -> f32 { return clamp(length, SHORT_LENGTH, LONG_LENGTH); }

@compute @workgroup_size(LANES)
fn update_state(@builtin(local_invocation_index) lane: u32) {
    let broken = class_totals_of(lane).non_finite > 0u;
    var own = vec4(LOWEST, 0.0, 0.0, 0.0);
    for (var start = 0u; start < settings.rows; start += LONG) {
        var some = vec4(LOWEST, 0.0, 0.0, 0.0);
        for (var i = start + lane; i < min(start + LONG, settings.rows); i += LANES) {
            if (counts(rows[i].state)) {
                some += vec4(0.0, rows[i].cosine, clamped(rows[i].length), 1.0);
                some.x = max(some.x, rows[i].others);
            }
        }
        own = combine(own, some);
    }
    let first = reduce(lane, own);
    let n = max(first.w, 1.0);
    let mean = first.z / n;
    own = vec4(LOWEST, 0.0, 0.0, 0.0);
    for (var start = 0u; start < settings.rows; start += LONG) {
        var some = vec4(LOWEST, 0.0, 0.0, 0.0);
        for (var i = start + lane; i < min(start + LONG, settings.rows); i += LANES) {
            if (counts(rows[i].state)) {
                let away = clamped(rows[i].length) - mean;
                some += vec4(0.0, 0.0, away * away, exponential(rows[i].others - first.x));
            }
        }
        own = combine(own, some);
    }
    workgroupBarrier();
    let second = reduce(lane, own);
    let fits = state_fits(vec4(state[0], state[1], state[2], state[3]));
    let moves = first.w > 0.0 && !broken && fits;
    if (lane != 0u || !moves) { return; }
    if (has(CURRICULAR)) {
        // a cosine may round to more than 1
        let next = HARDNESS_RATE * (first.y / n) + (1.0 - HARDNESS_RATE) * state[0];
        state[0] = clamp(next, -MAX_HARDNESS, MAX_HARDNESS);
    }
    if (settings.adaptive == ADAFACE) {
        state[1] = settings.rate * mean + (1.0 - settings.rate) * state[1];
        if (n > 1.0) {
            state[2] = settings.rate * sqrt(second.z / (n - 1.0)) + (1.0 - settings.rate) * state[2];
        }
    }
    if (has(OWN_SCALE)) {
        let median = min(max(batch[0].median, MIN_MEDIAN), 1.0);
        let scale = (first.x + logarithm(second.w) - logarithm(n)) / median;
        if (finite(vec4(scale))) { state[3] = clamp(scale, SMALLEST_SCALE, LARGEST_SCALE); }
    }
}
