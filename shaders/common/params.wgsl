// What every kernel knows: the settings of this call and its part of the work.
// Twins: src/plan/settings.rs (checked field by field in tests/host/shaders.rs)

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
    folds: f32,             // the last branch of the mirrored curve
    clipped: f32,           // the value where the angle is clipped
    clip_low: f32,          // cosines below this one are clipped
    clip_high: f32,         // and above this one
    pad0: u32,
    pad1: u32,
    series: array<vec4<f32>, 17>,
}

struct Part {
    first: u32,             // the chunk's first class
    count: u32,             // its classes
    local: u32,             // the first class, counted in its shard
    stride: u32,            // classes from row to row of the chunk
    splits: u32,            // parts of the sum over classes in grad_embeddings
    slots: u32,             // statistics held per row
    split_span: u32,        // classes of one split
    slot_span: u32,         // classes of one slot
    begin: u32,             // 1 where sums start, 0 where they go on
    row_first: u32,         // the rows of one pass of grad_prototypes
    row_count: u32,
    pad0: u32,
}

struct Row {
    state: u32,             // see below
    label: u32,
    weight: f32,            // of the labelled class
    cosine: f32,            // of the labelled class
    logit: f32,
    slope: f32,
    nearest: f32,           // the largest cosine of the other classes
    others: f32,            // log sum exp over the other classes
    total: f32,             // and over all
    mass: f32,              // sum of the row's label distribution, class weights included
    loss: u32,              // bits of an f32
    gain: f32,              // upstream * scale
    normalizer: f32,        // of its batch entry
    pull: f32,              // dL/dcosine of the labelled class
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
    pad0: u32,
    pad1: u32,
}

// value and slope of a curve
struct Curve { value: f32, slope: f32 }

const HAS_IGNORE = 1u;
const LINEAR = 2u;
const DETACHED = 4u;
const SERIES = 8u;
const CLASS_WEIGHTS = 16u;
const UPSTREAM = 32u;
const UPSTREAM_ROWS = 64u;
const MEAN = 128u;
const ADD_EMBEDDINGS = 256u;
const ADD_PROTOTYPES = 512u;

// Row.state: which row counts, and why not
const COUNTS = 0u;
const IGNORED = 1u;
const NON_FINITE = 2u;
const INVALID = 3u;
const SHORT = 4u;           // counts, but its vector is shorter than 1e-12: no gradient to it

const LOWEST = -3.0e38;     // stands for minus infinity, which drivers treat differently
const SHORTEST = 1.0e-12;

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
