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
const A_NORMALIZED = true;
const B_NORMALIZED = true;

var<private> entry: u32;    // of the batch

fn embedding_width() -> u32 { return settings.dim; }
fn prototype_width() -> u32 { return settings.dim; }
fn store_cosine_width() -> u32 { return part.stride; }

fn lines_a(m: u32) -> Lines {
    let at = four(m);
    let row = entry * settings.batch_rows + min(at, vec4(settings.batch_rows - 1u));
    let inverse = vec4(inverses[row.x], inverses[row.y], inverses[row.z], inverses[row.w]);
    return Lines(row * embedding_pitch(), select(vec4(0.0), inverse, at < vec4(settings.batch_rows)));
}

fn lines_b(n: u32) -> Lines {
    let at = four(n);
    let j = entry * part.count + min(at, vec4(part.count - 1u));
    let own = part.first + j;
    let inverse = abs(vec4(classes[own.x].x, classes[own.y].x, classes[own.z].x, classes[own.w].x));
    return Lines((part.local + j) * prototype_pitch(), select(vec4(0.0), inverse, at < vec4(part.count)));
}

fn width_a() -> u32 { return embedding_width(); }
fn width_b() -> u32 { return prototype_width(); }
fn load_a(start: u32, k: u32, factor: f32) -> vec4<f32> { return embedding_from(start, k) * factor; }
fn load_b(start: u32, k: u32, factor: f32) -> vec4<f32> { return prototype_from(start, k) * factor; }

fn epilogue(m: u32, n: u32, v: vec4<f32>) {
    if (m < settings.batch_rows) { store_cosine(entry * settings.batch_rows + m, n, v, false); }
}

@compute @workgroup_size(TILE_LANES)
fn cosines(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    // the tiles of the same classes follow one another, so that their prototypes are still in a cache
    let high = (settings.batch_rows + TILE_M - 1u) / TILE_M;
    if (group / high * TILE_N >= part.count) { return; }
    entry = id.z;
    tile_run(group % high * TILE_M, group / high * TILE_N, 0u, settings.dim, lane);
}
