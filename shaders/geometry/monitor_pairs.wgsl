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

alias Reduced = f32;
const LANES = TILE_LANES;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

var<private> sum: f32;

fn left_width() -> u32 { return settings.dim; }
fn right_width() -> u32 { return settings.dim; }

fn line_a(m: u32) -> Line {
    let i = min(m, part.count - 1u);
    return Line(i, select(0.0, abs(classes[i].x), m < part.count));
}

fn line_b(n: u32) -> Line {
    let j = min(n, part.stride - 1u);
    return Line(j, select(0.0, abs(classes[part.first + j].x), n < part.stride));
}

fn load_a(line: Line, k: u32) -> vec4<f32> {
    return select(vec4(0.0), left(line.row, k) * line.factor, line.factor > 0.0);
}

fn load_b(line: Line, k: u32) -> vec4<f32> {
    return select(vec4(0.0), right(line.row, k) * line.factor, line.factor > 0.0);
}

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
