// monitor: what a batch reports: rows that count, hits, sums of angles and cosines, two histograms of angles.
//
//   in      rows    [rows]            Row, after a forward pass
//   out     report  [8 + 2 * bins]    u32: rows, hits, bits of three f32 sums (angle to the labelled class, angle to the
//                                     nearest other one, cosine of the labelled class), three unused; then the bins of
//                                     the first angle and those of the second; part.count bins each over [0, pi]
//
// One workgroup, for part.row_count rows from part.row_first on, added to those before. Each lane adds its rows in order, then
// the lanes are added in a fixed tree. Each half of a histogram has one lane, which counts its share of the rows: no
// atomics, which some drivers lose in workgroup memory.
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

var<workgroup> bins: array<u32, 2 * MAX_BINS>;
// of LANES rows: the bin of the first angle, and that of the second in the upper half
var<workgroup> places: array<u32, LANES>;
const NOWHERE = 0xffffffffu;

// the angle of a cosine; one that rounded past 1 gives 0 or pi
fn angle(c: f32) -> f32 {
    let near = quadrant_angle(sqrt(max((1.0 - c) * (1.0 + c), 0.0)), abs(c));
    return select(near, PI - near, c < 0.0);
}

fn bin(angle: f32) -> u32 {
    return min(u32(angle * INVERSE_PI * f32(part.count)), part.count - 1u);
}

// As many histograms as there is room for, each with two lanes and its share of the rows.
fn copies() -> u32 { return min(MAX_BINS / part.count, LANES / 2u); }

fn count_places(lane: u32) {
    if (lane >= 2u * copies()) { return; }
    let far = lane & 1u;
    let own = lane * part.count;
    for (var k = lane / 2u; k < LANES; k += copies()) {
        if (places[k] != NOWHERE) { bins[own + ((places[k] >> (16u * far)) & 0xffffu)] += 1u; }
    }
}

@compute @workgroup_size(LANES)
fn monitor(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (id.x + id.y > 0u) { return; }
    for (var i = lane; i < 2u * part.count * copies(); i += LANES) { bins[i] = 0u; }
    workgroupBarrier();
    var own = Sums(0u, 0u, 0.0, 0.0, 0.0);
    let end = min(part.row_first + part.row_count, settings.rows);
    for (var first = part.row_first; first < end; first += LANES) {
        let i = first + lane;
        var place = NOWHERE;
        if (i < end) {
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
                place = bin(near) | (bin(far) << 16u);
            }
        }
        places[lane] = place;
        workgroupBarrier();
        count_places(lane);
        workgroupBarrier();
    }
    let all = reduce(lane, own);
    if (lane == 0u) {
        var before = Sums(0u, 0u, 0.0, 0.0, 0.0);
        if (part.begin == 0u) {
            before = Sums(report[0], report[1], bitcast<f32>(report[2]), bitcast<f32>(report[3]), bitcast<f32>(report[4]));
        }
        let sum = combine(before, all);
        report[0] = sum.rows;
        report[1] = sum.hits;
        report[2] = bitcast<u32>(sum.own);
        report[3] = bitcast<u32>(sum.nearest);
        report[4] = bitcast<u32>(sum.cosine);
    }
    for (var i = lane; i < 2u * part.count; i += LANES) {
        var sum = select(report[8u + i], 0u, part.begin == 1u);
        for (var copy = 0u; copy < copies(); copy++) { sum += bins[copy * 2u * part.count + i]; }
        report[8u + i] = sum;
    }
}
