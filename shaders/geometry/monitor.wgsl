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

var<workgroup> lanes: array<Sums, 256>;
var<workgroup> bins: array<atomic<u32>, 2 * MOST_BINS>;

// the angle of a cosine; one that rounded past 1 gives 0 or pi
fn angle(c: f32) -> f32 {
    let near = quadrant_angle(sqrt(max((1.0 - c) * (1.0 + c), 0.0)), abs(c));
    return select(near, PI - near, c < 0.0);
}

fn bin(angle: f32) -> u32 {
    return min(u32(angle * INVERSE_PI * f32(part.count)), part.count - 1u);
}

@compute @workgroup_size(256)
fn monitor(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (id.x + id.y > 0u) { return; }
    for (var i = lane; i < 2u * part.count; i += 256u) { atomicStore(&bins[i], 0u); }
    workgroupBarrier();
    var own = Sums(0u, 0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < settings.rows; i += 256u) {
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
    lanes[lane] = own;
    workgroupBarrier();
    for (var size = 128u; size > 0u; size >>= 1u) {
        if (lane < size) {
            let a = lanes[lane];
            let b = lanes[lane + size];
            lanes[lane] = Sums(a.rows + b.rows, a.hits + b.hits, a.own + b.own, a.nearest + b.nearest,
                               a.cosine + b.cosine);
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        report[0] = lanes[0].rows;
        report[1] = lanes[0].hits;
        report[2] = bitcast<u32>(lanes[0].own);
        report[3] = bitcast<u32>(lanes[0].nearest);
        report[4] = bitcast<u32>(lanes[0].cosine);
    }
    for (var i = lane; i < 2u * part.count; i += 256u) { report[8u + i] = atomicLoad(&bins[i]); }
}
