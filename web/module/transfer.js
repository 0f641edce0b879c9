// Typed arrays to a device and back.

import { COPY_DST, MAP_READ, READ, guarded } from './device.js';
import { fail } from './errors.js';

/** `Float32Array` and the like; subclasses and arrays of other windows have the name of their kind. */
export const kindOf = (values) => Object.prototype.toString.call(values).slice(8, -1);

/** The typed arrays that hold an element. */
export const KINDS = {
    f32: ['Float32Array'],
    f16: ['Float16Array', 'Uint16Array'],
    bf16: ['Uint16Array'],
};

/** Refuses an array of another kind or length. */
export const expectArray = (name, values, count, kinds) => {
    const kind = kindOf(values);
    if (!kinds.includes(kind)) fail('Element', `\`${name}\` is a ${kind}, expected a ${kinds.join(' or ')}`);
    if (values.length !== count) fail('Length', `\`${name}\` has ${values.length} values, expected ${count}`);
};

/** Of a batch, the arrays that are there, each of its kind and length; embeddings and prototypes must be. */
export const arraysOf = (batch, expected) => {
    const found = {};
    for (const [name, [count, kinds]] of Object.entries(expected)) {
        const values = batch[name];
        if (values === undefined || values === null) continue;
        expectArray(name, values, count, kinds);
        found[name] = values;
    }
    for (const name of ['embeddings', 'prototypes']) {
        if (!found[name]) fail('Missing', `\`${name}\` is missing: a typed array, row after row`);
    }
    return found;
};

/** Queues the writes of arrays into buffers of these names; prototypes go to those of their shards. */
export const upload = ({ device, plan, shape }, io, arrays) => {
    for (const [name, values] of Object.entries(arrays)) {
        let first = 0;
        for (const [i, buffer] of [io[name]].flat().entries()) {
            const count = name === 'prototypes' ? plan.shards[i] * shape.sub_centers * shape.dim : values.length;
            write(device.queue, buffer, values.subarray(first, first + count));
            first += count;
        }
    }
};

/** Queues a write; a last odd half-word is padded. */
const write = (queue, buffer, values) => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    if (bytes.length % 4 === 0) {
        queue.writeBuffer(buffer, 0, bytes);
    } else {
        const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
        padded.set(bytes);
        queue.writeBuffer(buffer, 0, padded);
    }
};

/** Submits, and reads back through a buffer that is kept from call to call. */
export class Transfer {
    #device;
    #staging;

    constructor(device) {
        this.#device = device;
    }

    /**
     * Submits parts of work, one when the one before is done, and returns the bytes of the results by name. `results` are
     * { name, buffer, offset, size }; those of one name are joined, and those without bytes left out.
     */
    async run(parts, results, onProgress) {
        const device = this.#device;
        const copies = [];
        let end = 0;
        for (const { name, buffer, offset = 0, size } of results) {
            if (size > 0) copies.push({ name, buffer, offset, size, at: end });
            end += size;
        }
        const staging = await this.#stage(end);
        const tell = (done) => {
            if (onProgress?.(done, parts.length) === false) fail('Cancelled', 'the progress callback stopped the call');
        };
        const submitted = (part, then) =>
            guarded(device, () => {
                const encoder = device.createCommandEncoder({ label: 'margin-softmax' });
                parts[part](encoder);
                if (part === parts.length - 1) {
                    for (const { buffer, offset, size, at } of copies) encoder.copyBufferToBuffer(buffer, offset, staging, at, size);
                }
                device.queue.submit([encoder.finish()]);
                return then();
            });
        // one at a time, so that the page's own work comes between
        for (let part = 0; part < parts.length - 1; part++) {
            await submitted(part, () => device.queue.onSubmittedWorkDone());
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
        const found = {};
        for (const name of new Set(copies.map((copy) => copy.name))) {
            const own = copies.filter((copy) => copy.name === name);
            const { at, size } = own.at(-1);
            found[name] = mapped.slice(own[0].at, at + size);
        }
        staging.unmap();
        return found;
    }

    async #stage(bytes) {
        if (!this.#staging || this.#staging.size < bytes) {
            this.#staging?.destroy();
            const size = Math.ceil(bytes / 4) * 4;
            this.#staging = await guarded(this.#device, () =>
                this.#device.createBuffer({ label: 'staging', size, usage: MAP_READ | COPY_DST }),
            );
        }
        return this.#staging;
    }

    destroy() {
        this.#staging?.destroy();
        this.#staging = undefined;
    }
}
