// sum_row_gradients: dL/dscale, or dL/dbias of a binary link: the sum of the rows' parts.
//
//   in      rows      [rows]  Row: grad_scale, or grad_bias where part.local is 1
//   inout   gradient  [1]     f32
//
// One workgroup; each lane adds its own in order, 256 at a time, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;

alias Reduced = f32;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn sum_row_gradients(@builtin(local_invocation_index) lane: u32) {
    var own = 0.0;
    for (var first = 0u; first < settings.rows; first += LONG) {
        var some = 0.0;
        for (var row = first + lane; row < min(first + LONG, settings.rows); row += LANES) {
            some += select(rows[row].grad_scale, rows[row].grad_bias, part.local == 1u);
        }
        own += some;
    }
    own = reduce(lane, own);
    if (lane == 0u) { gradient[0] = own + select(0.0, gradient[0], has(ADD_EMBEDDINGS)); }
}
