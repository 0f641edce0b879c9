// batch_loss: the reduced loss, the weights of the rows that count, and the counts.
//
//   inout   rows   [batch, rows]  Row: what the backward pass needs, where there is one and no upstream gradient
//   inout   batch  [batch]        Batch; with logits from outside, the first entry already has the class totals
//   out     loss   [batch]        bits of f32
//   in      totals [groups]       vec4, from class_norms; where the totals are not known
//
// One workgroup per batch entry; each lane adds its rows in order, 256 at a time, then the lanes are added in a fixed order.

@group(0) @binding(2) var<storage, read_write> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> batch: array<Batch>;
@group(0) @binding(4) var<storage, read_write> loss: array<u32>;

struct Sums {
    loss: f32,
    normalizer: f32,
    good: u32,
    ignored: u32,
    non_finite: u32,
    invalid: u32,
    short: u32,
}

alias Reduced = Sums;
const SIDE = 16u;
fn combine(a: Sums, b: Sums) -> Sums {
    return Sums(a.loss + b.loss, a.normalizer + b.normalizer, a.good + b.good, a.ignored + b.ignored,
                a.non_finite + b.non_finite, a.invalid + b.invalid, a.short + b.short);
}

@compute @workgroup_size(LANES)
fn batch_loss(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let entry = unfold(id, groups);
    let start = entry * settings.batch_rows;
    // more groups than entries where the line was folded; entry 0 is there for an empty batch too
    if (entry > 0u && start >= settings.rows) { return; }
    let class_totals = class_totals_of(lane);
    var own: Sums;
    for (var first = 0u; first < settings.batch_rows; first += LONG) {
        var some: Sums;
        for (var i = first + lane; i < min(first + LONG, settings.batch_rows); i += LANES) {
            let state = rows[start + i].state;
            if (counts(state)) {
                some.loss += bitcast<f32>(rows[start + i].loss);
                some.normalizer += rows[start + i].weight;
                some.good += 1u;
            }
            some.ignored += select(0u, 1u, state == IGNORED);
            some.non_finite += select(0u, 1u, state == NON_FINITE);
            some.invalid += select(0u, 1u, state == INVALID);
            some.short += select(0u, 1u, state == SHORT);
        }
        own = combine(own, some);
    }
    reduce_once(lane, own);
    let all = reduce_twice();
    let divisor = divisor_of(all.normalizer);
    if (lane == 0u) {
        let some = divisor > 0.0;
        let value = select(0.0, all.loss / select(1.0, divisor, some), some);
        let broken = all.non_finite + all.invalid + class_totals.non_finite > 0u;
        // a class weight that is no number must not pass for a batch without weight
        let weighed = finite(vec4(all.normalizer));
        let bits = select(bitcast<u32>(value), settings.nan, broken || !weighed);
        batch[entry].loss = bits;
        batch[entry].normalizer = all.normalizer;
        batch[entry].rows = all.good;
        batch[entry].ignored = all.ignored;
        batch[entry].non_finite_rows = all.non_finite;
        batch[entry].invalid_labels = all.invalid;
        batch[entry].zero_embeddings = all.short;
        if (!TOTALS_KNOWN) {
            batch[entry].weights = class_totals.weights;
            batch[entry].zero_prototypes = class_totals.zero;
            batch[entry].non_finite_prototypes = class_totals.non_finite;
            batch[entry].balance = class_totals.balance;
        }
        loss[entry] = bits;
    }
    finish_rows(start, lane, divisor, class_totals);
}
