// grad_embeddings: the pull of a chunk's prototypes on every row, a part of the chunk per slab.
//
//   in      cosine      [batch, rows, stride]         dL/dcosine; 0 in the padding
//   in      prototype   [batch, shard, dim]
//   in      classes     [batch, classes]              vec2 (inverse length, weight)
//   inout   store_slab  [splits, batch * rows, dim]
//   in      list        [rows / PER_LIST, 1 + stride]     the classes that are summed over; with a filter alone
//
// Slabs go on from chunk to chunk, in order; finish_embeddings adds them and takes out the radial part. A slab adds up the
// sums of PIECE prototypes: each of those is small beside a long sum, and so is what it loses to rounding.

@group(0) @binding(4) var<storage, read> classes: array<vec2<f32>>;

const A_ALONG_K = true;
const B_ALONG_K = false;

var<private> entry: u32;    // of the batch
var<private> slab: u32;
var<private> goes_on: bool; // the slab holds earlier pieces of this chunk

fn cosine_width() -> u32 { return part.stride; }
fn prototype_width() -> u32 { return settings.dim; }
fn store_slab_width() -> u32 { return (settings.dim + 3u) & 0xfffffffcu; }

fn line_a(m: u32) -> Line {
    let row = entry * settings.batch_rows + min(m, settings.batch_rows - 1u);
    return Line(row, select(0.0, 1.0, m < settings.batch_rows));
}

fn line_b(k: u32) -> Line {
    let j = entry * part.count + class_at(k);
    return Line(part.local + j, select(abs(classes[part.first + j].x), 0.0, beyond(k)));
}

fn load_a(line: Line, k: u32) -> vec4<f32> {
    return select(vec4(0.0), gradient(line.row, k), line.factor > 0.0);
}

fn load_b(line: Line, n: u32) -> vec4<f32> {
    return select(vec4(0.0), prototype(line.row, n) * line.factor, line.factor > 0.0);
}

fn epilogue(m: u32, n: u32, v: vec4<f32>) {
    if (m < settings.batch_rows) {
        store_slab(slab * settings.rows + entry * settings.batch_rows + m, n, v, goes_on || part.begin == 0u);
    }
}

@compute @workgroup_size(TILE_LANES)
fn grad_embeddings(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (settings.dim + TILE_N - 1u) / TILE_N;
    let tile = group / part.splits;
    if (tile / wide * TILE_M >= settings.batch_rows) { return; }
    entry = id.z;
    let split = group % part.splits;
    slab = split;
    let end = reach(tile / wide);
    var first = split * span(end);
    let last = min(first + span(end), end);
    goes_on = false;
    loop {
        tile_run(tile / wide * TILE_M, tile % wide * TILE_N, first, min(first + PIECE, last), lane);
        goes_on = true;
        first += PIECE;
        if (first >= last) { break; }
    }
}
