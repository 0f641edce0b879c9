// Typed arrays in, typed arrays out: what `Head.evaluate` does.

import { asked, camel, fail, only } from './errors.js';
import { isAmong, isSummed, predictionResults, predictionsOf } from './predictions.js';
import { reportOf, shareOf } from './report.js';
import { KINDS, Transfer, arraysOf, expectArray, upload } from './transfer.js';

const WHOLE = ['Int8', 'Uint8', 'Uint8Clamped', 'Int16', 'Uint16', 'Int32', 'Uint32', 'BigInt64', 'BigUint64'];
const LABELS = [...WHOLE.map((kind) => `${kind}Array`), 'Array'];

/** Classes as a device takes them, `count` to a row. */
const classesOf = (name, values, count, planned) => {
    const numbers = new Int32Array(values.length);
    for (let i = 0; i < values.length; i++) {
        const [value, row] = [values[i], Math.floor(i / count)];
        if (typeof value !== 'bigint' && !Number.isInteger(value)) {
            const found = typeof value === 'number' ? value : `a value of the type ${typeof value}`;
            fail('Element', `\`${name}\` holds ${found} in row ${row}, expected whole numbers`);
        }
        numbers[i] = Number(value);
        if (numbers[i] !== Number(value)) asked(() => planned.refuse_label(row, `${BigInt(value)}`));
    }
    return numbers;
};

/** Soft labels of so many rows, each array checked for its kind and length. */
const softOf = ({ plan, planned }, given, rows) => {
    const most = plan.soft_labels;
    if (most === 0) fail('Missing', '`options.soft_labels` is missing: the batch has soft labels');
    only('part of softLabels', given, ['classes', 'weights', 'count']);
    const { classes, weights, count = most } = given;
    if (!Number.isInteger(count) || count > most) {
        fail('Parameter', `\`softLabels.count\` is ${count}, allowed is at most options.soft_labels, ${most}`);
    }
    expectArray('softLabels.classes', classes, rows * count, LABELS);
    expectArray('softLabels.weights', weights, rows * count, KINDS.f32);
    return { count, classes: classesOf('softLabels.classes', classes, count, planned), weights };
};

/** The same with as many targets to a row as planned. */
const widened = ({ count, classes, weights }, rows, most) => {
    const softClasses = new Int32Array(rows * most).fill(-1);
    const softWeights = new Float32Array(rows * most);
    for (let row = 0; row < rows; row++) {
        softClasses.set(classes.subarray(row * count, (row + 1) * count), row * most);
        softWeights.set(weights.subarray(row * count, (row + 1) * count), row * most);
    }
    return { softClasses, softWeights };
};

/** Optional buffers that come back. */
const RETURNED = ['rowLosses', 'logSumExps', 'state', 'predictedSubCenters'];

/** What `Head.evaluate` keeps from call to call. */
export class Slices {
    #head;
    #io;
    #bound;
    #transfer;

    constructor(head) {
        this.#head = head;
        this.#transfer = new Transfer(head.device);
    }

