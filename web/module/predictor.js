// The nearest classes of embeddings without labels.

import { Bound } from './bound.js';
import { Compiled, Turns } from './compiled.js';
import { asked, fail, only } from './errors.js';
import { predictionResults, predictionsOf } from './predictions.js';
import { reportOf } from './report.js';
import { KINDS, Transfer, arraysOf, upload } from './transfer.js';

/** The tensors of a prediction; others of the plan are for rows with labels. */
const TENSORS = ['embeddings', 'prototypes', 'bias', 'predictedClasses', 'predictedCosines', 'logProbabilities', 'predictedSubCenters'];

/** The nearest classes of rows without labels, planned and compiled. */
export class Predictor extends Compiled {
    #turns = new Turns();
    #io;
    #bound;
    #transfer;

    /**
     * Plans and compiles. `settings`: `loss` (a name or plain data, of which scale, link and product are used), `shape` { rows, classes,
     * dim, sub_centers? }, `count` (k, the nearest classes of a row), and optionally `range` ([first, end], the classes that are looked
     * at), `elements`, `shards`, and `options`. `onProgress(done, total, name)` is called once before and once after every kernel.
     */
    static async create(device, planner, settings, hooks) {
        only('setting', settings, ['loss', 'shape', 'count', 'range', 'elements', 'shards', 'options']);
        only('option', settings.options ?? {}, ['budget', 'preset', 'tile', 'work_per_submit']);
        const { count, range, ...request } = settings;
        return this.make(device, planner, { ...request, predict: { count, range } }, hooks);
    }

    /** Frees the plan and what `predict` made. Bound sets are destroyed on their own. */
    destroy() {
        this.#bound?.destroy();
        Object.values(this.#io ?? {}).flat().forEach((buffer) => buffer.destroy());
        this.#transfer?.destroy();
        this.#bound = this.#io = undefined;
        super.destroy();
    }

    /** Bytes of the tensors that `bind` takes, by name: numbers, or a list for the prototypes. */
    bytes() {
        return Object.fromEntries(Object.entries(super.bytes()).filter(([name]) => TENSORS.includes(name)));
    }

    /** Binds the caller's buffers: embeddings, prototypes, bias, and those that are written. `recordForward` is all there is to record. */
    async bind(io) {
        return Bound.make(this, io);
    }

    /**
     * The nearest classes of each row of typed arrays; the number of rows follows from the embeddings. Its buffers are made
     * once; calls run one after the other. `loss`: the predictor's loss with other numbers.
     */
    predict(inputs, options = {}) {
        return this.#turns.run(async () => {
            only('option', options, ['loss', 'onProgress']);
            const { onProgress } = options;
            const loss = this.planner.loss(options.loss ?? this.loss);
            const arrays = this.#inputs(inputs, loss);
            const rows = arrays.embeddings.length / this.shape.dim;
            await this.#prepare();
            this.#bound.update(loss, { rows });
            if (this.#io.bias) arrays.bias ??= new Float32Array(this.plan.range[1] - this.plan.range[0]);
            upload(this, this.#io, arrays);
            const { report } = this.plan;
            const results = [
                { name: 'rows', ...this.#bound.workspace('rows'), size: rows * report.row.size * 4 },
                { name: 'batch', ...this.#bound.workspace('batch'), size: report.batch.size * 4 },
                ...predictionResults(this, this.#io, this.#bound, loss, rows),
            ];
            const found = await this.#transfer.run(this.#bound.forwardParts(), results, onProgress);
            return predictionsOf(this, loss, found, reportOf(this.plan, found.rows, found.batch));
        });
    }

    /** The arrays, checked as the crate checks slices. */
    #inputs(inputs, loss) {
        const { planned, elements, plan } = this;
        const { rows: most, dim, sub_centers } = this.shape;
        const own = plan.range[1] - plan.range[0];
        const rows = Math.ceil((inputs?.embeddings?.length ?? 0) / dim);
        const expected = {
            embeddings: [rows * dim, KINDS[elements.embeddings]],
            prototypes: [own * sub_centers * dim, KINDS[elements.prototypes]],
            bias: [own, KINDS.f32],
        };
        only('input', inputs ?? {}, Object.keys(expected));
        const found = arraysOf(inputs ?? {}, expected);
        if (rows > most) fail('Rows', `the batch has ${rows} rows, this head was made for at most ${most}`);
        const none = Array(3).fill(undefined);
        asked(() => planned.check(JSON.stringify(loss), new Int32Array(), ...none, undefined, found.bias, undefined, undefined, 0));
        return found;
    }

    async #prepare() {
        if (this.#bound) return;
        const known = this.bytes();
        this.#transfer ??= new Transfer(this.device);
        this.#io = await this.createBuffers(['predictedSubCenters', 'bias'].filter((name) => name in known));
        this.#bound = await this.bind(this.#io);
    }
}
