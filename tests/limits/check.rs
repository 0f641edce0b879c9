//! What every plan must be on a device with these limits, worked out again from its shape.

use std::collections::HashMap;

use margin_softmax::{
    Error,
    plan::{CONSTANTS_STRIDE, Element, Limits, Plan, Role, StepConstants, TensorRole},
};

/// Limits by the names that errors give them.
pub const LIMITS: [&str; 7] = [
    "max_storage_buffer_binding_size",
    "max_buffer_size",
    "max_compute_workgroups_per_dimension",
    "max_compute_workgroup_storage_size",
    "max_compute_invocations_per_workgroup",
    "max_compute_workgroup_size_x",
    "max_storage_buffers_per_shader_stage",
];

/// The alignment is a limit too, of which less is better: a plan asks for none.
pub const ALIGNMENT: &str = "min_storage_buffer_offset_alignment";

/// What an error refuses: the limit, or the number that is too large. Fails where it is no refusal of a size, or does not
/// tell the truth.
pub fn refusal(error: &Error) -> Result<&'static str, String> {
    let (name, needed, allowed) = match *error {
        Error::Limit { limit, needed, allowed, .. } => {
            let known = LIMITS.contains(&limit) || limit == ALIGNMENT;
            if !known {
                return Err(format!("no limit is called `{limit}`"));
            }
            (limit, needed, allowed)
        }
        Error::Size { what, needed, allowed } => (what, needed, allowed),
        Error::Budget { needed, allowed } => ("budget", needed, allowed),
        Error::Work { needed, allowed } => ("work", needed, allowed),
        _ => return Err(format!("not a refusal of a size: {error:?}")),
    };
    if needed > allowed { Ok(name) } else { Err(format!("{needed} is not more than {allowed}: {error}")) }
}

/// A kernel as its WGSL declares it.
struct Shader {
    size: [u32; 3],
    memory: u32,
    /// Of each storage binding: the bytes of what a `u32` counts.
    items: Vec<u64>,
}

/// Shaders that were read already: there are far fewer than plans.
#[derive(Default)]
pub struct Shaders(HashMap<String, Shader>);

impl Shaders {
    fn read(&mut self, source: &str) -> &Shader {
        self.0.entry(source.to_owned()).or_insert_with(|| {
            let module = naga::front::wgsl::parse_str(source).unwrap();
            let (mut memory, mut items) = (0, vec![]);
            for (_, variable) in module.global_variables.iter() {
                let ty = &module.types[variable.ty].inner;
                match variable.space {
                    naga::AddressSpace::WorkGroup => memory += ty.size(module.to_ctx()),
                    naga::AddressSpace::Storage { .. } => {
                        let binding = variable.binding.as_ref().unwrap().binding as usize - 2;
                        let bytes = match ty {
                            naga::TypeInner::Array { stride, .. } => *stride,
                            other => other.size(module.to_ctx()),
                        };
                        // a tensor is indexed by its elements, however many are loaded at once
                        let operand = variable.name.as_ref().is_some_and(|name| name.ends_with("_data"));
                        let wide = ty.size(module.to_ctx()).max(bytes);
                        let halves = operand && !source_is_f32(&module, variable.ty);
                        let item = if halves {
                            2
                        } else if operand {
                            4
                        } else {
                            wide
                        };
                        items.push((binding, u64::from(item)));
                    }
                    _ => {}
                }
            }
            items.sort_unstable();
            let items = items.into_iter().map(|(_, bytes)| bytes).collect();
            Shader { size: module.entry_points[0].workgroup_size, memory, items }
        })
    }
}

/// Whether an array holds f32 or vectors of them: what is not is two halves to a word, or f16.
fn source_is_f32(module: &naga::Module, ty: naga::Handle<naga::Type>) -> bool {
    let naga::TypeInner::Array { base, .. } = module.types[ty].inner else { return true };
    match module.types[base].inner {
        naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, .. } => scalar == naga::Scalar::F32,
        _ => true,
    }
}

/// Fails with the first thing that this device would refuse, or that a shader would get wrong.
macro_rules! holds {
    ($condition:expr, $($text:tt)+) => {
        if !$condition { return Err(format!($($text)+)); }
    };
}

