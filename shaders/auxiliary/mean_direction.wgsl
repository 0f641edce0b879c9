// mean_direction: length and direction of the mean of all directions.
//
//   in      sums   [blocks, quads]  vec4
//   in      batch  [1]              Batch: prototypes that are not finite
//   out     mean   [quads]          vec4: of length 1; 0 where the mean is 0 or a prototype is not finite
//   out     value  [1]              bits of f32: weight * length
//
// One workgroup; blocks are added in order, lanes in a fixed tree. Scaled by the largest value before squares are taken:
// the mean may be very short.
// Twin: mean_direction in src/reference/regularizer.rs

@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> batch: array<Batch>;
@group(0) @binding(4) var<storage, read_write> mean: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> value: array<u32>;

// (largest value, sum of squares)
alias Reduced = vec2<f32>;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return vec2(max(a.x, b.x), a.y + b.y); }

@compute @workgroup_size(LANES)
fn mean_direction(@builtin(local_invocation_index) lane: u32) {
    let quads = (settings.dim + 3u) / 4u;
    var largest = 0.0;
    for (var q = lane; q < quads; q += LANES) {
        var sum = vec4(0.0);
        for (var block = 0u; block < part.slots; block++) { sum += sums[block * quads + q]; }
        sum /= f32(part.count);
        mean[q] = sum;
        let a = abs(sum);
        largest = max(largest, max(max(a.x, a.y), max(a.z, a.w)));
    }
    largest = reduce(lane, vec2(largest, 0.0)).x;
    let some = largest > 1.0e-30;
    let unit = 1.0 / select(1.0, largest, some);
    var square = 0.0;
    for (var q = lane; q < quads; q += LANES) {
        let v = mean[q] * unit;
        square += dot(v, v);
    }
    workgroupBarrier();
    square = reduce(lane, vec2(0.0, square)).y;
    // one step of Newton's method: inverseSqrt alone may be off by 2 ulp
    let safe = select(1.0, square, some);
    var root = inverseSqrt(safe);
    root = root * fma(-0.5 * safe * root, root, 1.5);
    let good = batch[0].non_finite_prototypes == 0u;
    for (var q = lane; q < quads; q += LANES) {
        mean[q] = select(vec4(0.0), mean[q] * unit * root, some && good);
    }
    if (lane == 0u) {
        let length = select(0.0, settings.scale * (largest * (safe * root)), some);
        value[0] = select(settings.nan, bitcast<u32>(length), good);
    }
}
