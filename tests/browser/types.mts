// Compiled, not run: the types of the module as an engine uses them.

import {
    CenterLoss,
    CollapseDetector,
    Head,
    MarginSoftmaxError,
    Monitor,
    Planner,
    Predictor,
    Regularizer,
    limitsOf,
    meanPrototype,
    mergePredictions,
    requestDevice,
    type State,
} from '../../web/margin-softmax.js';

const planner = await Planner.load();
const { device } = await requestDevice({ f16: true });
const loss = planner.loss('arcface');
const shape = { rows: 8, classes: 10, dim: 4 };
const settings = { loss, shape, options: { tile: 'direct' } } as const;
const onProgress = (done: number, total: number, name: string) => console.log(done / total, name);
const head = await Head.create(device, planner, settings, { onProgress });
const io = await head.createBuffers(['rowLosses']);
const { labels, prototypes, gradEmbeddings, gradPrototypes } = io;
const embeddings = { buffer: io.embeddings, offset: 256 };
const bound = await head.bind({ embeddings, prototypes, labels, loss: io.loss, gradEmbeddings, gradPrototypes });
bound.update({ ...loss, scale: 3 }, { rows: 3 });
const encoder = device.createCommandEncoder();
bound.recordForward(encoder);
bound.recordBackward(encoder);
for (const record of [...bound.forwardParts(), ...bound.backwardParts()]) record(encoder);
const batch = { embeddings: new Float32Array(32), prototypes: new Float32Array(40), labels: [1] };
const out = await head.evaluate(batch, { loss: 'arcface', training: true, onProgress: (done: number) => console.log(done) });
const quantiles: number = head.report(batch, out, { training: true }).targetCosines[4] + (head.report(batch, out).margins?.[2] ?? 0);
for (const labels of [Int32Array.of(1), BigInt64Array.of(1n), [1n], new Uint8Array(1)]) await head.evaluate({ ...batch, labels });
const predicting = await Head.create(device, planner, { loss, shape, options: { predictions: 3 } });
const nearest: Int32Array | undefined = (await predicting.evaluate(batch)).predictions?.classes;
const soft = await Head.create(device, planner, { loss, shape, options: { soft_labels: 2 } });
const mixed = await soft.evaluate({ ...batch, softLabels: { classes: [1, 2], weights: Float32Array.of(0.3, 0.7) } });
const shares: (number | undefined)[] = [mixed.accuracy, mixed.topK?.accuracy, mixed.counts.zeroEmbeddings, mixed.targetCosines[0]];
const predictor = await Predictor.create(device, planner, { loss, shape, count: 3, range: [0, 5] }, { onProgress });
const found = await predictor.predict({ embeddings: batch.embeddings, prototypes: new Float32Array(20) });
const merged: Float32Array | undefined = mergePredictions([found], 5).logSumExps;
const targets = await predictor.createBuffers(['predictedSubCenters']);
(await predictor.bind(targets)).recordForward(encoder);
const penalty = await Regularizer.create(device, planner, { regularizer: { reg_ss: { weight: 10 } }, shape: { classes: 10, dim: 4 } });
const companion = await penalty.bind({ prototypes: prototypes[0]!, gradPrototypes: gradPrototypes[0]!, loss: io.loss });
companion.update(undefined, { accumulate: true });
const { value, gradient } = await penalty.evaluate(batch.prototypes);
const centers = await CenterLoss.create(device, planner, { loss: { weight: 0.1 }, shape });
const pulled = await centers.evaluate({ ...batch, centers: batch.prototypes, labels: [1] });
const moved: Float32Array = await centers.moved({ embeddings: batch.embeddings, labels: [1], centers: batch.prototypes });
const later = planner.scheduled('arcface', { m2: { start: 0, end: 0.5, from: 10, until: 20n, ramp: 'linear' }, top_k: null }, 15);
const epoch = new Monitor(90);
epoch.add(out, batch.labels);
const warning = new CollapseDetector(shape, { warmUp: 0 }).check(epoch.report(), meanPrototype(batch.prototypes, 4));
console.log(value, gradient[0], pulled.loss, moved[0], later.scale, warning?.text);
const kept: State = head.state;
head.state = { ...kept, step: 2n ** 60n, hardness: '0.25' };
bound.setState(kept);
const sum: number = out.loss + limitsOf(device).max_groups + head.plan.workspace_bytes + (nearest?.[0] ?? 0) + (merged?.[0] ?? 0) + shares.length + quantiles;
try {
    bound.destroy();
} catch (error) {
    if (error instanceof MarginSoftmaxError && error.code === 'Limit') console.log(error.message, sum);
}

// @ts-expect-error `load` makes planners
new Planner();
await Planner.load({ wasm: new Uint8Array(8) });
// @ts-expect-error a misspelt setting
await Head.create(device, planner, { los: loss, shape });
// @ts-expect-error labels are whole numbers
await head.evaluate({ ...batch, labels: new Float32Array(1) });
// @ts-expect-error predictions need no labels
await predictor.predict({ embeddings: batch.embeddings, prototypes: batch.prototypes, labels: [1] });
// @ts-expect-error a predictor is made for a count
await Predictor.create(device, planner, { loss, shape });
// @ts-expect-error no such code
new MarginSoftmaxError().code === 'Limits';