    async run(batch, how) {
        const inputs = this.#inputs(batch, how.loss);
        const rows = inputs.labels.length;
        await this.#prepare(Object.keys(inputs));
        const flag = (name) => name in inputs;
        this.#bound.use(how, {
            rows,
            class_weights: flag('classWeights'),
            row_weights: flag('rowWeights'),
            divisor: batch.divisor,
            upstream: flag('upstream'),
            class_margins: flag('classMargins'),
            row_margins: flag('rowMargins'),
            soft_labels: flag('softClasses'),
        });
        if (this.#io.bias) inputs.bias ??= new Float32Array(this.#head.shape.classes);
        upload(this.#head, this.#io, inputs);
        const found = await this.#transfer.run(this.#bound.allParts(), this.#results(rows, how), how.onProgress);
        return this.#output(found, inputs.labels, how.loss);
    }

    /** What comes back. */
    #results(rows, { loss, training }) {
        const [head, io, bound] = [this.#head, this.#io, this.#bound];
        const sizes = head.bytes();
        const { report } = head.plan;
        const results = [
            { name: 'rows', ...bound.workspace('rows'), size: rows * report.row.size * 4 },
            { name: 'batch', ...bound.workspace('batch'), size: report.batch.size * 4 },
        ];
        const result = (name, bytes) => {
            for (const [i, buffer] of [io[name]].flat().entries()) {
                if (buffer) results.push({ name, buffer, size: [bytes].flat()[i] });
            }
        };
        result('loss', 4);
        result('rowLosses', rows * 4);
        if (isSummed(loss)) result('logSumExps', rows * 4);
        if (head.plan.predictions > 0) results.push(...predictionResults(head, io, bound, loss, rows));
        if (sizes.gradEmbeddings) result('gradEmbeddings', rows * head.shape.dim * 4);
        for (const name of ['gradPrototypes', 'gradScale', 'gradBias']) {
            if (sizes[name]) result(name, sizes[name]);
        }
        if (training) result('state', 16);
        return results;
    }

    #output(found, labels, loss) {
        const { plan } = this.#head;
        const floats = (name) => new Float32Array(found[name] ?? 0);
        const report = reportOf(plan, found.rows, found.batch);
        const { targetCosines, otherCosines, normalizer, counts } = report;
        const rowLosses = floats('rowLosses');
        const share = (right) => shareOf(rowLosses, (i) => labels[i] === loss.ignore_index, right);
        const out = { loss: floats('loss')[0], rowLosses, targetCosines, otherCosines, normalizer, counts };
        out.accuracy = share((i) => targetCosines[i] > otherCosines[i]);
        if (isSummed(loss)) out.logSumExps = floats('logSumExps');
        if (plan.predictions > 0) {
            out.predictions = predictionsOf(this.#head, loss, found, report);
            const accuracy = share((i) => isAmong(out.predictions, i, labels[i]));
            out.topK = { count: plan.predictions, accuracy };
        }
        const sizes = this.#head.bytes();
        for (const name of ['gradEmbeddings', 'gradPrototypes', 'gradBias']) {
            if (sizes[name]) out[name] = floats(name);
        }
        if (found.gradScale) out.gradScale = floats('gradScale')[0];
        return { ...out, numbers: found.state && floats('state') };
    }

    /** The arrays, checked: their kinds and lengths here, what they hold by the planner, as the crate checks slices. */
    #inputs(batch, loss) {
        const { shape, elements, plan, planned } = this.#head;
        const { rows: most, classes, dim, sub_centers } = shape;
        const labels = batch?.labels;
        if (labels === undefined || labels === null) fail('Missing', '`labels` is missing: an array with one whole number per row');
        if (batch.state !== undefined) fail('Name', '`state` is no input: set head.state');
        const rows = labels.length;
        const expected = {
            labels: [rows, LABELS],
            embeddings: [rows * dim, KINDS[elements.embeddings]],
            prototypes: [classes * sub_centers * dim, KINDS[elements.prototypes]],
            classWeights: [classes, KINDS.f32],
            rowWeights: [rows, KINDS.f32],
            classMargins: [classes * 4, KINDS.f32],
            rowMargins: [rows * 4, KINDS.f32],
            bias: [classes, KINDS.f32],
            upstream: [loss.reduction === 'none' ? rows : 1, KINDS.f32],
        };
        only('input', batch, [...Object.keys(expected), 'divisor', 'softLabels']);
        if (!['undefined', 'number'].includes(typeof batch.divisor)) fail('Element', '`divisor` is no number');
        if (rows > most) fail('Rows', `the batch has ${rows} rows, this head was made for at most ${most}`);
        const found = arraysOf(batch, expected);
        found.labels = classesOf('labels', labels, 1, planned);
        const soft = batch.softLabels && softOf(this.#head, batch.softLabels, rows);
        const { classWeights, rowWeights, upstream, bias, classMargins, rowMargins } = found;
        const small = [classWeights, rowWeights, batch.divisor, upstream, bias, classMargins, rowMargins];
        asked(() => planned.check(JSON.stringify(loss), found.labels, ...small, soft?.count ?? 0, soft?.classes, soft?.weights));
        return soft ? { ...found, ...widened(soft, rows, plan.soft_labels) } : found;
    }

    /** Binds again where an input comes that has no buffer yet. */
    async #prepare(names) {
        const optional = names.filter((name) => !['embeddings', 'prototypes', 'labels'].includes(name));
        if (this.#bound && optional.every((name) => this.#io[name])) return;
        const kept = Object.keys(this.#io ?? {}).filter((name) => name in this.#head.bytes());
        const asked = this.#head.plan.buffers.filter((b) => b.role === 'optional').map((b) => camel(b.name));
        this.destroy();
        const also = asked.filter((name) => RETURNED.includes(name) || optional.includes(name) || kept.includes(name));
        const missing = optional.find((name) => !asked.includes(name));
        if (missing) fail('Combination', `\`${missing}\`: this head has no use for it`);
        this.#io = await this.#head.createBuffers(also);
        this.#bound = await this.#head.bind(this.#io);
    }

    destroy() {
        this.#bound?.destroy();
        Object.values(this.#io ?? {}).flat().forEach((buffer) => buffer.destroy());
        this.#transfer.destroy();
        this.#bound = this.#io = undefined;
    }
}
