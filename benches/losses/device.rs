//! Tensors on a device, read as they are stored: one submit until the device is idle.

use std::rc::Rc;

use margin_softmax::{
    MarginSoftmax, Options, Output,
    gpu::{Context, Head, Io, Scalar, Tensor},
    plan::{Layout, Plan},
};

use crate::{
    cases::{Case, Rounded, element_case, gradient_error},
    data::Data,
};

pub fn on_device<T: Scalar + Rounded>(element: &str, context: &Context, both: &[(&Rc<Data>, Output<f64>); 2]) -> Case {
    let shape = both[0].0.shape;
    let (n, c, d) = (shape.rows(), shape.classes(), shape.dim());
    let loss = MarginSoftmax::arcface();
    let layout = Layout { shards: &[c], embeddings: T::ELEMENT, prototypes: T::ELEMENT };
    let plan = Plan::head(&loss, shape, &layout, context.limits(), &Options::default()).unwrap();
    let head = Head::new(context, &loss, plan).unwrap();
    let floats = |sizes: &[usize]| Tensor::upload(context, sizes, &vec![0.0_f32; sizes.iter().product()]).unwrap();
    let (loss_out, dx, dw) = (floats(&[1]), floats(&[n, d]), floats(&[c, d]));
    let (mut bounds, mut errors) = (vec![], vec![]);
    for (data, exact) in both {
        let x = Tensor::upload(context, &[n, d], &T::rounded(&data.x)).unwrap();
        let w = Tensor::upload(context, &[c, d], &T::rounded(&data.w)).unwrap();
        let labels: Vec<i32> = data.labels.iter().map(|&y| y as i32).collect();
        let y = Tensor::upload(context, &[n], &labels).unwrap();
        let prototypes = [&w];
        let io = Io { grad_embeddings: Some(&dx), grad_prototypes: &[&dw], ..Io::new(&x, &prototypes, &y, &loss_out) };
        let bound = head.bind(&io).unwrap();
        submit(context, &bound);
        let (dx, dw) = (dx.read::<f32>(context).unwrap(), dw.read::<f32>(context).unwrap());
        errors.push(gradient_error(element, &dx, &dw, exact));
        bounds.push(bound);
    }
    let (bound, device) = (bounds.swap_remove(0), context.clone());
    element_case(element, &context.name(), &errors, Box::new(move || submit(&device, &bound)))
}

fn submit(context: &Context, bound: &margin_softmax::gpu::BoundHead) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    bound.record_forward(&mut encoder);
    bound.record_backward(&mut encoder);
    context.queue().submit([encoder.finish()]);
    context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
}
