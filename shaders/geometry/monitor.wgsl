// monitor: what a batch reports: rows that count, hits, sums of angles and cosines, two histograms of angles.
//
//   in      rows    [rows]            Row, after a forward pass
//   out     report  [8 + 2 * bins]    u32: rows, hits, bits of three f32 sums (angle to the labelled class, angle to the
//                                     nearest other one, cosine of the labelled class), three unused; then the bins of
//                                     the first angle and those of the second; part.count bins each over [0, pi]
//
// One workgroup; each lane adds its rows in order, then the lanes are added in a fixed tree. Bins are whole numbers, so
// that the order of their atomics does not matter.
// Twin: Monitor::add in src/monitor/mod.rs

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> report: array<u32>;

struct Sums {
    rows: u32,
    hits: u32,
    own: f32,
    nearest: f32,
    cosine: f32,
}

alias Reduced = Sums;
const LANES = 256u;
fn combine(a: Sums, b: Sums) -> Sums {
    return Sums(a.rows + b.rows, a.hits + b.hits, a.own + b.own, a.nearest + b.nearest, a.cosine + b.cosine);
}

var<workgroup> bins: array<atomic<u32>, 2 * MAX_BINS>;

// the angle of a cosine; one that rounded past 1 gives 0 or pi
fn angle(c: f32) -> f32 {
    let near = quadrant_angle(sqrt(max((1.0 - c) * (1.0 + c), 0.0)), abs(c));
    return select(near, PI - near, c < 0.0);
}

fn bin(angle: f32) -> u32 {
    return min(u32(angle * INVERSE_PI * f32(part.count)), part.count - 1u);
}

@compute @workgroup_size(LANES)
fn monitor(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (id.x + id.y > 0u) { return; }
    for (var i = lane; i < 2u * part.count; i += LANES) { atomicStore(&bins[i], 0u); }
    workgroupBarrier();
    var own = Sums(0u, 0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < settings.rows; i += LANES) {
        let x = rows[i].cosine;
        let other = rows[i].nearest;
        // a bad prototype shows in the losses of rows that would count
        let bad = (rows[i].loss & 0x7fffffffu) > 0x7f800000u;
        if (counts(rows[i].state) && !bad) {
            let near = angle(x);
            let far = angle(other);
            own.rows += 1u;
            own.hits += select(0u, 1u, x > other);
            own.own += near;
            own.nearest += far;
            own.cosine += x;
            atomicAdd(&bins[bin(near)], 1u);
            atomicAdd(&bins[part.count + bin(far)], 1u);
        }
    }
    let all = reduce(lane, own);
    if (lane == 0u) {
        report[0] = all.rows;
        report[1] = all.hits;
        report[2] = bitcast<u32>(all.own);
        report[3] = bitcast<u32>(all.nearest);
        report[4] = bitcast<u32>(all.cosine);
    }
    for (var i = lane; i < 2u * part.count; i += LANES) { report[8u + i] = atomicLoad(&bins[i]); }
}
