// Several prototypes per class: a class per lane. Of its prototypes the one with the largest cosine is pulled.

fn pull_block(first: u32, height: u32, group_unit: u32, lane: u32) {
    let unit = group_unit + lane;
    let column = unit * centers();
    if (column >= part.stride) { return; }
    // fewer than all prototypes in the padding
    let many = min(centers(), part.stride - column);
    let inside = column < part.count;
    let j = part.first / centers() + unit;
    // a class that does not exist has no weight
    let weight = settings.share * classes[select(part.first, part.first + column, inside)].y;
    let bias = product_bias(j);
    let radial = first / 64u * part.stride + column;
    for (var k = 0u; k < many; k++) { columns[radial + k] = 0.0; }
    for (var r = 0u; r < height; r++) {
        let place = (first + r) * part.stride + column;
        var c = cosine[place];
        var best = 0u;
        for (var k = 1u; k < many; k++) {
            let one = cosine[place + k];
            if (one > c) { c = one; best = k; }
        }
        c += bias;
        let row = pulling[r];
        let pull = at_target(pull_of(c, row, settings.offset + j, weight, inside && lives(row)), r, lane);
        let factor = pull_factor(part.first + min(column + best, part.count - 1u));
        let g = keep(vec4(pull, 0.0, 0.0, 0.0), row.place.x, row.place.y, r, lane).x * factor;
        for (var k = 0u; k < many; k++) { cosine[place + k] = select(0.0, g, k == best); }
        columns[radial + best] = fma(g, select(c, 1.0, has(DOT_PRODUCT)), columns[radial + best]);
    }
}
