// soft_labels: the targets of every row, each class once, with its weight times that of the row; the label comes first.
//
//   inout   rows          [rows]               Row
//   in      soft_classes  [rows, TARGETS]      i32; negative: none
//   in      soft_weights  [rows, TARGETS]      f32
//   in      weights       [classes]            f32; unused without class weights
//   out     soft          [rows, TARGETS + 1]  Row: NO_CLASS where there is no target
//
// Without soft labels the label is the only target. A class or weight that no target may have makes its row invalid.
// Twin: Batch::soft_targets in src/objective/targets.rs

@group(0) @binding(2) var<storage, read_write> rows: array<Row>;
@group(0) @binding(3) var<storage, read> soft_classes: array<i32>;
@group(0) @binding(4) var<storage, read> soft_weights: array<f32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> soft: array<Row>;

fn weight_of(label: u32) -> f32 {
    return select(1.0, weights[min(label, arrayLength(&weights) - 1u)], has(CLASS_WEIGHTS));
}

// The product of all weights of a target; one that vanishes is too small.
fn target_fits(share: f32, own: f32, weight: f32) -> bool {
    let product = share * own * weight;
    return weight_fits(share) && weight_fits(product) && (product > 0.0 || share == 0.0 || own == 0.0 || weight == 0.0);
}

@compute @workgroup_size(64)
fn soft_labels(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    var own = rows[row];
    let first = row * (TARGETS + 1u);
    var share = select(1.0, 0.0, has(SOFT_LABELS));
    var used = 0u;
    var fits = true;
    if (has(SOFT_LABELS) && counts(own.state)) {
        for (var t = row * TARGETS; t < (row + 1u) * TARGETS; t++) {
            let label = soft_classes[t];
            let more = soft_weights[t];
            if (label < 0) {
                fits = fits && weight_fits(more);
                continue;
            }
            let weight = weight_of(u32(label));
            fits = fits && u32(label) < settings.classes && target_fits(more, own.row_weight, weight) && weight_fits(weight);
            if (more == 0.0) { continue; }
            if (u32(label) == own.label) {
                share += more;
                continue;
            }
            var place = 1u;
            while (place <= used && soft[first + place].label != u32(label)) { place++; }
            if (place <= used) {
                soft[first + place].row_weight += more;
                continue;
            }
            var one = own;
            one.label = u32(label);
            one.weight = weight;
            one.row_weight = more;
            used = place;
            soft[first + place] = one;
        }
    }
    if (!fits) {
        own.state = INVALID;
        own.label = NO_CLASS;
        own.weight = 0.0;
        own.row_weight = 0.0;
        used = 0u;
        rows[row] = own;
    }
    for (var place = 1u; place <= TARGETS; place++) {
        if (place <= used) {
            soft[first + place].row_weight *= own.row_weight;
        } else {
            var none = own;
            none.label = NO_CLASS;
            none.row_weight = 0.0;
            soft[first + place] = none;
        }
    }
    own.row_weight *= share;
    soft[first] = own;
}
