//! The same step as an engine takes it: tensors of its own in two sets, prototypes in two shards, one recording.

use margin_softmax::{
    Result, State,
    gpu::{Context, Head, Io},
    plan::{Element, Layout, Plan},
};

use crate::{
    cases::Data,
    common::distance,
    models::{DIM, Model, ROWS, ranges},
    rig::{Rig, Tensors},
};

pub struct Engine {
    context: Context,
    rig: Rig,
    /// The tensors that are bound in the next step.
    other: Tensors,
}

impl Engine {
    pub fn all(context: &Context, models: &[Model]) -> Result<Vec<Self>> {
        models.iter().map(|model| Self::new(context, model)).collect()
    }

    fn new(context: &Context, model: &Model) -> Result<Self> {
        let shards = ranges().map(|range| range.len());
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
        let plan = Plan::head(&model.loss, model.shape, &layout, context.limits(), &model.options)?;
        let head = Head::new(context, &model.loss, plan)?;
        let none = Data {
            embeddings: vec![0.0; ROWS * DIM],
            prototypes: model.w.clone(),
            labels: vec![0; ROWS],
            ..Data::default()
        };
        let none = match model.options.soft_labels {
            Some(count) => none.softened(count, model.shape.classes()),
            None => none,
        };
        let [tensors, other] = [(), ()].map(|()| Tensors::new(context, model.shape, &layout, &none));
        let tensors = tensors?;
        let mut bound = tensors.bind_state(&head)?;
        bound.set_training(true);
        Ok(Self { context: context.clone(), rig: Rig { head, bound, tensors }, other: other? })
    }

    /// One step from a state; ends where the simple head ended.
    pub fn step(&mut self, model: &Model, data: &Data, state: &State) -> Result<()> {
        let (context, rows) = (&self.context, data.labels.len());
        std::mem::swap(&mut self.rig.tensors, &mut self.other);
        let t = &self.rig.tensors;
        let (w, dw) = (t.w.iter().collect::<Vec<_>>(), t.dw.iter().collect::<Vec<_>>());
        let binary = self.rig.head.plan().find("grad_bias").is_some();
        let db = margin_softmax::gpu::Tensor::from_buffer(t.db.buffer(), 0, &[1], Element::F32)?;
        self.rig.bound.rebind(&Io {
            state: Some(&t.state),
            soft_classes: t.soft.as_ref().map(|soft| &soft[0]),
            soft_weights: t.soft.as_ref().map(|soft| &soft[1]),
            row_losses: Some(&t.row_losses),
            log_sum_exps: Some(&t.log_sum_exps),
            grad_embeddings: Some(&t.dx),
            grad_prototypes: &dw,
            grad_scale: Some(&t.ds),
            grad_bias: binary.then_some(&db),
            ..Io::new(&t.x, &w, &t.y, &t.loss)
        })?;
        let (mut x, mut y) = (data.embeddings.clone(), data.labels.clone());
        // what lies behind the rows of this batch is not read
        x.resize(ROWS * DIM, f32::NAN);
        y.resize(ROWS, -1);
        t.x.write(context, &x)?;
        t.y.write(context, &y)?;
        if let (Some(to), Some(soft)) = (&t.soft, &data.soft) {
            let (mut classes, mut weights) = (soft.classes.clone(), soft.weights.clone());
            classes.resize(ROWS * soft.count, -1);
            weights.resize(ROWS * soft.count, f32::NAN);
            to[0].write(context, &classes)?;
            to[1].write(context, &weights)?;
        }
        let mut rest = &model.w[..];
        for shard in &t.w {
            let (own, next) = rest.split_at(shard.len());
            shard.write(context, own)?;
            rest = next;
        }
        self.rig.bound.update(&model.loss, rows)?;
        self.rig.bound.set_state(state)?;
        let found = self.rig.run(context)?;
        let moved = self.rig.bound.read_state()?;
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        for (what, found, expected) in [
            ("dX", &found.grad_embeddings[..rows * DIM], &model.out.grad_embeddings),
            ("dW", &found.grad_prototypes[..], &model.out.grad_prototypes),
        ] {
            // two heads on the same kernels: sums over two shards instead of one
            let off = distance(found, &wide(expected));
            assert!(off <= 1e-5, "{}: {what} of an engine's step is off by {off:e}", model.name);
        }
        let expected = model.head.state();
        for (found, expected) in [
            (moved.hardness, expected.hardness),
            (moved.norm_mean, expected.norm_mean),
            (moved.norm_deviation, expected.norm_deviation),
            (moved.scale, expected.scale),
        ] {
            assert!(
                (found - expected).abs() <= 2e-6 * expected.abs().max(0.1),
                "{}: {found}, not {expected}",
                model.name
            );
        }
        Ok(())
    }
}
