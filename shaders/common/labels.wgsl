// The label, its own weight and that of its class decide what a row counts for; labels[] and weights[] are the kernel's bindings.

// A row in the state `fresh` (COUNTS, SHORT or NON_FINITE), with what its label says on top.
fn labelled_row(row: u32, fresh: u32) -> Row {
    let label = labels[row];
    var r: Row;
    r.state = fresh;
    if (label < 0 || u32(label) >= settings.classes) { r.state = INVALID; }
    if (has(HAS_IGNORE) && label == settings.ignore) { r.state = IGNORED; }
    if (has(UNLABELLED)) { r.state = fresh; }
    let weight = select(1.0, weights[min(u32(label), arrayLength(&weights) - 1u)], has(CLASS_WEIGHTS));
    let own = weight_of_row(row);
    // a product that vanishes is too small
    let fits = weight_fits(weight) && weight_fits(own) && weight_fits(own * weight) && (own * weight > 0.0 || own == 0.0 || weight == 0.0);
    if (counts(r.state) && !fits) { r.state = INVALID; }
    let known = counts(r.state);
    // a label that names no class never meets one
    r.label = select(NO_CLASS, u32(label), known && !has(UNLABELLED));
    r.weight = select(0.0, weight, known);
    r.row_weight = select(0.0, own, known);
    r.nearest = NO_COSINE;
    r.others = LOWEST;
    r.scale = settings.scale;
    r.bound = -LOWEST;
    return r;
}