/// The plan keeps to the limits: buffers, bindings, workgroups, dispatches, and indices that a `u32` can hold.
pub fn keeps_to(plan: &Plan, limits: &Limits, shaders: &mut Shaders) -> Result<(), String> {
    for buffer in plan.buffers() {
        let bytes = buffer.bytes;
        holds!(bytes <= limits.max_buffer && bytes <= limits.max_binding, "{buffer:?} is too large");
        holds!(bytes >= 16 && bytes % 4 == 0, "{buffer:?} cannot be bound");
    }
    let table = plan.constants().len() as u64 * CONSTANTS_STRIDE;
    holds!(table <= limits.max_buffer && u32::try_from(table).is_ok(), "a table of {table} bytes");
    let mut counted = vec![];
    for kernel in plan.kernels() {
        let Shader { size, memory, items } = shaders.read(&kernel.source);
        let (name, lanes) = (kernel.name, size.iter().product::<u32>());
        holds!(lanes <= limits.invocations && size[0] <= limits.size_x, "{name}: {size:?} invocations");
        holds!(*memory <= limits.workgroup_bytes, "{name}: {memory} bytes of workgroup memory");
        holds!(items.len() == kernel.bindings.len(), "{name}: {} bindings", items.len());
        holds!(items.len() <= limits.storage_buffers as usize, "{name}: {} bindings", items.len());
        counted.push(items.clone());
    }
    let rows = plan.shape().rows() as u32;
    for step in plan.forward().iter().chain(plan.backward()) {
        let kernel = &plan.kernels()[step.kernel];
        let (name, grid) = (kernel.name, step.grid);
        holds!(step.constants < plan.constants().len(), "{name}: no constants {}", step.constants);
        holds!(step.buffers.len() == kernel.bindings.len(), "{name}: {} buffers", step.buffers.len());
        for (&buffer, item) in step.buffers.iter().zip(&counted[step.kernel]) {
            let buffer = &plan.buffers()[buffer];
            let items = buffer.bytes.div_ceil(*item);
            holds!(items <= 1 << 31, "{name}: {items} items of `{}` in a u32", buffer.name);
        }
        for rows in [0, 1, rows / 2, rows] {
            let groups = grid.dispatch(rows, limits.max_groups).map_err(|e| format!("{name}: {e}"))?;
            let blocks = if grid.rows_per_group == 0 { 1 } else { u64::from(rows.div_ceil(grid.rows_per_group)) };
            let all = blocks * grid.groups;
            let Some([x, y, z]) = groups else {
                holds!(all == 0 || grid.entries == 0, "{name}: {all} groups are left out");
                continue;
            };
            let most = limits.max_groups;
            holds!(x <= most && y <= most && z <= most && x * y * z > 0, "{name}: {x} x {y} x {z} groups");
            let found = u64::from(x) * u64::from(y);
            holds!(
                found >= all && u32::try_from(found).is_ok() && z == grid.entries,
                "{name}: {found} of {all} groups"
            );
        }
    }
    Ok(())
}

/// What a head of these sizes needs, whoever planned it.
pub struct Head<'a> {
    pub rows: usize,
    pub dim: usize,
    pub centers: usize,
    pub shards: &'a [usize],
    pub elements: [Element; 2],
    pub budget: u64,
}

