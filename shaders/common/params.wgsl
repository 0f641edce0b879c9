// What every kernel knows. Before this text Rust declares the constants (src/plan/constants.rs), and Settings, Part, Row, Stats
// and Batch (src/plan/uniforms.rs).
=======
// What every kernel knows: the settings of this call and its part of the work.
// Twins: src/plan/settings.rs (checked field by field in tests/shaders.rs). Numbers that Rust knows too, flags and codes
// among them, are declared before this text: src/plan/constants.rs

struct Settings {
    rows: u32,              // rows of this call, all batches together
    batch_rows: u32,        // rows of one batch; equals rows in a head
    classes: u32,           // classes of the softmax, all shards together
    dim: u32,
    flags: u32,
    ignore: i32,
    fallback: u32,
    pairs: u32,             // (even, odd) pairs of series coefficients
    scale: f32,
    smoothing: f32,         // label smoothing
    share: f32,             // label smoothing / classes
    nan: u32,               // the bits of a NaN: a constant one would not compile
    m0: f32,
    m1: f32,
    m2: f32,
    m3: f32,
    front: vec2<f32>,       // (cos, sin) of the phase seen from angle 0
    back: vec2<f32>,        // and from angle pi
    threshold: f32,
    sine: f32,              // m2 sin m2
    clipped: f32,           // the value where the angle is clipped
    clip_low: f32,          // cosines below this one are clipped
    clip_high: f32,         // and above this one
    clip: f32,              // the angle kept from both ends
    offset: u32,            // the head's first class, where it is one of several
    centers: u32,           // prototypes of a class
    adaptive: u32,          // what the margins of a row follow
    chosen: u32,            // classes that inter-topk chooses
    bias: f32,              // of the binary link
    lower: f32,             // the lengths between which MagFace's margin grows
    upper: f32,
    base: f32,              // the margin at the lower one; AdaFace's margin
    rise: f32,              // its slope; AdaFace's concentration
    top: f32,               // the margin at the upper one
    strength: f32,          // of MagFace's term of the length
    rate: f32,              // how fast AdaFace's statistics follow
    attract: f32,           // factors of the binary link at the label and elsewhere
    repel: f32,
    other_a: f32,           // numbers of the transform of the other classes
    other_b: f32,
    other_c: f32,
    other_pairs: u32,
    series: array<vec4<f32>, 17>,       // of the target; of cos m1 angle where margins differ from row to row
    turned: array<vec4<f32>, 17>,       // of sin m1 angle; the numbers of a custom margin
    damping: array<vec4<f32>, 17>,      // factors on coefficients that are computed here
    other_series: array<vec4<f32>, 17>,
}

struct Part {
    first: u32,             // the chunk's first prototype
    count: u32,             // its prototypes
    local: u32,             // the first prototype, counted in its shard
    stride: u32,            // prototypes from row to row of the chunk
    splits: u32,            // parts of the sum over classes in grad_embeddings
    slots: u32,             // statistics held per row
    split_span: u32,        // prototypes of one split
    slot_span: u32,         // classes of one slot
    begin: u32,             // 1 where sums start, 0 where they go on
    row_first: u32,         // the rows of one pass of grad_prototypes, the classes of one span of select_top_k
    row_count: u32,
    epsilon: u32,           // bits of an f32: the threshold of a filter
}

struct Row {
    state: u32,             // COUNTS, or why it does not
    label: u32,
    weight: f32,            // of the labelled class
    cosine: f32,            // of the labelled class
    value: f32,             // the margin's curve there, without scale
    slope: f32,
    turn: f32,              // its derivative in m2
    length: f32,            // |x|
    scale: f32,
    bound: f32,             // from here on a class is a hard one
    last: u32,              // the last class that may lie on the bound
    bend: f32,              // a number of the transform of the other classes
    draw: f32,              // what ElasticFace adds to the margin
    nearest: f32,           // the largest cosine of the other classes
    others: f32,            // log sum exp over the other classes
    total: f32,             // and over all
    mass: f32,              // sum of the row's label distribution, class weights included; in the backward pass times
                            // gain / normalizer
    loss: u32,              // bits of an f32
    gain: f32,              // upstream * scale
    normalizer: f32,        // of its batch entry
    pull: f32,              // dL/dcosine of the labelled class
    tilt: f32,              // dL/dscale
    lean: f32,              // dL/dbias of a binary link
    stretch: f32,           // MagFace's term of the length without factors; in the backward pass dL/d|x|
}

// A row's sums over the other classes, or over some of them. v is the logit without scale.
struct Stats {
    most: f32,              // the largest logit; 0 with a binary link
    sum: f32,               // of exp(z - most); with a binary link of softplus z
    tilt: f32,              // of exp(z - most) v; with a binary link of sigmoid(z) v
    weighted: f32,          // of class weight * v; with a binary link of sigmoid(z)
    nearest: f32,           // the largest cosine
    endless: u32,           // 1 where a logit of a linear head is not finite
    pad0: u32,
    pad1: u32,
}

struct Batch {
    loss: u32,              // bits of an f32
    normalizer: f32,
    weights: f32,           // sum of all class weights
    rows: u32,
    ignored: u32,
    non_finite_rows: u32,
    invalid_labels: u32,
    zero_embeddings: u32,
    zero_prototypes: u32,
    non_finite_prototypes: u32,
    middle: f32,            // the median of the target cosines
    pad0: u32,
}
>>>>>>> 5cb5f6a (tests: the strips take a tile by value)

// value and slope of a curve
struct ValueSlope { value: f32, slope: f32 }

// what a transform of the other classes may know beside the cosine; `late` comes after Row.last
struct Place { bound: f32, hardness: f32, late: bool }

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<uniform> part: Part;

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

fn within(v: f32, least: f32, most: f32) -> bool {
    return finite(vec4(v)) && v >= least && v <= most;
}

// Checks that the host makes for slices, and only the device can make for a tensor: a class weight, and a state (hardness,
// mean and deviation of the lengths, scale) as far as the loss reads it.
// Twins: Batch::check_rest in src/batch.rs, State::validate in src/objective/state.rs
fn weight_fits(weight: f32) -> bool {
    return (bitcast<u32>(weight) << 1u) == 0u || within(weight, LEAST_WEIGHT, MOST_WEIGHT);
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
