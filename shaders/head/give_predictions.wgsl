// give_predictions: the nearest classes of every row as tensors of the caller's; CHOSEN of them.
//
//   in      rows                [rows]          Row
//   in      batch               [1]             Batch
//   in      nearest             [rows, CHOSEN]  vec4 (bits of the cosine, class, prototype, bits of the log-probability)
//   out     nearest_classes     [rows, CHOSEN]  i32, -1 where a row has none
//   out     nearest_cosines     [rows, CHOSEN]  f32, NaN where a row has none; so the log-probability
//   out     log_probabilities   [rows, CHOSEN]  f32
//   out     nearest_prototypes  [rows, CHOSEN]  i32, counted in their class
//
// Twin: Lists::predictions in src/gpu/predictor.rs

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> batch: array<Batch>;
@group(0) @binding(4) var<storage, read> nearest: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> nearest_classes: array<u32>;
@group(0) @binding(6) var<storage, read_write> nearest_cosines: array<u32>;
@group(0) @binding(7) var<storage, read_write> log_probabilities: array<u32>;
@group(0) @binding(8) var<storage, read_write> nearest_prototypes: array<u32>;

@compute @workgroup_size(64)
fn give_predictions(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    let good = counts(rows[row].state) && batch[0].non_finite_prototypes == 0u;
    for (var i = row * CHOSEN; i < (row + 1u) * CHOSEN; i++) {
        let found = nearest[i];
        let there = good && found.y != NO_CLASS;
        nearest_classes[i] = select(NO_CLASS, found.y, there);
        nearest_cosines[i] = select(settings.nan, found.x, there);
        log_probabilities[i] = select(settings.nan, found.w, there);
        nearest_prototypes[i] = select(0u, found.z, there);
    }
}
