// grad_prototypes: dW of a chunk: the pull of all rows, without its radial part, divided by the length.
//
//   in      cosine          [batch, rows, stride]            dL/dcosine, times the inverse length in a head
//   in      embedding       [batch, rows, dim]
//   in      prototype       [batch, shard, dim]
//   in      inverses        [batch, rows]                    f32
//   in      classes         [batch, classes]                 vec2 (inverse length, weight)
//   in      columns         [batch, rows / 64, stride]       f32: sums of gradient as it is * cosine
//   inout   store_gradient  [batch, shard, dim]
//   in      list            [stride / PER_LIST, 1 + rows]        the rows that are summed over; with a filter alone
//
// One workgroup owns a tile: no order of additions depends on timing. Very many rows take several passes, and a pass goes
// through PIECE of them at a time: each piece loses its radial part, which would grow beyond the rest of a long sum, and is
// added to the ones before.

@group(0) @binding(5) var<storage, read> inverses: array<f32>;
@group(0) @binding(6) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read> columns: array<f32>;

const A_ALONG_K = false;
const B_ALONG_K = false;
const A_NORMALIZED = false;
const B_NORMALIZED = true;

var<private> entry: u32;    // of the batch
var<private> piece: u32;    // its first row

fn cosine_width() -> u32 { return part.stride; }
fn embedding_width() -> u32 { return settings.dim; }
fn prototype_width() -> u32 { return settings.dim; }
fn store_gradient_width() -> u32 { return settings.dim; }

fn row_end() -> u32 {
    return part.row_first + min(part.row_count, max(settings.batch_rows, part.row_first) - part.row_first);
}

fn lines_a(k: u32) -> Lines {
    let start = starts(entry * settings.batch_rows, k, cosine_pitch());
    return Lines(start, select(vec4(0.0), vec4(1.0), in_reach(k)));
}

fn lines_b(k: u32) -> Lines {
    let row = entry * settings.batch_rows + rows_at(k);
    let inverse = vec4(inverses[row.x], inverses[row.y], inverses[row.z], inverses[row.w]);
    let start = starts(entry * settings.batch_rows, k, embedding_pitch());
    return Lines(start, select(vec4(0.0), inverse, in_reach(k)));
}

fn width_a() -> u32 { return cosine_width(); }
fn width_b() -> u32 { return embedding_width(); }
fn load_a(start: u32, m: u32, factor: f32) -> vec4<f32> { return cosine_from(start, m); }
fn load_b(start: u32, n: u32, factor: f32) -> vec4<f32> { return embedding_from(start, n) * factor; }

fn epilogue(m: u32, n: u32, v: vec4<f32>) {
    if (m >= part.count) { return; }
    let blocks = (settings.batch_rows + 63u) / 64u;
    var radial = 0.0;
    // a linear head has no radial part to take out
    let blocks_end = select((min(piece + PIECE, row_end()) + 63u) / 64u, 0u, has(DOT_PRODUCT));
    for (var i = piece / 64u; i < blocks_end; i++) {
        radial += columns[(entry * blocks + i) * part.stride + m];
    }
    let j = entry * part.count + m;
    // negative for a vector shorter than 1e-12, 0 for one that is not finite: no gradient to either
    let inverse = classes[part.first + j].x;
    let unit = select(vec4(0.0), prototype(part.local + j, n) * inverse, inverse > 0.0);
    store_gradient(part.local + j, n, select(vec4(0.0), (v - radial * unit) * gradient_factor(inverse), inverse > 0.0),
                   has(ADD_PROTOTYPES) || piece > 0u);
}

@compute @workgroup_size(TILE_LANES)
fn grad_prototypes(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (settings.dim + TILE_N - 1u) / TILE_N;
    if (group / wide * TILE_M >= part.count) { return; }
    entry = id.z;
    factor_before();
    let end = reach(group / wide);
    var first = part.row_first;
    // to the last row, also where a list of rows ends before: every row's radial part is taken out
    loop {
        piece = first;
        tile_run(group / wide * TILE_M, group % wide * TILE_N, first, min(first + PIECE, end), lane);
        first += PIECE;
        if (first >= row_end()) { break; }
    }
}
