// One loss trained on a GPUDevice: the head and the move of the dots are recorded together, several steps to a submit, and
// only positions and losses come back.

import { Head } from './margin-softmax.js';
import { strength } from './margin_softmax_demo.js';
import { MEAN_LENGTH } from './cpu.js';
import { CLASSES, DIM, ROWS, factors } from './motion.js';

/** The most steps in one submit. */
export const MAX_STEPS = 30;
/** Settings of one step and kind of vector: four words, at the offset that every device allows. */
const STRIDE = 256;

const motions = new WeakMap();

/** The kernel that moves dots; made once per device. */
function motion(device) {
    if (!motions.has(device)) motions.set(device, create(device));
    return motions.get(device);
}

async function create(device) {
    const code = await (await fetch(new URL('./motion.wgsl', import.meta.url))).text();
    const entry = (binding, buffer) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer });
    const layout = device.createBindGroupLayout({
        label: 'motion',
        entries: [
            entry(0, { type: 'uniform', hasDynamicOffset: true, minBindingSize: 16 }),
            entry(1, { type: 'read-only-storage' }),
            entry(2, { type: 'storage' }),
        ],
    });
    const pipeline = await device.createComputePipelineAsync({
        label: 'motion',
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module: device.createShaderModule({ label: 'motion', code }) },
    });
    return { layout, pipeline };
}

export class GpuRun {
    kind = 'gpu';

    /** Makes pipelines (told to `onProgress(done, total, name)`) and buffers. */
    static async create({ device, planner, loss, data, onProgress }) {
        const begun = performance.now();
        const shape = { rows: ROWS, classes: CLASSES, dim: DIM };
        const head = await Head.create(device, planner, { loss, shape }, { onProgress });
        const run = new GpuRun(device, head, await motion(device));
        run.wanted = loss;
        await run.restart(data);
        const kernels = head.plan.kernels.length;
        run.note = `${kernels} kernels ready after ${((performance.now() - begun) / 1000).toFixed(1)} s`;
        return run;
    }

    constructor(device, head, { layout, pipeline }) {
        Object.assign(this, { device, head, pipeline });
        // what waits for a lost device must not wait for ever
        device.lost.then(() => this.fail?.(new Error('the device is lost')));
        const { STORAGE, COPY_SRC, COPY_DST, UNIFORM, MAP_READ } = GPUBufferUsage;
        const buffer = (label, size, usage) => device.createBuffer({ label, size, usage });
        const tensor = (label, words) => buffer(label, 4 * words, STORAGE | COPY_SRC | COPY_DST);
        this.embeddings = tensor('dots', ROWS * DIM);
        this.prototypes = tensor('prototypes', CLASSES * DIM);
        this.labels = tensor('labels', ROWS);
        this.loss = tensor('loss', 1);
        this.gradEmbeddings = tensor('gradient of dots', ROWS * DIM);
        this.gradPrototypes = tensor('gradient of prototypes', CLASSES * DIM);
        this.settings = buffer('settings of the motion', 2 * MAX_STEPS * STRIDE, UNIFORM | COPY_DST);
        this.words = new ArrayBuffer(2 * MAX_STEPS * STRIDE);
        this.back = buffer('back', 4 * (ROWS * DIM + CLASSES * DIM + MAX_STEPS), MAP_READ | COPY_DST);
        const group = (gradients, vectors) =>
            device.createBindGroup({
                layout,
                entries: [{ buffer: this.settings, size: 16 }, { buffer: gradients }, { buffer: vectors }].map((resource, binding) => ({ binding, resource })),
            });
        this.groups = [group(this.gradEmbeddings, this.embeddings), group(this.gradPrototypes, this.prototypes)];
    }

