//! What is run again: a head or a piece, with every buffer that it writes.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Bound, Context, Head, Tensor, monitor::HeadMonitor},
    plan::{Batched, Call, CrossEntropy, Element, Layout, Plan, Role, TensorRole},
    *,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Spec, planned, runs};
use crate::{
    cases::{Data, random},
    families::{self, Family, Suite},
    rig::{Rig, Tensors, upload},
};

/// Something to run again: how to record it, what to write before, the buffers to look at after.
pub struct Subject {
    pub name: String,
    buffers: Vec<Held>,
    /// Buffer and bytes, written before every run: what a run writes in place begins anew, and outputs hold a pattern.
    reset: Vec<(wgpu::Buffer, u64, Vec<u8>)>,
    state: Option<State>,
    pub run: Run,
}

struct Held {
    name: &'static str,
    own: bool,
    buffer: wgpu::Buffer,
    bytes: std::ops::Range<u64>,
}

pub enum Run {
    Head(Box<Rig>, HeadMonitor),
    Piece(Bound),
}

impl Subject {
    fn held(bound: &Bound) -> Vec<Held> {
        let one = |(planned, buffer, bytes): (&plan::Buffer, &wgpu::Buffer, _)| Held {
            name: planned.name,
            own: planned.role == Role::Workspace,
            buffer: buffer.clone(),
            bytes,
        };
        bound.buffers().map(one).collect()
    }

    /// A head that trains and is monitored.
    pub fn head(context: &Context, spec: &Spec, tile: Tile, schedule: &str) -> Result<Self> {
        let (case, plan, shards) = planned(context, spec, tile, schedule)?;
        let shape = case.shape();
        let layout = Layout { shards: &shards, embeddings: case.elements[0], prototypes: case.elements[1] };
        let head = Head::new(context, &case.loss, plan)?;
        let mut data = Data::new(&case);
        // a row that is not finite, and one of length 0, have paths of their own
        if !matches!(case.elements[0], Element::F16 | Element::Bf16) {
            data.embeddings[2 * shape.dim()] = f32::NAN;
        }
        data.embeddings[shape.dim()..2 * shape.dim()].fill(0.0);
        let tensors = Tensors::new(context, shape, &layout, &data)?;
        let mut bound = tensors.bind_state(&head)?;
        bound.set_training(case.training);
        let monitor = HeadMonitor::new(context, &bound, 16)?;
        let rig = Box::new(Rig { head, bound, tensors });
        let mut buffers = Self::held(rig.bound.bound());
        let result = monitor.result();
        buffers.push(Held { name: "monitor", own: false, buffer: result.buffer().clone(), bytes: 0..result.bytes() });
        let outputs =
            ["loss", "row_losses", "grad_embeddings", "grad_prototypes", "grad_scale", "grad_bias", "grad_margins"];
        let outputs = buffers.iter().filter(|b| outputs.contains(&b.name) || b.name == "monitor");
        let reset = outputs.map(|b| (b.buffer.clone(), b.bytes.start, pattern(&b.bytes))).collect();
        let name = format!("{} {} {schedule}", case.family, tile.name());
        Ok(Self { name, buffers, reset, state: Some(case.state()), run: Run::Head(rig, monitor) })
    }