impl Head<'_> {
    /// The plan does the whole work of the head: tensors have their size, chunks and their parts cover every class once, and
    /// every sum is complete. In `u64` throughout.
    pub fn is_done_by(&self, plan: &Plan) -> Result<(), String> {
        let found = plan.workspace_bytes();
        holds!(found <= self.budget, "{found} bytes in a budget of {}", self.budget);
        self.tensors(plan)?;
        self.chunks(plan)?;
        self.steps(plan)
    }

    fn tensors(&self, plan: &Plan) -> Result<(), String> {
        let (rows, dim) = (self.rows as u64, self.dim as u64);
        let shard = |i: usize| self.shards[i] as u64 * self.centers as u64 * dim;
        for buffer in plan.buffers() {
            let expected = match buffer.role {
                Role::Given(TensorRole::Embeddings) => rows * dim * self.elements[0].bytes(),
                Role::Given(TensorRole::Prototypes(i)) => shard(i) * self.elements[1].bytes(),
                Role::Given(TensorRole::GradEmbeddings) => rows * dim * 4,
                Role::Given(TensorRole::GradPrototypes(i)) => shard(i) * 4,
                Role::Given(TensorRole::Labels) | Role::Optional(TensorRole::RowLosses) => rows * 4,
                _ => continue,
            };
            let expected = expected.max(16).next_multiple_of(4);
            holds!(buffer.bytes == expected, "{buffer:?} should have {expected} bytes");
        }
        Ok(())
    }

    fn chunks(&self, plan: &Plan) -> Result<(), String> {
        let (mut next, mut start, mut shard) = (0, 0, 0);
        for chunk in &plan.schedule().chunks {
            if next - start == self.shards[shard] {
                (start, shard) = (next, shard + 1);
            }
            let place = (chunk.shard, chunk.first, chunk.local, chunk.centers);
            holds!(place == (shard, next, next - start, self.centers), "{chunk:?} does not follow class {next}");
            holds!(chunk.count > 0 && chunk.local + chunk.count <= self.shards[shard], "{chunk:?} crosses a shard");
            next += chunk.count;
        }
        holds!(next == self.shards.iter().sum::<usize>(), "{next} classes are covered");
        Ok(())
    }

    /// What a kernel does with its part: workgroups for all of it, and loops that together reach the end.
    fn steps(&self, plan: &Plan) -> Result<(), String> {
        let (rows, dim, centers) = (self.rows as u64, self.dim as u64, self.centers as u64);
        let tile = plan.schedule().tile.geometry();
        let (high, wide) = (u64::from(tile.rows), u64::from(tile.columns));
        let chunks = &plan.schedule().chunks;
        // the part of each chunk, by its first prototype; passes of grad_prototypes over the rows of a chunk
        let own: HashMap<u64, &_> = chunks.iter().map(|c| (c.first as u64 * centers, c)).collect();
        let mut passes: HashMap<u64, Vec<[u64; 2]>> = HashMap::new();
        let mut products = 0;
        for step in plan.forward().iter().chain(plan.backward()) {
            let name = plan.kernels()[step.kernel].name;
            let part @ StepConstants { count, stride, splits, slots, .. } = plan.constants()[step.constants];
            let [count, stride, splits, slots] = [count, stride, splits, slots].map(u64::from);
            let blocks = step.grid.rows_per_group;
            let blocks = if blocks == 0 { 1 } else { rows.div_ceil(blocks.into()) };
            let groups = blocks * step.grid.groups;
            let bytes = |at: usize| plan.buffers()[step.buffers[at]].bytes;
            if ["cosines", "row_stats", "grad_cosines", "grad_embeddings", "grad_prototypes"].contains(&name) {
                let first = u64::from(part.first);
                let Some(chunk) = own.get(&first) else { return Err(format!("{name}: no chunk begins at {first}")) };
                let vectors = chunk.count as u64 * centers;
                let expected = [vectors, chunk.local as u64 * centers, vectors.next_multiple_of(4)];
                let found = [count, part.local.into(), stride];
                holds!(found == expected, "{name}: {found:?} for {chunk:?}");
                let cosines = if name == "cosines" { 4 } else { 0 };
                holds!(bytes(cosines) >= rows * stride * 4, "{name}: {} bytes of cosines", bytes(cosines));
            }
            let needed = match name {
                "row_norms" | "target_rows" => rows.div_ceil(8),
                "class_norms" => {
                    holds!(bytes(1) >= (u64::from(part.first) + count) * 8, "{name}: {} bytes of classes", bytes(1));
                    holds!(bytes(2) >= (u64::from(part.local) + count.div_ceil(64)) * 16, "{name}: {} bytes", bytes(2));
                    count.div_ceil(64)
                }
                "cosines" => {
                    products += 1;
                    rows.div_ceil(high) * count.div_ceil(wide)
                }
                "row_stats" => {
                    let covered = slots * u64::from(part.slot_span);
                    holds!(covered >= count / centers, "{name}: {covered} of {} classes", count / centers);
                    holds!(bytes(3) >= rows * slots * 32, "{name}: {} bytes of slots", bytes(3));
                    rows * slots
                }
                "grad_cosines" => rows.div_ceil(64) * (count / centers).div_ceil(64),
                "grad_embeddings" => {
                    let covered = splits * u64::from(part.split_span);
                    holds!(covered >= count, "{name}: {covered} of {count} prototypes");
                    holds!(bytes(2) >= splits * rows * dim.next_multiple_of(4) * 4, "{name}: {} bytes", bytes(2));
                    rows.div_ceil(high) * dim.div_ceil(wide) * splits
                }
                "grad_prototypes" => {
                    let [first, rows] = [part.row_first, part.row_count].map(u64::from);
                    passes.entry(part.first.into()).or_default().push([first, rows]);
                    count.div_ceil(high) * dim.div_ceil(wide)
                }
                "finish_embeddings" => rows,
                "target_margins" | "target_facts" | "row_loss" | "row_gradients" => rows.div_ceil(64),
                _ => 0,
            };
            holds!(groups >= needed, "{name}: {groups} groups, {needed} are needed");
        }
        holds!(products >= chunks.len(), "{products} products for {} chunks", chunks.len());
        for (first, passes) in passes {
            let end = passes.iter().try_fold(0, |end, &[at, rows]| (at == end).then_some(end + rows));
            holds!(end.is_some_and(|end| end >= rows), "prototype {first}: rows {passes:?} of {rows}");
        }
        Ok(())
    }
}