    /** From these dots, with a fresh workspace: the loss' own state is in there. */
    async restart(data) {
        this.bound?.destroy();
        this.bound = await this.head.bind({
            embeddings: this.embeddings,
            prototypes: [this.prototypes],
            labels: this.labels,
            loss: this.loss,
            gradEmbeddings: this.gradEmbeddings,
            gradPrototypes: [this.gradPrototypes],
        });
        this.data = { embeddings: data.embeddings.slice(), prototypes: data.prototypes.slice(), labels: data.labels };
        this.device.queue.writeBuffer(this.embeddings, 0, this.data.embeddings);
        this.device.queue.writeBuffer(this.prototypes, 0, this.data.prototypes);
        this.device.queue.writeBuffer(this.labels, 0, this.data.labels);
        this.update(this.wanted);
    }

    /** New numbers for the loss: one queue write. Throws with the code `Recompile` where other kernels are needed. */
    update(loss) {
        this.bound.update(loss, { rows: ROWS, training: true });
        this.wanted = loss;
        this.drawn = Boolean(loss.adaptive?.elastic);
        this.strength = strength(JSON.stringify(loss), CLASSES, MEAN_LENGTH);
    }

    /** Trains `count` steps in one submit; `step` is the number of the first. */
    async run({ count, step, rate, jitter }) {
        const begun = performance.now();
        const factor = factors(rate, this.strength);
        const view = new DataView(this.words);
        for (let i = 0; i < count; i++) {
            [[factor.embeddings, jitter, ROWS], [factor.prototypes, 0, CLASSES]].forEach(([turn, noise, rows], kind) => {
                const at = (2 * i + kind) * STRIDE;
                view.setFloat32(at, turn, true);
                view.setFloat32(at + 4, noise, true);
                view.setUint32(at + 8, step + i, true);
                view.setUint32(at + 12, rows, true);
            });
        }
        this.device.queue.writeBuffer(this.settings, 0, this.words, 0, 2 * count * STRIDE);
        const [x, w] = [4 * ROWS * DIM, 4 * CLASSES * DIM];
        // margins that are drawn anew in every step are a queue write, which holds for all of a submit
        const each = this.drawn ? 1 : count;
        for (let first = 0; first < count; first += each) {
            if (this.drawn) this.bound.update(undefined, { step: step + first });
            const encoder = this.device.createCommandEncoder({ label: 'training' });
            for (let i = first; i < first + each; i++) this.record(encoder, i, x + w + 4 * i);
            if (first + each >= count) {
                encoder.copyBufferToBuffer(this.embeddings, 0, this.back, 0, x);
                encoder.copyBufferToBuffer(this.prototypes, 0, this.back, x, w);
            }
            this.device.queue.submit([encoder.finish()]);
        }
        await new Promise((done, fail) => {
            this.fail = fail;
            this.back.mapAsync(GPUMapMode.READ, 0, x + w + 4 * count).then(done, fail);
        });
        const bytes = this.back.getMappedRange(0, x + w + 4 * count).slice(0);
        this.back.unmap();
        this.data.embeddings = new Float32Array(bytes, 0, ROWS * DIM);
        this.data.prototypes = new Float32Array(bytes, x, CLASSES * DIM);
        return { losses: new Float32Array(bytes, x + w, count), milliseconds: (performance.now() - begun) / count };
    }

    /** Whether the device is lost; work on it may fail a moment before it says so. */
    lost() {
        const wait = new Promise((done) => setTimeout(done, 1000, false));
        return Promise.race([this.device.lost.then(() => true), wait]);
    }

    /** Records step `i` of a submit; its loss is copied to `at`. */
    record(encoder, i, at) {
        this.bound.recordForward(encoder);
        this.bound.recordBackward(encoder);
        encoder.copyBufferToBuffer(this.loss, 0, this.back, at, 4);
        const pass = encoder.beginComputePass({ label: 'motion' });
        pass.setPipeline(this.pipeline);
        [ROWS, CLASSES].forEach((rows, kind) => {
            pass.setBindGroup(0, this.groups[kind], [(2 * i + kind) * STRIDE]);
            pass.dispatchWorkgroups(Math.ceil(rows / 64));
        });
        pass.end();
    }

    destroy() {
        this.bound?.destroy();
        this.head.destroy();
        const own = ['embeddings', 'prototypes', 'labels', 'loss', 'gradEmbeddings', 'gradPrototypes', 'settings', 'back'];
        for (const name of own) this[name].destroy();
    }
}