    /// One run, and what every buffer holds after it.
    pub fn bits(&mut self, context: &Context) -> Result<Vec<u8>> {
        for (buffer, offset, bytes) in &self.reset {
            context.queue().write_buffer(buffer, *offset, bytes);
        }
        if let (Run::Head(rig, _), Some(state)) = (&mut self.run, &self.state) {
            rig.bound.set_state(state)?;
        }
        let total = self.buffers.iter().map(|b| b.bytes.end - b.bytes.start).sum::<u64>();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: total, usage, mapped_at_creation: false };
        let all = context.device().create_buffer(&descriptor);
        let mut encoder = context.device().create_command_encoder(&Default::default());
        match &self.run {
            Run::Head(rig, monitor) => {
                rig.bound.record_forward(&mut encoder);
                monitor.record(&mut encoder);
                rig.bound.record_backward(&mut encoder);
            }
            Run::Piece(bound) => bound.record_forward(false, &mut encoder),
        }
        let mut at = 0;
        for held in &self.buffers {
            let bytes = held.bytes.end - held.bytes.start;
            encoder.copy_buffer_to_buffer(&held.buffer, held.bytes.start, &all, at, bytes);
            at += bytes;
        }
        context.queue().submit([encoder.finish()]);
        let words = Tensor::from_buffer(&all, 0, &[(total / 4) as usize], Element::U32)?.read::<u32>(context)?;
        Ok(bytemuck::cast_slice(&words).to_vec())
    }

    /// Fails with the buffer and the place where two runs differ; of the workspace only if `whole`.
    pub fn same(&self, first: &[u8], again: &[u8], whole: bool) -> Result<(), Failed> {
        let mut at = 0;
        for held in &self.buffers {
            let range = at..at + (held.bytes.end - held.bytes.start) as usize;
            at = range.end;
            let (a, b) = (&first[range.clone()], &again[range]);
            let defined = ["rows", "batch", "filtered", "mean", "sums"].contains(&held.name);
            let written = |word: usize| match held.name {
                _ if whole => true,
                // the first entry has what is known of the prototypes; the last words of each are the middle of the
                // batch, for AdaCos alone, and padding
                "batch" => word < 10 || ![2, 8, 9, 10, 11].contains(&(word % 12)),
                // the smallest buffer, of which one value may be in use
                _ if held.own && a.len() == 16 => word == 0,
                _ => true,
            };
            let differs = (0..a.len()).find(|&i| a[i] != b[i] && written(i / 4));
            if let (true, Some(i)) = (whole || !held.own || defined, differs) {
                let word = |v: &[u8]| f32::from_ne_bytes(v[i / 4 * 4..][..4].try_into().unwrap());
                return Err(format!("{}: {}[{}]: {} and {}", self.name, held.name, i / 4, word(a), word(b)).into());
            }
        }
        Ok(())
    }

    /// Some runs in a row.
    pub fn rerun(&mut self, context: &Context) -> Result<(), Failed> {
        let first = self.bits(context)?;
        for _ in 1..runs() {
            let again = self.bits(context)?;
            self.same(&first, &again, true)?;
        }
        Ok(())
    }

    /// Fills what a run writes before it reads it with NaN.
    pub fn spoil(&self, context: &Context) {
        // what is never written holds the zeros that it was made with
        for held in self.buffers.iter().filter(|b| b.own && !["labels", "weights"].contains(&b.name)) {
            context.queue().write_buffer(&held.buffer, held.bytes.start, &pattern(&held.bytes));
        }
    }
}

/// NaN, to the last bit.
fn pattern(bytes: &std::ops::Range<u64>) -> Vec<u8> {
    [0xff_u8; 4].repeat(((bytes.end - bytes.start) / 4) as usize)
}

/// A plan beside a head, and what to call it.
pub struct Piece {
    name: String,
    pub plan: Plan,
    loss: MarginSoftmax,
}

