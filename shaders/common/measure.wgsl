// vector(i, d) is the kernel's: four values of vector i.
fn measure(i: u32, lane: u32) -> Length {
    var most = 0.0;
    var good = true;
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        let v = vector(i, d);
        good = good && finite(v);
        let a = abs(v);
        most = max(most, max(max(a.x, a.y), max(a.z, a.w)));
    }
    // the flag travels as a number, since a NaN may not survive max
    let bad = eight_max(lane, select(1.0, 0.0, good)) > 0.0;
    most = eight_max(lane, most);
    let tiny = !(most > 1.0e-30);
    let unit = 1.0 / select(most, 1.0, tiny || bad);
    var sum = 0.0;
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        sum += squares(vector(i, d) * unit);
    }
    sum = eight_sum(lane, sum);
    // one step of Newton's method: inverseSqrt alone may be off by 2 ulp
    let safe = select(sum, 1.0, tiny || bad);
    var root = inverseSqrt(safe);
    root = root * fma(-0.5 * safe * root, root, 1.5);
    let inverse = unit * root;
    let short = tiny || inverse > 1.0 / SHORTEST;
    // beyond 8.5e37 the inverse is subnormal, which a device may flush: such a length is none that an f32 can divide by
    let endless = !short && !(inverse >= 1.17549435e-38);
    let none = bad || endless;
    // a linear head divides by no length
    if (has(PLAIN)) { return Length(select(1.0, 0.0, bad), false, most); }
    let length = select(most * (safe * root), most, tiny);
    return Length(select(select(inverse, 1.0 / SHORTEST, short), 0.0, none), short && !none, length);
}
