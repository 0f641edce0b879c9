// vector(i, d) is the kernel's: four values of vector i.
//
// Each exchange has its own memory, so that one barrier each is enough: it lies between the last reads of the other's.

// (1 where a value is not finite, largest element): a flag of its own, since a NaN may not survive max
var<workgroup> measured_largest: array<vec2<f32>, 64>;
var<workgroup> measured_sum: array<f32, 64>;

fn measure(i: u32, lane: u32) -> Length {
    var largest = 0.0;
    var good = true;
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        let v = vector(i, d);
        good = good && finite(v);
        let a = abs(v);
        largest = max(largest, max(max(a.x, a.y), max(a.z, a.w)));
    }
    measured_largest[lane] = vec2(select(1.0, 0.0, good), largest);
    workgroupBarrier();
    let base = lane & 56u;
    var worst = measured_largest[base];
    for (var i = 1u; i < 8u; i++) { worst = max(worst, measured_largest[base + i]); }
    let bad = worst.x > 0.0;
    largest = worst.y;
    let tiny = !(largest > 1.0e-30);
    let unit = 1.0 / select(largest, 1.0, tiny || bad);
    var sum = 0.0;
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        sum += squares(vector(i, d) * unit);
    }
    measured_sum[lane] = sum;
    workgroupBarrier();
    sum = measured_sum[base];
    for (var i = 1u; i < 8u; i++) { sum += measured_sum[base + i]; }
    // one step of Newton's method: inverseSqrt alone may be off by 2 ulp
    let safe = select(sum, 1.0, tiny || bad);
    var root = inverseSqrt(safe);
    root = root * fma(-0.5 * safe * root, root, 1.5);
    let inverse = unit * root;
    let short = tiny || inverse > 1.0 / SHORTEST;
    // beyond 8.5e37 the inverse is subnormal, which a device may flush: such a length is none that an f32 can divide by
    let endless = !short && !(inverse >= SMALLEST_NORMAL);
    let none = bad || endless;
    // a linear head divides by no length
    if (has(DOT_PRODUCT)) { return Length(select(1.0, 0.0, bad), false, largest); }
    let length = select(largest * (safe * root), largest, tiny);
    return Length(select(select(inverse, 1.0 / SHORTEST, short), 0.0, none), short && !none, length);
}
