// Typed arrays in, typed arrays out: what `Head.evaluate` does.

import { COPY_DST, MAP_READ, READ, guarded } from './device.js';
import { asked, camel, fail, only } from './errors.js';

const WHOLE = ['Int8', 'Uint8', 'Uint8Clamped', 'Int16', 'Uint16', 'Int32', 'Uint32', 'BigInt64', 'BigUint64'];
const LABELS = [...WHOLE.map((kind) => `${kind}Array`), 'Array'];

/** `Float32Array` and the like; subclasses and arrays of other windows have the name of their kind. */
const kindOf = (values) => Object.prototype.toString.call(values).slice(8, -1);

/** Labels as a device takes them. */
const labelsOf = (labels, planned) => {
    const numbers = new Int32Array(labels.length);
    for (let row = 0; row < labels.length; row++) {
        const label = labels[row];
        if (typeof label !== 'bigint' && !Number.isInteger(label)) {
            const found = typeof label === 'number' ? label : `a value of the type ${typeof label}`;
            fail('Element', `\`labels\` holds ${found} in row ${row}, expected whole numbers`);
        }
        numbers[row] = Number(label);
        if (numbers[row] !== Number(label)) asked(() => planned.refuse_label(row, `${BigInt(label)}`));
    }
    return numbers;
};

/** The nearest classes of each row: their fields in the output by their names among the buffers. */
const PREDICTED = {
    predictedClasses: 'classes',
    predictedCosines: 'cosines',
    logProbabilities: 'logProbabilities',
    predictedSubCenters: 'subCenters',
};
/** Whole numbers; all other results are f32. */
const INTEGERS = ['predictedClasses', 'predictedSubCenters'];
/** Optional buffers that come back. */
const RETURNED = ['rowLosses', 'logSumExps', 'state', 'predictedSubCenters'];

/** What `Head.evaluate` keeps from call to call. */
export class Slices {
    #head;
    #planned;
    #io;
    #bound;
    #staging;

    constructor(head, planned) {
        this.#head = head;
        this.#planned = planned;
    }

