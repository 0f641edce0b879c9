// grad_embeddings: the pull of a chunk's prototypes on every row, a part of the chunk per slab.
//
//   in      cosine      [batch, rows, stride]         dL/dcosine, times the inverse length in a head; 0 in the padding
//   in      prototype   [batch, shard, dim]
//   inout   store_slab  [splits, batch * rows, dim]
//   in      list        [rows / PER_LIST, 1 + stride]     the classes that are summed over; with a filter alone
//   in      classes     [batch, classes]              vec2 (inverse length, weight); without a head alone
//
// Slabs go on from chunk to chunk, in order; finish_embeddings adds them and takes out the radial part. A slab adds up the
// sums of PIECE prototypes: each of those is small beside a long sum, and so is what it loses to rounding.

const A_ALONG_K = true;
const B_ALONG_K = false;
const A_NORMALIZED = false;

var<private> entry: u32;    // of the batch
var<private> slab_row: u32; // the slab's row of the batch entry's first row
var<private> goes_on: bool; // the slab holds earlier pieces of this chunk

fn cosine_width() -> u32 { return part.stride; }
fn prototype_width() -> u32 { return settings.dim; }
fn store_slab_width() -> u32 { return (settings.dim + 3u) & 0xfffffffcu; }

fn lines_a(m: u32) -> Lines {
    let at = four(m);
    let row = entry * settings.batch_rows + min(at, vec4(settings.batch_rows - 1u));
    return Lines(row * cosine_pitch(), select(vec4(0.0), vec4(1.0), at < vec4(settings.batch_rows)));
}

fn width_a() -> u32 { return cosine_width(); }
fn width_b() -> u32 { return prototype_width(); }
fn load_a(start: u32, k: u32, factor: f32) -> vec4<f32> { return gradient(start, k); }
fn load_b(start: u32, n: u32, factor: f32) -> vec4<f32> { return scaled_by(prototype_from(start, n), factor); }

fn epilogue(m: u32, n: u32, v: vec4<f32>) {
    if (m < settings.batch_rows) {
        store_slab(slab_row + m, n, v, goes_on || part.begin == 0u);
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
    slab_row = split * settings.rows + entry * settings.batch_rows;
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
