// What every kind of project runs.

import { Head, Planner, requestDevice } from 'margin-softmax';

export const curve = async () => {
    const planner = await Planner.load();
    return [...planner.curve('cosface', [-0.5, 0.25]).values];
};

/** On the device; without gradients, whose kernels take long to compile in software. */
export const loss = async () => {
    const [planner, { device }] = await Promise.all([Planner.load(), requestDevice()]);
    const head = await Head.create(device, planner, {
        loss: 'cosface',
        shape: { rows: 2, classes: 3, dim: 4 },
        want: { grad_embeddings: false, grad_prototypes: false },
        options: { tile: 'direct' },
    });
    const ones = (/** @type {number} */ count) => new Float32Array(count).fill(1);
    const out = await head.evaluate({ embeddings: ones(8), prototypes: ones(12), labels: [0, 2] });
    return out.loss;
};
