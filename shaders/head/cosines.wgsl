// cosines: the cosine of every row with every class of a chunk.
//
//   in      embedding     [batch, rows, dim]
//   in      prototype     [batch, shard, dim]
//   in      inverses      [batch, rows]      f32
//   in      classes       [batch, classes]   vec2 (inverse length, weight)
//   out     store_cosine  [batch, rows, stride]
//
// Vectors are normalised as they are loaded, so no product can overflow.

@group(0) @binding(4) var<storage, read> inverses: array<f32>;
@group(0) @binding(5) var<storage, read> classes: array<vec2<f32>>;

const A_ALONG_K = true;
const B_ALONG_K = true;

var<private> entry: u32;    // of the batch

fn embedding_width() -> u32 { return settings.dim; }
fn prototype_width() -> u32 { return settings.dim; }
fn store_cosine_width() -> u32 { return part.stride; }

fn line_a(m: u32) -> Line {
    let row = entry * settings.batch_rows + min(m, settings.batch_rows - 1u);
    return Line(row, select(0.0, inverses[row], m < settings.batch_rows));
}

fn line_b(n: u32) -> Line {
    let j = entry * part.count + min(n, part.count - 1u);
    return Line(part.local + j, select(0.0, abs(classes[part.first + j].x), n < part.count));
}

fn load_a(line: Line, k: u32) -> vec4<f32> {
    return select(vec4(0.0), embedding(line.row, k) * line.factor, line.factor > 0.0);
}

fn load_b(line: Line, k: u32) -> vec4<f32> {
    return select(vec4(0.0), prototype(line.row, k) * line.factor, line.factor > 0.0);
}

fn epilogue(m: u32, n: u32, v: vec4<f32>) {
    if (m < settings.batch_rows) { store_cosine(entry * settings.batch_rows + m, n, v, false); }
}

@compute @workgroup_size(TILE_LANES)
fn cosines(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (part.count + TILE_N - 1u) / TILE_N;
    if (group / wide * TILE_M >= settings.batch_rows) { return; }
    entry = id.z;
    tile_run(group / wide * TILE_M, group % wide * TILE_N, 0u, settings.dim, lane);
}
