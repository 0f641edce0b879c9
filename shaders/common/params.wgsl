// What every kernel knows. Before this text Rust declares the constants (src/uniforms/constants.rs, src/plan/constants.rs),
// and Settings, StepConstants, Row, RowStatistics and Batch (src/uniforms/mod.rs).

// value and slope of a curve
struct ValueSlope { value: f32, slope: f32 }

// what a transform of the other classes may know beside the cosine; `late` comes after Row.last
struct Place { bound: f32, hardness: f32, late: bool }

// the sum of all class weights, the prototypes that are short or not finite, and Batch.balance
struct ClassTotals { weights: f32, zero: u32, non_finite: u32, balance: f32 }

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<uniform> part: StepConstants;

fn has(flag: u32) -> bool {
    return (settings.flags & flag) != 0u;
}

fn counts(state: u32) -> bool {
    return state == COUNTS || state == SHORT;
}

// Dispatches are folded over two axes; this is the place in the unfolded line.
fn unfold(id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return id.x + id.y * groups.x;
}

// By bit pattern: drivers compare NaN as they like.
fn finite(v: vec4<f32>) -> bool {
    return all((bitcast<vec4<u32>>(v) & vec4(0x7f800000u)) != vec4(0x7f800000u));
}

// What the sum over the rows is divided by; `normalizer`: the weights of the rows that count.
fn divisor_of(normalizer: f32) -> f32 {
    return select(1.0, select(normalizer, settings.divisor, settings.divisor > 0.0), has(MEAN));
}

fn largest(v: vec4<f32>) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }

fn within(v: f32, low: f32, high: f32) -> bool {
    return finite(vec4(v)) && v >= low && v <= high;
}

// Checks that the host makes for slices, and only the device can make for a tensor: a class weight, and a state (hardness,
// mean and deviation of the lengths, scale) as far as the loss reads it.
// Twins: Batch::check_rest in src/objective/checked.rs, State::validate in src/objective/state.rs
fn weight_fits(weight: f32) -> bool {
    return (bitcast<u32>(weight) << 1u) == 0u || within(weight, MIN_WEIGHT, MAX_WEIGHT);
}

// A class weight as label smoothing uses it, which alone reads those of classes without a row: one that does not fit makes
// every loss NaN there.
fn smoothing_weight(weight: f32) -> f32 {
    return select(select(0.0, bitcast<f32>(settings.nan), settings.share > 0.0), weight, weight_fits(weight));
}

fn state_fits(state: vec4<f32>) -> bool {
    if (has(CURRICULAR) && !within(abs(state.x), 0.0, ACCEPTED_HARDNESS)) { return false; }
    let lengths = within(state.y, 0.0, LONGEST_MEAN) && within(state.z, 0.0, LONGEST_MEAN);
    if (settings.adaptive == ADAFACE && !lengths) { return false; }
    return !has(OWN_SCALE) || within(state.w, SMALLEST_NORMAL, LARGEST_SCALE);
}
