// The caller's buffers: whether they can be bound.

import { COMPUTE, STORAGE } from './device.js';
import { MarginSoftmaxError, camel, fail } from './errors.js';

/** The range of a caller's buffer that is bound, or why it cannot be. */
export const rangeOf = (given, name, bytes, device) => {
    const { buffer, offset = 0, size } = given?.buffer ? given : { buffer: given };
    if (typeof buffer?.size !== 'number' || typeof buffer.usage !== 'number') {
        fail('Missing', `\`${name}\` must be a GPUBuffer or { buffer, offset, size }`);
    }
    const whole = Math.ceil(bytes / 4) * 4;
    if (size !== undefined && size !== bytes && size !== whole) {
        fail('Shape', `\`${name}\` has ${size} bytes, this head was planned for ${bytes}: make a head for the other shape`);
    }
    if (!(buffer.usage & STORAGE)) {
        fail('Usage', `the buffer of \`${name}\` was made without the usage STORAGE: add GPUBufferUsage.STORAGE`);
    }
    const alignment = device.limits.minStorageBufferOffsetAlignment;
    if (!Number.isInteger(offset) || offset < 0 || offset % alignment !== 0) {
        fail('Alignment', `\`${name}\` starts at byte ${offset} of its buffer, the device needs a multiple of ${alignment}`);
    }
    if (offset + whole > buffer.size) {
        fail('Buffer', `\`${name}\` needs bytes ${offset}..${offset + whole} of a buffer of ${buffer.size} bytes: make it larger, or make a head for the smaller shape`);
    }
    return { buffer, offset, size: whole };
};

/** Refuses a caller's buffer that is written in a call that reads it, or written where another tensor lies. */
export const overlaps = (plan, ranges) => {
    const name = (i) => camel(plan.buffers[i].name);
    const refuse = (a, b) =>
        fail('Overlap', `\`${name(a)}\` and \`${name(b)}\` share a buffer, but one of them is written: give the written one a buffer of its own`);
    const written = new Set();
    for (const step of [...plan.forward, ...plan.backward]) {
        const kinds = plan.kernels[step.kernel].written;
        step.buffers.forEach((a, i) => {
            if (!kinds[i]) return;
            written.add(a);
            const other = step.buffers.find((b) => b !== a && ranges[a] && ranges[b]?.buffer === ranges[a].buffer);
            if (other !== undefined) refuse(a, other);
        });
    }
    ranges.forEach((one, a) => {
        if (!one || !written.has(a)) return;
        ranges.forEach((two, b) => {
            const meets = two && a !== b && two.buffer === one.buffer;
            if (meets && one.offset < two.offset + two.size && two.offset < one.offset + one.size) refuse(a, b);
        });
    });
};

/** The error of a caller's buffer that belongs to another device: found by binding each alone. */
export const foreign = async (device, plan, ranges) => {
    const probe = (range, i) => {
        if (!range) return undefined;
        device.pushErrorScope('validation');
        const buffer = { type: 'read-only-storage' };
        const layout = device.createBindGroupLayout({ entries: [{ binding: 0, visibility: COMPUTE, buffer }] });
        device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: range.buffer } }] });
        const told = device.popErrorScope().catch(() => null); // rejected where the device is lost
        return told.then((error) => error && { name: camel(plan.buffers[i].name), error });
    };
    const found = (await Promise.all(ranges.map(probe))).find(Boolean);
    if (!found) return undefined;
    const { name, error } = found;
    const message = `the buffer of \`${name}\` cannot be used here: make it on the head's own device (${error.message})`;
    return new MarginSoftmaxError('Foreign', message, { cause: error });
};
