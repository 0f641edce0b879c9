// center_loss: weight / (2 rows) * sum of squares, over the rows that are not ignored.
//
//   in      states   [rows]  u32
//   in      squared  [rows]  f32
//   out     gain     [1]     f32: weight / rows; 0 where there is no gradient
//   out     value    [1]     bits of f32
//
// One workgroup; each lane adds its rows in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> states: array<u32>;
@group(0) @binding(3) var<storage, read> squared: array<f32>;
@group(0) @binding(4) var<storage, read_write> gain: array<f32>;
@group(0) @binding(5) var<storage, read_write> value: array<u32>;

struct Sums {
    squares: f32,
    good: u32,
    bad: u32,
}

alias Reduced = Sums;
const LANES = 256u;
fn combine(a: Sums, b: Sums) -> Sums { return Sums(a.squares + b.squares, a.good + b.good, a.bad + b.bad); }

@compute @workgroup_size(LANES)
fn center_loss(@builtin(local_invocation_index) lane: u32) {
    var own: Sums;
    for (var first = 0u; first < settings.rows; first += LONG) {
        var some = 0.0;
        for (var i = first + lane; i < min(first + LONG, settings.rows); i += LANES) {
            some += squared[i];
            own.good += select(0u, 1u, states[i] == COUNTS);
            own.bad += select(0u, 1u, states[i] == NON_FINITE || states[i] == INVALID);
        }
        own.squares += some;
    }
    let all = reduce(lane, own);
    if (lane == 0u) {
        let each = settings.scale / f32(max(all.good, 1u));
        gain[0] = select(0.0, each, all.bad == 0u);
        value[0] = select(settings.nan, bitcast<u32>(0.5 * each * all.squares), all.bad == 0u);
    }
}