/// Every plan that is not a head's, with every tile where it has one.
pub fn pieces(context: &Context) -> Result<Vec<Piece>> {
    let limits = context.limits();
    let mut all = vec![];
    let mut add = |name: String, plan: Plan, loss: &MarginSoftmax| all.push(Piece { name, plan, loss: loss.clone() });
    let plainly = MarginSoftmax::default();
    let half = [Element::F16, Element::Bf16];
    for tile in crate::tiles(context) {
        for (elements, shape) in [([Element::F32; 2], Shape::new(34, 70, 20)?), (half, Shape::new(9, 131, 7)?)] {
            // large tiles are slow to compile
            if !crate::full() && (elements == half) == !matches!(tile, Tile::Direct | Tile::Tile64) {
                continue;
            }
            for backward in [false, true] {
                let plan = Plan::cosine(Batched::new(2, shape, elements)?, limits, tile, backward)?;
                add(format!("cosine {} {elements:?} backward {backward}", tile.name()), plan, &plainly);
            }
        }
        for right in [None, Some(70)] {
            for strip in Plan::strips(tile, 150, right.unwrap_or(150), 8).take(1) {
                let plan = Plan::pairs((150, right), 20, Element::F32, (tile, strip), limits)?;
                add(format!("pairs {} {right:?} {strip:?}", tile.name()), plan, &plainly);
            }
        }
    }
    let (loss, shape) = (MarginSoftmax::arcface(), Shape::new(34, 200, 12)?.with_sub_centers(2)?);
    let layout = Layout { shards: &[200], embeddings: Element::F32, prototypes: Element::Bf16 };
    let predict = |budget| {
        let options = Options { tile: Some(Tile::Direct), budget, ..Options::default() };
        Plan::predict(&loss, shape, 0..200, 5, &layout, limits, &options)
    };
    add("predict".into(), predict(Budget::default())?, &loss);
    if let Err(Error::Budget { needed, .. }) = predict(Budget::bytes(1)) {
        add("predict in chunks".into(), predict(Budget::bytes(needed))?, &loss);
    }
    let cells = Batched::new(2, Shape::new(33, 70, 1)?, [Element::F32; 2])?;
    for Family { loss, .. } in families::on(Suite::Operation) {
        for backward in [false, true] {
            add(
                format!("margin {} {backward}", loss.target.name()),
                Plan::margin(&loss, cells, limits, backward)?,
                &loss,
            );
        }
    }
    for reduction in [Reduction::Mean, Reduction::None] {
        let options = CrossEntropy { reduction, label_smoothing: 0.1, ..CrossEntropy::default() };
        let cells = Batched::new(2, Shape::new(33, 1100, 1)?, [Element::F32; 2])?;
        let plan = Plan::cross_entropy(&options, cells, limits, true)?;
        add(format!("cross entropy {}", reduction.name()), plan, &options.loss());
    }
    let shape = Shape::new(100, 290, 33)?;
    for element in [Element::F32, Element::Bf16] {
        let shards = [128, 162];
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: element };
        add(format!("gather {element:?}"), Plan::gather(shape, &layout, limits)?, &plainly);
        add(format!("mean prototype {element:?}"), Plan::mean_prototype(&shards, 33, element, limits)?, &plainly);
        for regularizer in [Regularizer::RegSs { weight: 3.0 }, Regularizer::UniformFace { weight: 3.0 }] {
            let plan = Plan::regularizer(&regularizer, shape, element, limits)?;
            add(format!("{regularizer:?} {element:?}"), plan, &regularizer.settings_loss());
        }
        let loss = CenterLoss::default();
        let plan = Plan::center_loss(&loss, shape, element, limits)?;
        add(format!("center loss {element:?}"), plan, &loss.settings_loss());
        let plan = Plan::center_update(&loss, shape, element, limits)?;
        add(format!("center update {element:?}"), plan, &loss.update_settings_loss());
    }
    Ok(all)
}

impl Piece {
    /// Bound to random tensors of its own.
    pub fn subject(self, context: &Context) -> Result<Subject> {
        let Self { name, plan, loss } = self;
        let rng = &mut ChaCha8Rng::seed_from_u64(name.len() as u64);
        let classes = plan.shape().classes() as i32;
        let mut tensors = vec![];
        for buffer in plan.buffers() {
            let Role::Given(slot) = buffer.role else { continue };
            let is = |element| plan.check_element(slot, element).is_ok();
            let element =
                [Element::I32, Element::F32, Element::F16, Element::Bf16].into_iter().find(|&e| is(e)).unwrap();
            let len = (buffer.bytes / element.bytes()) as usize;
            let tensor = match element {
                Element::I32 => Tensor::upload(
                    context,
                    &[len],
                    &(0..len).map(|_| rng.random_range(0..classes)).collect::<Vec<_>>(),
                )?,
                // cosines, and whatever else is small
                _ if slot == TensorRole::Cosines => {
                    let values: Vec<f32> = (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
                    Tensor::upload(context, &[len], &values)?
                }
                _ => upload(context, &[len], &random(rng, len), element),
            };
            tensors.push((slot, tensor));
        }
        let given: Vec<(TensorRole, &Tensor)> = tensors.iter().map(|(slot, tensor)| (*slot, tensor)).collect();
        let call = Call { rows: plan.shape().rows(), ..Call::default() };
        let bound = Bound::new(context, &plan.into(), &given, &loss, &call)?;
        let mut reset = vec![];
        for (_, tensor) in &tensors {
            let words =
                Tensor::from_buffer(tensor.buffer(), 0, &[(tensor.buffer().size() / 4) as usize], Element::U32)?;
            let bytes = bytemuck::cast_slice(&words.read::<u32>(context)?).to_vec();
            reset.push((tensor.buffer().clone(), 0, bytes));
        }
        Ok(Subject { name, buffers: Subject::held(&bound), reset, state: None, run: Run::Piece(bound) })
    }
}
