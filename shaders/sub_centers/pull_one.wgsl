// A prototype per class: four classes and every fourth row per lane. The cosines of the row after are read before those of a row
// are used.

// of the four lanes with the same classes
var<workgroup> radial_sums: array<vec4<f32>, 64>;

fn pull_block(first: u32, height: u32, unit: u32, lane: u32) {
    let column = unit + 4u * (lane & 15u);
    let at = vec4(column, column + 1u, column + 2u, column + 3u);
    let inside = at < vec4(part.count);
    let own = part.first + min(at, vec4(part.count - 1u));
    // a class that does not exist has no weight
    let weight = settings.share * vec4(classes[own.x].y, classes[own.y].y, classes[own.z].y, classes[own.w].y);
    let bias = vec4(product_bias(own.x), product_bias(own.y), product_bias(own.z), product_bias(own.w));
    let factor = vec4(pull_factor(own.x), pull_factor(own.y), pull_factor(own.z), pull_factor(own.w));
    let plain = has(DOT_PRODUCT);
    let class_of = settings.offset + part.first + at;
    var sum = vec4(0.0);
    if (column < part.stride) {
        var next = cosines_at(first + (lane >> 4u), column);
        for (var r = lane >> 4u; r < height; r += 4u) {
            let c = next + bias;
            next = cosines_at(first + select(r, r + 4u, r + 4u < height), column);
            let row = pulling[r];
            let here = select(vec4(false), inside, lives(row));
            let all = vec4(pull_of(c.x, row, class_of.x, weight.x, here.x), pull_of(c.y, row, class_of.y, weight.y, here.y),
                           pull_of(c.z, row, class_of.z, weight.z, here.z), pull_of(c.w, row, class_of.w, weight.w, here.w));
            let g = keep(at_targets(all, r, column - unit), row.place.x, row.place.y, r, column - unit) * factor;
            put_cosines(first + r, column, g);
            sum = fma(g, select(c, vec4(1.0), plain), sum);
        }
    }
    radial_sums[lane] = sum;
    workgroupBarrier();
    if (lane < 16u && column < part.stride) {
        sum = (sum + radial_sums[lane + 16u]) + (radial_sums[lane + 32u] + radial_sums[lane + 48u]);
        sum = select(vec4(0.0), sum, inside);
        let place = first / 64u * part.stride + column;
        columns[place] = sum.x;
        if (column + 1u < part.stride) { columns[place + 1u] = sum.y; }
        if (column + 2u < part.stride) { columns[place + 2u] = sum.z; }
        if (column + 3u < part.stride) { columns[place + 3u] = sum.w; }
    }
}
