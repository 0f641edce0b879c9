// monitor_pairs: sums of (pi/2 - angle) over pairs of vectors, one sum per tile of pairs.
//
//   in      left     [count, dim]    part.count vectors
//   in      right    [stride, dim]   part.stride vectors: the same ones, or those of a later shard
//   in      classes  [classes]       vec2 (inverse length, weight): the left ones, then the right ones if they are others
//   out     sums     [tiles]         f32: part.splits tiles of columns, from column part.local on, for each tile of rows
//
// Right vector n is number part.first + n; a pair counts where the left number is the smaller one, so each does once.
// Vectors are normalised as they are loaded.

@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;

const A_ALONG_K = true;
const B_ALONG_K = true;
const A_NORMALIZED = true;
const B_NORMALIZED = true;

alias Reduced = f32;
const LANES = TILE_LANES;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

var<private> sum: f32;

fn left_width() -> u32 { return settings.dim; }
fn right_width() -> u32 { return settings.dim; }

fn lines_a(m: u32) -> Lines {
    let at = four(m);
    let i = min(at, vec4(part.count - 1u));
    let inverse = abs(vec4(classes[i.x].x, classes[i.y].x, classes[i.z].x, classes[i.w].x));
    return Lines(i * left_pitch(), select(vec4(0.0), inverse, at < vec4(part.count)));
}

fn lines_b(n: u32) -> Lines {
    let at = four(n);
    let j = min(at, vec4(part.stride - 1u));
    let own = part.first + j;
    let inverse = abs(vec4(classes[own.x].x, classes[own.y].x, classes[own.z].x, classes[own.w].x));
    return Lines(j * right_pitch(), select(vec4(0.0), inverse, at < vec4(part.stride)));
}

fn width_a() -> u32 { return left_width(); }
fn width_b() -> u32 { return right_width(); }
fn load_a(start: u32, k: u32, factor: f32) -> vec4<f32> { return left_from(start, k) * factor; }
fn load_b(start: u32, k: u32, factor: f32) -> vec4<f32> { return right_from(start, k) * factor; }

// the arc sine; a cosine that rounded past 1 gives pi/2
fn lean(c: f32) -> f32 {
    let a = quadrant_angle(abs(c), sqrt(max((1.0 - c) * (1.0 + c), 0.0)));
    return select(a, -a, c < 0.0);
}

fn epilogue(m: u32, n: u32, v: vec4<f32>) {
    let at = vec4(n) + vec4(0u, 1u, 2u, 3u);
    let one = vec4(m < part.count) & (at < vec4(part.stride)) & (vec4(m) < vec4(part.first) + at);
    let leans = select(vec4(0.0), vec4(lean(v.x), lean(v.y), lean(v.z), lean(v.w)), one);
    sum += (leans.x + leans.y) + (leans.z + leans.w);
}

@compute @workgroup_size(TILE_LANES)
fn monitor_pairs(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let m0 = group / part.splits * TILE_M;
    let n0 = part.local + group % part.splits * TILE_N;
    if (m0 >= part.count) { return; }
    sum = 0.0;
    // tiles below the diagonal have nothing to add
    if (n0 < part.stride && m0 < part.first + n0 + TILE_N - 1u) { tile_run(m0, n0, 0u, settings.dim, lane); }
    sum = reduce(lane, sum);
    if (lane == 0u) { sums[group] = sum; }
}
