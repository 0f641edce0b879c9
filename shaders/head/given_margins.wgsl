// m0..m3 of a row: its own win over those of its class, these over the loss' own.

fn given(m: vec4<f32>, own: vec4<f32>) -> vec4<f32> {
    return select(m, own, (bitcast<vec4<u32>>(m) & vec4(0x7fffffffu)) > vec4(0x7f800000u));
}

fn given_margins(r: Row, row: u32) -> vec4<f32> {
    var m = vec4(settings.m0, settings.m1, settings.m2, settings.m3);
    if (has(CLASS_MARGINS) && counts(r.state)) { m = given(margins_of_class(r.label), m); }
    if (has(ROW_MARGINS) && counts(r.state)) { m = given(margins_of_one(row), m); }
    return m;
}
