// A plan, compiled for a device: what heads and predictors share.

import { COPY_DST, COPY_SRC, STORAGE, alive, guarded, known, limitsOf, pipelineOf, sharedOf } from './device.js';
import { camel, fail } from './errors.js';
import { Planner } from './planner.js';

/** A plan and its pipelines. */
export class Compiled {
    #planned;

    /** Plans and compiles a request that lacks the device's limits; `onProgress` is called once before and once after every kernel. */
    static async make(device, planner, request, { onProgress } = {}) {
        known(device);
        if (!(planner instanceof Planner)) fail('Missing', '`planner` is no Planner: `await Planner.load()` makes one');
        alive(sharedOf(device));
        const { shape, elements } = request;
        const loss = planner.loss(request.loss);
        const planned = planner.plan({ ...request, loss, limits: limitsOf(device) });
        try {
            const plan = JSON.parse(planned.describe());
            const total = plan.kernels.length;
            let done = 0;
            onProgress?.(0, total, '');
            const pipelines = plan.kernels.map(async (kernel) => {
                const pipeline = await pipelineOf(device, kernel, plan.uniforms);
                onProgress?.(++done, total, kernel.name);
                return pipeline;
            });
            const made = new this();
            Object.assign(made, { device, planner, plan, loss, shape: { sub_centers: 1, ...shape } });
            made.elements = { embeddings: 'f32', prototypes: 'f32', ...elements };
            // every promise is waited for, so that none is rejected unseen
            const results = await Promise.allSettled(pipelines);
            made.pipelines = results.map(({ value, reason }) => {
                if (reason) throw reason;
                return value;
            });
            made.#planned = planned;
            return made;
        } catch (error) {
            planned.free();
            throw error;
        }
    }

    /** The planner's own plan. For this package. */
    get planned() {
        return this.#planned ?? fail('Missing', 'it was destroyed: make a new head or predictor');
    }

    /** Frees the plan. */
    destroy() {
        this.#planned?.free();
        this.#planned = undefined;
    }

    /** Bytes of the tensors that `bind` takes, by name: numbers, or lists for what comes in shards. */
    bytes(loss = this.loss) {
        const { shards, range, predictions, soft_labels } = this.plan;
        const { rows, classes, dim, sub_centers } = this.shape;
        const width = { f32: 4, f16: 2, bf16: 2 };
        const vectors = (count, bytes) => count * sub_centers * dim * bytes;
        const own = range[1] - range[0];
        const sizes = {
            embeddings: rows * dim * width[this.elements.embeddings],
            prototypes: shards.map((count) => vectors(count, width[this.elements.prototypes])),
            labels: rows * 4,
            classWeights: classes * 4,
            classMargins: classes * 16,
            rowMargins: rows * 16,
            rowWeights: rows * 4,
            softClasses: rows * soft_labels * 4,
            softWeights: rows * soft_labels * 4,
            bias: own * 4,
            state: 16,
            upstream: loss.reduction === 'none' ? rows * 4 : 4,
            loss: 4,
            rowLosses: rows * 4,
            logSumExps: rows * 4,
            predictedClasses: rows * predictions * 4,
            predictedCosines: rows * predictions * 4,
            logProbabilities: rows * predictions * 4,
            predictedSubCenters: rows * predictions * 4,
            gradEmbeddings: rows * dim * 4,
            gradPrototypes: shards.map((count) => vectors(count, 4)),
            gradScale: 4,
            gradBias: loss.product === 'linear' ? own * 4 : 4,
        };
        const planned = new Set(this.plan.buffers.filter((b) => b.role !== 'workspace').map((b) => camel(b.name)));
        return Object.fromEntries(Object.entries(sizes).filter(([name]) => planned.has(name)));
    }

    /** Buffers of these sizes for all that `bind` must be given; `also` names optional ones, such as `rowLosses`. */
    async createBuffers(also = [], usage = STORAGE | COPY_SRC | COPY_DST) {
        const needed = new Set(this.plan.buffers.filter((b) => b.role === 'given').map((b) => camel(b.name)));
        const all = this.bytes();
        for (const name of also) {
            if (!(name in all)) fail('Name', `\`${name}\` is no tensor of this head; known are: ${Object.keys(all).join(', ')}`);
            needed.add(name);
        }
        return guarded(this.device, () => {
            const make = (label, bytes) =>
                this.device.createBuffer({ label, size: Math.max(4, Math.ceil(bytes / 4) * 4), usage });
            const one = ([name, bytes]) => [name, Array.isArray(bytes) ? bytes.map((b) => make(name, b)) : make(name, bytes)];
            return Object.fromEntries(Object.entries(all).filter(([name]) => needed.has(name)).map(one));
        });
    }
}

/** Calls that run one after the other. */
export class Turns {
    #last = Promise.resolve();

    run(call) {
        const result = this.#last.then(call);
        this.#last = result.catch(() => {});
        return result;
    }
}
