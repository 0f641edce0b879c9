// Companions of a head on a device: penalties on the prototypes, and the center loss.

import { Bound } from './bound.js';
import { Compiled, Turns } from './compiled.js';
import { MarginSoftmaxError, asked, fail, only } from './errors.js';
import { LABELS, classesOf } from './inputs.js';
import { KINDS, Transfer, expectArray, upload } from './transfer.js';

const REGULARIZERS = ['reg_ss', 'uniform_face'];

/** A plan of a companion with its buffers, for calls over typed arrays. */
class Companion extends Compiled {
    #io;
    #bound;
    #transfer;

    /** The bytes of the results by name, after the given arrays went to the device. */
    async run(arrays, results, rows) {
        if (!this.#bound) {
            this.#transfer = new Transfer(this.device);
            this.#io = await this.createBuffers();
            this.#bound = await Bound.make(this, this.#io);
        }
        this.#bound.update(undefined, { rows });
        upload(this, this.#io, arrays);
        const wanted = results.map(([name, size]) => ({ name, buffer: [this.#io[name]].flat()[0], size }));
        return this.#transfer.run(this.#bound.forwardParts(), wanted);
    }

    destroy() {
        this.#bound?.destroy();
        Object.values(this.#io ?? {}).flat().forEach((buffer) => buffer.destroy());
        this.#transfer?.destroy();
        this.#bound = this.#io = undefined;
        super.destroy();
    }
}

/** Whether `value` is an object with names, not a list. */
const isPlain = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Name and weight of a regulariser: its name, or plain data as in the crate's JSON. */
const regularizerOf = (given) => {
    const [[name, numbers] = [], ...more] = isPlain(given) ? Object.entries(given) : [[given, {}]];
    if (!REGULARIZERS.includes(name) || more.length > 0) {
        fail('Name', `\`${name}\` is not a known regularizer; known are: ${REGULARIZERS.join(', ')}`);
    }
    only(`number of ${name}`, numbers, ['weight']);
    return { name, weight: numberOf('weight', numbers.weight ?? 1) };
};

/** JSON has no NaN: the planner would be given null. */
const numberOf = (name, value) => (Number.isFinite(value) ? value : fail('Parameter', `\`${name}\` is ${value}, expected a finite number`));

/** A penalty on the prototypes alone, planned and compiled. */
export class Regularizer {
    #plan;
    #turns = new Turns();

    /**
     * Plans and compiles. `settings`: `regularizer` ('reg_ss', 'uniform_face', or with a weight { reg_ss: { weight } }), `shape`
     * { classes, dim }, and optionally `element`, how the prototypes are stored. `onProgress(done, total, name)` is called once
     * before and once after every kernel.
     */
    static async create(device, planner, settings, hooks) {
        only('setting', settings, ['regularizer', 'shape', 'element']);
        const { name, weight } = regularizerOf(settings.regularizer);
        only('size', settings.shape ?? {}, ['classes', 'dim']);
        const { shape, element = 'f32' } = settings;
        // the weight travels as a scale
        const request = { loss: { scale: weight }, auxiliary: name, shape: { rows: 1, ...shape }, elements: { prototypes: element } };
        const made = new Regularizer();
        made.#plan = await Companion.make(device, planner, request, hooks);
        return made;
    }

    /** The plan of the kernels and their buffers. */
    get plan() {
        return this.#plan.plan;
    }

    /** Binds `prototypes`, `gradPrototypes` and `loss`, where value and gradient are written; `recordForward` is all there is to record. */
    async bind(io) {
        return Bound.make(this.#plan, io);
    }

    /** The value and its gradient at prototypes [C, D], a typed array. Buffers are made once; calls run one after the other. */
    evaluate(prototypes) {
        return this.#turns.run(async () => {
            const { classes, dim } = this.#plan.shape;
            expectArray('prototypes', prototypes, classes * dim, KINDS[this.#plan.elements.prototypes]);
            const results = [['loss', 4], ['gradPrototypes', classes * dim * 4]];
            const found = await this.#plan.run({ prototypes }, results, 1);
            return { value: new Float32Array(found.loss)[0], gradient: new Float32Array(found.gradPrototypes) };
        });
    }

    /** Frees the plan and what `evaluate` made. */
    destroy() {
        this.#plan.destroy();
    }
}

/** The planner and the device call centers prototypes. */
const ofCenters = async (call) => {
    try {
        return await call();
    } catch (error) {
        if (!(error instanceof MarginSoftmaxError)) throw error;
        throw new MarginSoftmaxError(error.code, error.message.replaceAll('`prototypes`', '`centers`'), { cause: error });
    }
};

/** The center loss, planned and compiled: its loss with a gradient, and the move of the centers. */
export class CenterLoss {
    #pull;
    #move;
    #turns = new Turns();

    /**
     * Plans and compiles. `settings`: `shape` { rows, classes, dim }, and optionally `loss` { weight, rate, ignore_index } as in the
     * crate's JSON, and `element`, how the embeddings are stored; centers are f32. At most 32,768 rows.
     */
    static async create(device, planner, settings, hooks) {
        only('setting', settings, ['loss', 'shape', 'element']);
        const { loss = {}, shape, element = 'f32' } = settings;
        only('number of the center loss', loss, ['weight', 'rate', 'ignore_index']);
        only('size', shape ?? {}, ['rows', 'classes', 'dim']);
        const { weight = 0.02, rate = 0.5, ignore_index = null } = loss;
        const made = new CenterLoss();
        // a weight or a rate travels as a scale
        const part = (auxiliary, name, scale) => {
            const request = { loss: { scale: numberOf(name, scale), ignore_index }, auxiliary, shape, elements: { embeddings: element } };
            return ofCenters(() => Companion.make(device, planner, request, hooks));
        };
        made.#pull = await part('center_loss', 'weight', weight);
        made.#move = await part('center_update', 'rate', rate).catch((error) => {
            made.#pull.destroy();
            throw error;
        });
        return made;
    }

    /** Binds `embeddings`, `labels`, `centers`, and `loss` and `gradEmbeddings`, where loss and gradient are written. */
    async bind(io) {
        return this.#bind(this.#pull, io);
    }

    /** Binds `embeddings`, `labels` and `centers`, which move in place: to be recorded once a step. */
    async bindMove(io) {
        return this.#bind(this.#move, io);
    }

    #bind(plan, io) {
        const { centers, prototypes, ...rest } = io ?? {};
        if (prototypes) fail('Name', '`prototypes` is no tensor of a center loss: it has `centers`');
        return ofCenters(() => Bound.make(plan, { ...rest, prototypes: centers }));
    }

    /** Loss and gradient of a batch of typed arrays: embeddings [N, D], labels [N], centers [C, D]. The centers stay. */
    evaluate(batch) {
        return this.#turns.run(async () => {
            const { arrays, rows } = this.#inputs(batch);
            const size = rows * this.#pull.shape.dim * 4;
            // WebGPU dispatches nothing where there is no row
            if (rows === 0) return { loss: 0, gradEmbeddings: new Float32Array() };
            const found = await this.#pull.run(arrays, [['loss', 4], ['gradEmbeddings', size]], rows);
            return { loss: new Float32Array(found.loss)[0], gradEmbeddings: new Float32Array(found.gradEmbeddings) };
        });
    }

    /** The centers after one move towards the embeddings of their classes: a new array. Classes without rows stay. */
    moved(batch) {
        return this.#turns.run(async () => {
            const { arrays, rows } = this.#inputs(batch);
            if (rows === 0) return arrays.prototypes.slice();
            const found = await this.#move.run(arrays, [['prototypes', arrays.prototypes.byteLength]], rows);
            return new Float32Array(found.prototypes);
        });
    }

    /** The arrays, checked as the crate checks slices. */
    #inputs(batch) {
        const { shape, elements, planned, loss } = this.#pull;
        const { rows: most, classes, dim } = shape;
        only('input', batch ?? {}, ['embeddings', 'labels', 'centers']);
        const { embeddings, labels, centers } = batch ?? {};
        for (const [name, values] of Object.entries({ embeddings, labels, centers })) {
            if (values === undefined || values === null) fail('Missing', `\`${name}\` is missing: an array, row after row`);
        }
        const rows = labels.length;
        expectArray('labels', labels, rows, LABELS);
        expectArray('embeddings', embeddings, rows * dim, KINDS[elements.embeddings]);
        expectArray('centers', centers, classes * dim, KINDS.f32);
        if (rows > most) fail('Rows', `the batch has ${rows} rows, this center loss was made for at most ${most}`);
        const numbers = classesOf('labels', labels, 1, planned);
        asked(() => planned.check(JSON.stringify(loss), numbers, ...Array(7).fill(undefined), 0));
        return { arrays: { embeddings, labels: numbers, prototypes: centers }, rows };
    }

    /** Frees the plans and what the calls made. */
    destroy() {
        this.#pull.destroy();
        this.#move.destroy();
    }
}
