// margin-softmax heads on a GPUDevice of yours: loss and gradients of a margin-softmax layer, recorded into your encoder.
//
//     const planner = await Planner.load();
//     const head = await Head.create(device, planner, { loss: 'arcface', shape: { rows: 64, classes: 1000, dim: 128 } });
//     const bound = await head.bind({ embeddings, prototypes, labels, loss, gradEmbeddings, gradPrototypes });
//     bound.recordForward(encoder);
//     bound.recordBackward(encoder);
//
// The planner (a small wasm module) says which kernels to run with which buffers; this module makes the WebGPU objects.
// Recording creates, submits, maps and awaits nothing. The device stays yours: its `lost` promise is only listened to,
// its `onuncapturederror` is left alone, and what is created here is created under error scopes.

export { CenterLoss, Regularizer } from './module/auxiliary.js';
export { Bound } from './module/bound.js';
export { limitsOf, requestDevice } from './module/device.js';
export { MarginSoftmaxError } from './module/errors.js';
export { Head } from './module/head.js';
export { CollapseDetector, Monitor, meanPrototype } from './module/monitor.js';
export { Planner } from './module/planner.js';
export { mergePredictions } from './module/predictions.js';
export { Predictor } from './module/predictor.js';
