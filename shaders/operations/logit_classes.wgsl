// logit_classes: the weights of the classes of given logits, and their sum.
//
//   out     classes  [classes]  vec2 (1, weight)
//   inout   batch    [1]        Batch: writes the sum of the weights
//   in      weights  [classes]  f32; unused without class weights
//
// One workgroup; the order of additions is fixed.

@group(0) @binding(2) var<storage, read_write> classes: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> batch: array<Batch>;

alias Reduced = f32;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn logit_classes(@builtin(local_invocation_index) lane: u32) {
    var total = 0.0;
    for (var first = 0u; first < settings.classes; first += LONG) {
        var some = 0.0;
        for (var j = first + lane; j < min(first + LONG, settings.classes); j += LANES) {
            let weight = class_weight(j);
            classes[j] = vec2(1.0, weight);
            some += weight;
        }
        total += some;
    }
    total = reduce(lane, total);
    if (lane == 0u) {
        batch[0].weights = total;
        batch[0].zero_prototypes = 0u;
        batch[0].non_finite_prototypes = 0u;
    }
}
