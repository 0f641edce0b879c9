// A planned head, compiled.

import { Bound } from './bound.js';
import { COPY_DST, COPY_SRC, STORAGE, alive, guarded, known, limitsOf, pipelineOf, sharedOf } from './device.js';
import { camel, fail, only } from './errors.js';
import { Planner } from './planner.js';
import { Slices } from './slices.js';
import { firstState, movedState, stateOf } from './state.js';

/** A planned head, compiled: bind it to any number of sets of buffers. */
export class Head {
    #planned;
    #slices;
    #state;
    #turn = Promise.resolve();
    #pending = 0;

    /**
     * Plans and compiles. `settings`: `loss` (a name or plain data), `shape` { rows, classes, dim, sub_centers? }, and
     * optionally `want`, `elements`, `shards`, `options`, all spelled as in the crate's JSON. `onProgress(done, total,
     * name)` is called once before and once after every kernel.
     */
    static async create(device, planner, settings, { onProgress } = {}) {
        known(device);
        if (!(planner instanceof Planner)) fail('Missing', '`planner` is no Planner: `await Planner.load()` makes one');
        alive(sharedOf(device));
        only('setting', settings, ['loss', 'shape', 'want', 'elements', 'shards', 'options']);
        const { loss, shape, want, elements, shards, options } = settings;
        const own = planner.loss(loss);
        const request = { loss: own, shape, want, elements, shards, options, limits: limitsOf(device) };
        const planned = planner.plan(request);
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
            const head = new Head();
            Object.assign(head, { device, planner, plan, loss: own, shape: { sub_centers: 1, ...shape } });
            head.predictions = options?.predictions ?? 0;
            head.elements = { embeddings: 'f32', prototypes: 'f32', ...elements };
            // every promise is waited for, so that none is rejected unseen
            const results = await Promise.allSettled(pipelines);
            head.pipelines = results.map(({ value, reason }) => {
                if (reason) throw reason;
                return value;
            });
            head.#planned = planned;
            head.#state = firstState(planned, own, shape.classes);
            return head;
        } catch (error) {
            planned.free();
            throw error;
        }
    }

    /** Frees the plan and what `evaluate` made. Bound sets are destroyed on their own. */
    destroy() {
        this.#slices?.destroy();
        this.#slices = undefined;
        this.#planned?.free();
        this.#planned = undefined;
    }

    /** Bytes of the tensors that `bind` takes, by name: numbers, or lists for what comes in shards. */
    bytes(loss = this.loss) {
        const { rows, classes, dim, sub_centers } = this.shape;
        const width = { f32: 4, f16: 2, bf16: 2 };
        const vectors = (count, bytes) => count * sub_centers * dim * bytes;
        const sizes = {
            embeddings: rows * dim * width[this.elements.embeddings],
            prototypes: this.plan.shards.map((count) => vectors(count, width[this.elements.prototypes])),
            labels: rows * 4,
            classWeights: classes * 4,
            classMargins: classes * 16,
            rowMargins: rows * 16,
            rowWeights: rows * 4,
            bias: classes * 4,
            state: 16,
            upstream: loss.reduction === 'none' ? rows * 4 : 4,
            loss: 4,
            rowLosses: rows * 4,
            logSumExps: rows * 4,
            predictedClasses: rows * this.predictions * 4,
            predictedCosines: rows * this.predictions * 4,
            logProbabilities: rows * this.predictions * 4,
            predictedSubCenters: rows * this.predictions * 4,
            gradEmbeddings: rows * dim * 4,
            gradPrototypes: this.plan.shards.map((count) => vectors(count, 4)),
            gradScale: 4,
            gradBias: loss.product === 'linear' ? classes * 4 : 4,
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

    /**
     * Allocates a workspace and binds the caller's buffers: `GPUBuffer`s or `{ buffer, offset, size }`. Two bound sets are
     * independent of each other and may be recorded into one submit.
     */
    async bind(io) {
        return Bound.make(this, this.#plan(), io);
    }

    /**
     * What a run must keep: training steps so far, the seed of what is drawn, and what follows the batches; spelled as the
     * crate's `State` in JSON. Moved by training calls of `evaluate` that succeed, only read by all others. Set it to go on
     * from a state that was kept; while a call is under way it can only be read.
     */
    get state() {
        return { ...this.#state };
    }

    set state(state) {
        const checked = stateOf(this.#plan(), state);
        if (this.#pending > 0) fail('Combination', 'state: a call of evaluate is under way; await it first');
        this.#state = checked;
    }

    /**
     * Loss and gradients of one batch of typed arrays: uploads, records, submits, reads back. Its buffers are made once;
     * calls run one after the other. `loss`: the head's loss with other numbers. `training`: a training step:
     * `state` moves first, then the step counts; an error leaves it as it was. With `options.work_per_submit` the work is
     * submitted in parts, one when the one before is done; `onProgress(done, total)` is called after each;
     * `false` stops the call.
     */
    evaluate(batch, options = {}) {
        this.#pending += 1;
        const run = async () => {
            try {
                const planned = this.#plan();
                if (options.step !== undefined || options.seed !== undefined) {
                    fail('Name', '`step` and `seed` are no options of evaluate: set them in head.state');
                }
                only('option', options, ['loss', 'training', 'onProgress']);
                const { loss = this.loss, training = false, onProgress } = options;
                this.#slices ??= new Slices(this, planned);
                const how = { loss: this.planner.loss(loss), training, state: this.#state, onProgress };
                const { numbers, ...out } = await this.#slices.run(batch, how);
                if (training) this.#state = movedState(this.#state, numbers);
                return out;
            } finally {
                this.#pending -= 1;
            }
        };
        const result = this.#turn.then(run);
        this.#turn = result.catch(() => {});
        return result;
    }

    #plan() {
        return this.#planned ?? fail('Missing', 'this head was destroyed: make a new one');
    }
}