    async run(batch, how) {
        const { device, shape } = this.#head;
        const inputs = this.#inputs(batch, how.loss);
        const rows = inputs.labels.length;
        await this.#prepare(Object.keys(inputs));
        const { queue } = device;
        const flag = (name) => name in inputs;
        this.#bound.use(how, {
            rows,
            class_weights: flag('classWeights'),
            row_weights: flag('rowWeights'),
            divisor: batch.divisor,
            upstream: flag('upstream'),
            class_margins: flag('classMargins'),
            row_margins: flag('rowMargins'),
        });
        if (this.#io.bias) inputs.bias ??= new Float32Array(shape.classes);
        for (const [name, values] of Object.entries(inputs)) {
            let first = 0;
            for (const buffer of [this.#io[name]].flat()) {
                const count = name === 'prototypes' ? Math.min(values.length - first, this.#shardLength(buffer)) : values.length;
                upload(queue, buffer, values.subarray(first, first + count));
                first += count;
            }
        }

        // what comes back, one after the other in one staging buffer
        const results = [];
        let end = 0;
        const result = (name, bytes) => {
            for (const [i, buffer] of [this.#io[name]].flat().entries()) {
                const size = [bytes].flat()[i];
                if (buffer && size > 0) results.push({ name, buffer, size, at: end });
                end += size;
            }
        };
        const { dim } = shape;
        const sizes = this.#head.bytes();
        result('loss', 4);
        result('rowLosses', rows * 4);
        if (how.loss.link === 'softmax') result('logSumExps', rows * 4);
        const { predictions } = this.#head;
        if (predictions) Object.keys(PREDICTED).forEach((name) => result(name, rows * predictions * 4));
        if (sizes.gradEmbeddings) result('gradEmbeddings', rows * dim * 4);
        for (const name of ['gradPrototypes', 'gradScale', 'gradBias']) {
            if (sizes[name]) result(name, sizes[name]);
        }
        if (how.training) result('state', 16);
        const staging = await this.#stage(end);
        const parts = this.#bound.allParts();
        const tell = (done) => {
            const more = how.onProgress?.(done, parts.length);
            if (more === false) fail('Cancelled', 'the progress callback stopped the call');
        };
        const submitted = (part, then) =>
            guarded(device, () => {
                const encoder = device.createCommandEncoder({ label: 'margin-softmax' });
                parts[part](encoder);
                if (part === parts.length - 1) {
                    for (const { buffer, size, at } of results) encoder.copyBufferToBuffer(buffer, 0, staging, at, size);
                }
                queue.submit([encoder.finish()]);
                return then();
            });
        // one at a time, so that the page's own work comes between
        for (let part = 0; part < parts.length - 1; part++) {
            await submitted(part, () => queue.onSubmittedWorkDone());
            tell(part + 1);
        }
        const map = () => staging.mapAsync(READ, 0, end).then(() => staging.getMappedRange(0, end));
        const mapped = await submitted(parts.length - 1, map).catch((error) => {
            this.#staging = undefined; // whatever state it is in
            throw error;
        });
        try {
            tell(parts.length);
        } catch (error) {
            staging.unmap(); // the next call's
            throw error;
        }
        const out = {};
        for (const name of new Set(results.map((r) => r.name))) {
            const parts = results.filter((r) => r.name === name);
            const bytes = parts.reduce((sum, part) => sum + part.size, 0);
            const kind = INTEGERS.includes(name) ? Int32Array : Float32Array;
            out[name] = new kind(mapped.slice(parts[0].at, parts[0].at + bytes));
        }
        staging.unmap();
        out.rowLosses ??= new Float32Array();
        if (sizes.gradEmbeddings) out.gradEmbeddings ??= new Float32Array();
        out.loss = out.loss[0];
        if (out.gradScale) out.gradScale = out.gradScale[0];
        const { state: numbers, ...rest } = out;
        if (predictions) {
            rest.predictions = { count: predictions };
            for (const [name, field] of Object.entries(PREDICTED)) {
                rest.predictions[field] = rest[name] ?? new (INTEGERS.includes(name) ? Int32Array : Float32Array)();
                delete rest[name];
            }
        }
        return { ...rest, numbers };
    }

    /** The arrays, checked: their kinds and lengths here, what they hold by the planner, as the crate checks slices. */
    #inputs(batch, loss) {
        const { shape, elements } = this.#head;
        const { rows: most, classes, dim, sub_centers } = shape;
        const labels = batch?.labels;
        if (labels === undefined || labels === null) fail('Missing', '`labels` is missing: an array with one whole number per row');
        if (batch.state !== undefined) fail('Name', '`state` is no input: set head.state');
        const rows = labels.length;
        const kinds = {
            f32: ['Float32Array'],
            f16: ['Float16Array', 'Uint16Array'],
            bf16: ['Uint16Array'],
        };
        const counts = {
            labels: [rows, LABELS],
            embeddings: [rows * dim, kinds[elements.embeddings]],
            prototypes: [classes * sub_centers * dim, kinds[elements.prototypes]],
            classWeights: [classes, kinds.f32],
            rowWeights: [rows, kinds.f32],
            classMargins: [classes * 4, kinds.f32],
            rowMargins: [rows * 4, kinds.f32],
            bias: [classes, kinds.f32],
            upstream: [loss.reduction === 'none' ? rows : 1, kinds.f32],
        };
        only('input', batch, [...Object.keys(counts), 'divisor']);
        if (!['undefined', 'number'].includes(typeof batch.divisor)) fail('Element', '`divisor` is no number');
        const found = {};
        for (const [name, [count, types]] of Object.entries(counts)) {
            const values = batch[name];
            if (values === undefined || values === null) continue;
            const type = kindOf(values);
            if (!types.includes(type)) fail('Element', `\`${name}\` is a ${type}, expected a ${types.join(' or ')}`);
            if (name === 'labels' && rows > most) fail('Rows', `the batch has ${rows} rows, this head was made for at most ${most}`);
            if (values.length !== count) fail('Length', `\`${name}\` has ${values.length} values, expected ${count}`);
            found[name] = values;
        }
        for (const name of ['embeddings', 'prototypes']) {
            if (!found[name]) fail('Missing', `\`${name}\` is missing: a typed array, row after row`);
        }
        found.labels = labelsOf(labels, this.#planned);
        const { classWeights, rowWeights, upstream, bias, classMargins, rowMargins } = found;
        const small = [classWeights, rowWeights, batch.divisor, upstream, bias, classMargins, rowMargins];
        asked(() => this.#planned.check(JSON.stringify(loss), found.labels, ...small));
        return found;
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

    async #stage(bytes) {
        if (!this.#staging || this.#staging.size < bytes) {
            this.#staging?.destroy();
            const size = Math.ceil(bytes / 4) * 4;
            this.#staging = await guarded(this.#head.device, () =>
                this.#head.device.createBuffer({ label: 'staging', size, usage: MAP_READ | COPY_DST }),
            );
        }
        return this.#staging;
    }

    #shardLength(buffer) {
        const i = this.#io.prototypes.indexOf(buffer);
        return this.#head.plan.shards[i] * this.#head.shape.sub_centers * this.#head.shape.dim;
    }

    destroy() {
        this.#bound?.destroy();
        Object.values(this.#io ?? {}).flat().forEach((buffer) => buffer.destroy());
        this.#staging?.destroy();
        this.#bound = this.#io = this.#staging = undefined;
    }
}

/** Queues a write; a last odd half-word is padded. */
const upload = (queue, buffer, values) => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    if (bytes.length % 4 === 0) {
        queue.writeBuffer(buffer, 0, bytes);
    } else {
        const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
        padded.set(bytes);
        queue.writeBuffer(buffer, 0, padded);
    }
};
