// logit_classes: the weights of the classes of given logits, and their sum.
//
//   in      weights  [classes]  f32; unused without class weights
//   out     classes  [classes]  vec2 (1, weight)
//   inout   batch    [1]        Batch: writes the sum of the weights
//
// One workgroup; the order of additions is fixed.

@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> batch: array<Batch>;

var<workgroup> lanes: array<f32, 256>;

@compute @workgroup_size(256)
fn logit_classes(@builtin(local_invocation_index) lane: u32) {
    var total = 0.0;
    for (var first = 0u; first < settings.classes; first += LONG) {
        var some = 0.0;
        for (var j = first + lane; j < min(first + LONG, settings.classes); j += 256u) {
            let weight = select(1.0, smoothing_weight(weights[min(j, arrayLength(&weights) - 1u)]), has(CLASS_WEIGHTS));
            classes[j] = vec2(1.0, weight);
            some += weight;
        }
        total += some;
    }
    lanes[lane] = total;
    workgroupBarrier();
    for (var size = 128u; size > 0u; size >>= 1u) {
        if (lane < size) { lanes[lane] += lanes[lane + size]; }
        workgroupBarrier();
    }
    if (lane == 0u) {
        batch[0].weights = lanes[0];
        batch[0].zero_prototypes = 0u;
        batch[0].non_finite_prototypes = 0u;
    }
}
