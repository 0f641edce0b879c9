// Typed arrays in, typed arrays out: what `Head.evaluate` does.

import { camel, fail } from './errors.js';
import { inputsOf } from './inputs.js';
import { isAmong, isSummed, predictionResults, predictionsOf } from './predictions.js';
import { reportOf, shareOf } from './report.js';
import { Transfer, upload } from './transfer.js';

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
        const inputs = inputsOf(this.#head, batch, how.loss);
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
