// margin-softmax heads on a GPUDevice of yours: loss and gradients of a margin-softmax layer, recorded into your encoder.
//
//     const planner = await Planner.load();
//     const head = await Head.create(device, planner, { loss: 'arcface', shape: { rows: 64, classes: 1000, dim: 128 } });
//     const bound = await head.bind({ embeddings, prototypes, labels, loss, gradEmbeddings, gradPrototypes });
//     bound.recordForward(encoder);
//     bound.recordBackward(encoder);
//
// The planner (a small wasm module) says which kernels to run with which buffers; this module makes the WebGPU objects.
// Recording creates, submits, maps and awaits nothing. The device stays yours: its `lost` promise is only listened to,
// its `onuncapturederror` is left alone, and what is created here is created under error scopes.

import * as glue from './dist/planner.js';
import packed from './dist/planner_wasm.js';

/** An error in plain words; `code` is the name of the crate's error: `Limit`, `Recompile`, `Usage`, `DeviceLost`, … */
export class MarginSoftmaxError extends Error {
    constructor(code, message, options) {
        super(message, options);
        this.name = 'MarginSoftmaxError';
        this.code = code;
    }
}

const fail = (code, message) => {
    throw new MarginSoftmaxError(code, message);
};

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

/** Refuses unknown options: a misspelt one must not be ignored silently. */
const only = (what, given, known) => {
    const extra = Object.keys(given).find((name) => given[name] !== undefined && !known.includes(name));
    if (extra !== undefined) fail('Name', `\`${extra}\` is not a known ${what}; known are: ${known.join(', ')}`);
};

/** Calls the planner; its errors become ours, with what to do about a limit. */
const asked = (call) => {
    try {
        return call();
    } catch (error) {
        if (!error?.code) throw error;
        // the limit by the name that requestDevice knows
        const [, fact, limit] = (error.code === 'Limit' && /^(.*?\(`(m\w+)`\))/.exec(error.message)) || [];
        const hint = limit && `${fact}: ask for more with requiredLimits: { ${camel(limit)}: … } when you request the device`;
        // inputs by the name that they have here
        const message = error.message.replace(/`(class_weights|class_margins|row_margins)`/g, camel);
        throw new MarginSoftmaxError(error.code, hint ?? message, { cause: error });
    }
};

// ---- the planner

/** The wasm that this package carries as text: nothing is fetched, and a bundler has no file to copy. */
const unpacked = () => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
};

/** The planner: a wasm module of 180 kB (compressed) that knows the losses, their kernels and how to cut the work. */
export class Planner {
    #losses;

    /** For `load`. */
    constructor(losses) {
        if (!Array.isArray(losses)) fail('Usage', '`await Planner.load()` makes a planner');
        this.#losses = losses;
    }

    /**
     * Starts the planner. Its wasm is a part of this package, so that a page, a worker, a bundle and Node need no more than
     * this call. `wasm` supplies it instead: the bytes of `margin-softmax/planner.wasm`, a compiled module, a response, or
     * a URL. One instance serves all planners of a page or worker: the first call decides.
     */
    static async load({ wasm, ...unknown } = {}) {
        const [extra] = Object.keys(unknown);
        if (extra) fail('Name', `\`${extra}\` is not a known setting; known is: wasm`);
        try {
            await glue.default({ module_or_path: wasm ?? unpacked() });
            return new Planner(JSON.parse(glue.losses()));
        } catch (error) {
            const hint = wasm === undefined ? '' : '; `wasm` is its bytes, a compiled module, a response, or a URL that `fetch` can read';
            throw new MarginSoftmaxError('Format', `the planner's wasm does not start: ${error.message}${hint}`, { cause: error });
        }
    }

    /** The named losses and where their numbers come from. */
    losses() {
        return this.#losses.map(({ name, source }) => ({ name, source }));
    }

    /** A named loss as plain data, to be changed and given to a head; a loss that is plain data already is returned as it is. */
    loss(loss) {
        if (typeof loss !== 'string') return loss;
        const found = this.#losses.find(({ name }) => name === loss);
        if (!found) {
            const known = this.#losses.map(({ name }) => name).join(', ');
            fail('Name', `\`${loss}\` is not a known loss; known are: ${known}`);
        }
        return structuredClone(found.loss);
    }

    /** φ(x) and dφ/dx at target cosines x, without the scale: what a loss does to the logit of the labelled class. */
    curve(loss, cosines) {
        const text = JSON.stringify(this.loss(loss));
        const both = asked(() => glue.curve(text, Float64Array.from(cosines)));
        const half = both.length / 2;
        return { values: both.slice(0, half), slopes: both.slice(half) };
    }

    /** The plan of a request in JSON: buffers, kernels, steps. What `Head.create` uses. */
    plan(request) {
        return asked(() => new glue.Planned(JSON.stringify(request)));
    }
}

// ---- the device

/**
 * A device with all that its adapter can hold, for pages without an engine. An engine gives its own device to
 * `Head.create`: WebGPU's default limits are enough.
 */
export async function requestDevice({ adapter: options, f16 = false, timestamps = false, label = 'margin-softmax' } = {}) {
    const gpu = globalThis.navigator?.gpu;
    if (!gpu) {
        const secure = globalThis.isSecureContext !== false;
        fail(
            'NoAdapter',
            secure
                ? 'this browser has no WebGPU: take a current Chrome, Edge, Firefox or Safari, and switch hardware acceleration on'
                : 'WebGPU is off on pages from an insecure address: serve this page over https or from localhost',
        );
    }
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) {
        fail('NoAdapter', 'WebGPU is there, but no adapter answered: switch hardware acceleration on, or update the graphics driver');
    }
    const optional = [f16 && 'shader-f16', timestamps && 'timestamp-query'];
    const raised = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize'];
    const device = await adapter.requestDevice({
        label,
        requiredFeatures: optional.filter((feature) => feature && adapter.features.has(feature)),
        requiredLimits: Object.fromEntries(raised.map((limit) => [limit, adapter.limits[limit]])),
    });
    return { adapter, device };
}

/** What a device allows, as the planner reads it. */
export function limitsOf(device) {
    const { limits, features } = known(device);
    const info = device.adapterInfo;
    const names = `${info?.vendor} ${info?.architecture} ${info?.device} ${info?.description}`;
    return {
        max_buffer: limits.maxBufferSize,
        max_binding: limits.maxStorageBufferBindingSize,
        max_groups: limits.maxComputeWorkgroupsPerDimension,
        storage_buffers: limits.maxStorageBuffersPerShaderStage,
        invocations: limits.maxComputeInvocationsPerWorkgroup,
        size_x: limits.maxComputeWorkgroupSizeX,
        workgroup_bytes: limits.maxComputeWorkgroupStorageSize,
        alignment: limits.minStorageBufferOffsetAlignment,
        f16: features.has('shader-f16'),
        software: info?.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render/i.test(names),
    };
}

const known = (device) => {
    if (typeof device?.createComputePipelineAsync !== 'function') {
        fail('Missing', '`device` is no GPUDevice: take your engine\'s, or that of requestDevice()');
    }
    return device;
};

/** Per device: its pipelines by source, shared by all heads, and whether it was lost. */
const devices = new WeakMap();

const sharedOf = (device) => {
    let shared = devices.get(device);
    if (!shared) {
        shared = { pipelines: new Map(), lost: undefined };
        devices.set(device, shared);
        device.lost.then(({ reason, message }) => {
            shared.lost = message || reason || 'unknown';
        });
    }
    return shared;
};

const alive = (shared) => {
    if (shared.lost !== undefined) {
        fail('DeviceLost', `the device is lost (${shared.lost}): request a new one and make new heads`);
    }
};

/** Creates under error scopes: what the device refuses rejects, and reaches no handler of the page. */
const guarded = async (device, create) => {
    const shared = sharedOf(device);
    alive(shared);
    const filters = ['out-of-memory', 'internal', 'validation'];
    filters.forEach((filter) => device.pushErrorScope(filter));
    let made, thrown;
    try {
        made = create();
    } catch (error) {
        thrown = error;
    }
    // popped before anything is awaited: the caller's scopes keep their order
    const scopes = filters.map(() => device.popErrorScope());
    const pending = Promise.resolve(made);
    pending.catch(() => {}); // told by its scope where that says more
    try {
        const [validation, internal, memory] = await Promise.all(scopes);
        if (memory) fail('OutOfMemory', `the device is out of memory: ${memory.message}`);
        const error = validation ?? internal ?? thrown;
        if (error) throw new MarginSoftmaxError('Device', `the device refused: ${error.message}`, { cause: error });
        return await pending;
    } catch (error) {
        // a loss may be told a little later than what it broke
        await Promise.race([device.lost, new Promise((resolve) => setTimeout(resolve, 50))]);
        alive(shared);
        if (error instanceof MarginSoftmaxError) throw error;
        throw new MarginSoftmaxError('Device', `the device refused: ${error.message}`, { cause: error });
    }
};

const COMPUTE = 4; // GPUShaderStage.COMPUTE
const [MAP_READ, COPY_SRC, COPY_DST, UNIFORM, STORAGE] = [1, 4, 8, 64, 128]; // GPUBufferUsage
const READ = 1; // GPUMapMode.READ

/** A compiled kernel with its explicit layout, from the device's cache. */
const pipelineOf = (device, kernel, uniforms) => {
    const { pipelines } = sharedOf(device);
    const found = pipelines.get(kernel.source);
    if (found) return found;
    const made = guarded(device, () => {
        const label = kernel.name;
        const entry = (binding, type, more) => ({ binding, visibility: COMPUTE, buffer: { type, ...more } });
        const entries = [
            entry(0, 'uniform', { minBindingSize: uniforms[0] }),
            entry(1, 'uniform', { minBindingSize: uniforms[1], hasDynamicOffset: true }),
            ...kernel.written.map((written, i) => entry(i + 2, written ? 'storage' : 'read-only-storage')),
        ];
        const layout = device.createBindGroupLayout({ label, entries });
        const module = device.createShaderModule({ label, code: kernel.source });
        const descriptor = {
            label,
            layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
            compute: { module, entryPoint: kernel.name },
        };
        return device.createComputePipelineAsync(descriptor).then((pipeline) => ({ pipeline, layout }));
    });
    pipelines.set(kernel.source, made);
    // a later head may try again
    made.catch(() => pipelines.delete(kernel.source));
    return made;
};

// ---- what a run must keep

/** A whole number of 64 bits: a number where that is exact, else a BigInt. */
const whole = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value));

/** A state as the crate writes it in JSON: digits for whole numbers, strings for all others, NaN among them. */
const stateText = (state) => {
    const text = (value) => {
        if (typeof value === 'bigint') return `${value}`;
        return typeof value === 'number' && !Number.isInteger(value) ? `"${value}"` : (JSON.stringify(value) ?? 'null');
    };
    return `{${Object.entries(state ?? {}).map(([name, value]) => `${JSON.stringify(name)}:${text(value)}`)}}`;
};

/** A state of the caller's, checked and copied. */
const stateOf = (planned, state) => {
    asked(() => planned.check_state(stateText(state)));
    const { classes, step, seed, hardness, norm_mean, norm_deviation, scale } = state;
    const numbers = { hardness, norm_mean, norm_deviation, scale };
    for (const name of Object.keys(numbers)) numbers[name] = Number(numbers[name]);
    return { classes: Number(classes), step: whole(step), seed: whole(seed), ...numbers };
};

/** The state before the first step. */
const firstState = (planned, loss, classes) => {
    const [hardness, norm_mean, norm_deviation, scale] = asked(() => planned.state(JSON.stringify(loss)));
    return { classes, step: 0, seed: 0, hardness, norm_mean, norm_deviation, scale };
};

/** Of a state, what lies on the device. */
const FOLLOWS = ['hardness', 'norm_mean', 'norm_deviation', 'scale'];

const onDevice = (state) => {
    const numbers = Float32Array.from(FOLLOWS, (name) => state[name]);
    // a device takes a scale of 0 for one that was never written
    numbers[3] = Math.max(numbers[3], 2 ** -126);
    return numbers;
};

/** The state after a training step; a number that came back as it was sent keeps all its digits. */
const movedState = (state, numbers) => {
    const moved = { ...state, step: whole(BigInt(state.step) + 1n) };
    const sent = onDevice(state);
    FOLLOWS.forEach((name, i) => {
        if (numbers && numbers[i] !== sent[i]) moved[name] = numbers[i];
    });
    return moved;
};

// ---- a head

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
            bias: classes * 4,
            state: 16,
            upstream: loss.reduction === 'none' ? rows * 4 : 4,
            loss: 4,
            rowLosses: rows * 4,
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
     * `state` moves first, then the step counts; an error leaves it as it was.
     */
    evaluate(batch, options = {}) {
        this.#pending += 1;
        const run = async () => {
            try {
                const planned = this.#plan();
                if (options.step !== undefined || options.seed !== undefined) {
                    fail('Name', '`step` and `seed` are no options of evaluate: set them in head.state');
                }
                only('option', options, ['loss', 'training']);
                const { loss = this.loss, training = false } = options;
                this.#slices ??= new Slices(this, planned);
                const how = { loss: this.planner.loss(loss), training, state: this.#state };
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

/** The range of a caller's buffer that is bound, or why it cannot be. */
const rangeOf = (given, name, bytes, device) => {
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
const overlaps = (plan, ranges) => {
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
const foreign = async (device, plan, ranges) => {
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

/** A head bound to buffers. */
export class Bound {
    #head;
    #planned;
    #shared;
    #own = [];
    #buffers;
    #uniform;
    #steps;
    #sizes;
    #loss;
    #call;
    #state;
    #training = false;

    /** Made by `Head.bind`. */
    static async make(head, planned, io) {
        const { device, plan, loss } = head;
        alive(sharedOf(device));
        const sizes = head.bytes();
        const entries = Object.entries(io ?? {}).filter(([, given]) => given !== undefined && given !== null);
        for (const [name] of entries) {
            if (!(name in sizes)) {
                fail('Name', `\`${name}\` is no tensor of this head; known are: ${Object.keys(sizes).join(', ')}`);
            }
        }
        const given = new Map(entries.map(([name, one]) => [name, Array.isArray(one) ? one : [one]]));
        for (const [name, list] of given) {
            const expected = Array.isArray(sizes[name]) ? sizes[name].length : 1;
            if (list.length !== expected) {
                fail('Length', `\`${name}\` has ${list.length} buffers, expected ${expected}: one for each shard of head.plan.shards`);
            }
        }
        const ranges = plan.buffers.map((buffer) => {
            if (buffer.role === 'workspace') return undefined;
            const name = camel(buffer.name);
            const one = given.get(name)?.[buffer.shard];
            if (one) return rangeOf(one, name, [sizes[name]].flat()[buffer.shard], device);
            if (buffer.role === 'given') fail('Missing', `\`${name}\` is missing: the plan reads or writes it`);
            return undefined;
        });
        overlaps(plan, ranges);

        const call = { rows: head.shape.rows };
        for (const flag of ['class_weights', 'upstream', 'class_margins', 'row_margins']) {
            call[flag] = given.has(camel(flag));
        }
        if ((call.class_margins || call.row_margins) && !loss.target?.unified) {
            fail('Combination', 'classMargins, rowMargins: only a unified target has m0..m3');
        }
        const bound = new Bound();
        bound.#head = head;
        bound.#planned = planned;
        bound.#shared = sharedOf(device);
        const settings = bound.#settings(loss, call);
        try {
            await guarded(device, () => bound.#allocate(ranges, settings, given.has('state')));
        } catch (error) {
            bound.destroy();
            throw error.code === 'Device' ? ((await foreign(device, plan, ranges)) ?? error) : error;
        }
        return bound;
    }

    #allocate(ranges, { loss, call, bytes, sizes }, hasState) {
        const { device, plan, pipelines } = this.#head;
        const make = (label, size, usage) => {
            const buffer = device.createBuffer({ label, size, usage });
            this.#own.push(buffer);
            return buffer;
        };
        const usage = STORAGE | COPY_SRC | COPY_DST;
        this.#buffers = plan.buffers.map(
            ({ name, bytes }, i) => ranges[i] ?? { buffer: make(name, bytes, usage), offset: 0, size: bytes },
        );
        const table = this.#planned.parts();
        const parts = make('parts', table.byteLength, UNIFORM | COPY_DST);
        this.#uniform = make('settings', plan.uniforms[0], UNIFORM | COPY_DST);
        device.queue.writeBuffer(parts, 0, table);

        const groups = new Map();
        const groupOf = (step) => {
            const key = `${step.kernel}:${step.buffers}`;
            if (!groups.has(key)) {
                const storage = step.buffers.map((b, i) => ({ binding: i + 2, resource: this.#buffers[b] }));
                const entries = [
                    { binding: 0, resource: { buffer: this.#uniform, size: plan.uniforms[0] } },
                    { binding: 1, resource: { buffer: parts, size: plan.uniforms[1] } },
                    ...storage,
                ];
                const { layout } = pipelines[step.kernel];
                groups.set(key, device.createBindGroup({ label: plan.kernels[step.kernel].name, layout, entries }));
            }
            return groups.get(key);
        };
        this.#steps = [...plan.forward, ...plan.backward].map((step) => ({
            pipeline: pipelines[step.kernel].pipeline,
            group: groupOf(step),
            offsets: [step.part * plan.part_stride],
        }));
        this.#apply(loss, call, bytes, sizes);
        this.#state = firstState(this.#planned, loss, this.#head.shape.classes);
        if (!hasState) this.#write('state', onDevice(this.#state));
        this.#draw();
    }

    /**
     * Goes on from a state like `head.state`, by default the one before the first step: writes the numbers that follow the
     * batch, and what ElasticFace draws in this step. Recorded training steps move the numbers on the device alone, and
     * count no steps: say `step` in `update`.
     */
    setState(state = firstState(this.#planned, this.#loss, this.#head.shape.classes)) {
        this.#check();
        const checked = stateOf(this.#planned, state);
        this.#write('state', onDevice(checked));
        this.#state = checked;
        this.#draw();
    }

    /** The settings of a loss and a call, or the error that refuses them; changes nothing. */
    #settings(loss, call) {
        const bytes = asked(() => this.#planned.settings(JSON.stringify(loss), JSON.stringify(call)));
        const sizes = asked(() => this.#planned.dispatches(call.rows));
        return { loss, call, bytes, sizes };
    }

    #apply(loss, call, bytes, sizes) {
        this.#head.device.queue.writeBuffer(this.#uniform, 0, bytes);
        [this.#loss, this.#call, this.#sizes] = [loss, call, sizes];
    }

    #write(name, values) {
        const i = this.#head.plan.buffers.findIndex((b) => b.name === name);
        if (i < 0 || values.length === 0) return;
        const { buffer, offset } = this.#buffers[i];
        if (!(buffer.usage & COPY_DST)) {
            fail('Usage', `the buffer of \`${name}\` was made without the usage COPY_DST: add GPUBufferUsage.COPY_DST`);
        }
        this.#head.device.queue.writeBuffer(buffer, offset, values);
    }

    #draw() {
        if (!this.#head.plan.buffers.some((b) => b.name === 'draws')) return;
        const [step, seed] = [this.#state.step, this.#state.seed].map(BigInt);
        this.#write('draws', asked(() => this.#planned.draws(JSON.stringify(this.#loss), this.#call.rows, step, seed)));
    }

    /**
     * A new loss (margins, scale, …) or call: one queue write, which holds for every later submit. Nothing is compiled or
     * allocated. What is left out stays as it is.
     *
     * `rows`: rows of the batch, at most as planned. `accumulate`: gradients are added to what their buffers hold.
     * `training`: what is recorded from now on is a training step, in which the state moves first (AdaFace, AdaCos,
     * CurricularFace). `step`, `seed`: of ElasticFace's draws. Record again after `rows` or `training` changed.
     */
    update(loss = this.#loss, changes = {}) {
        this.#check();
        only('option', changes, ['rows', 'accumulate', 'training', 'step', 'seed']);
        const { rows, accumulate, training, step = this.#state.step, seed = this.#state.seed } = changes;
        const next = this.#head.planner.loss(loss);
        if (this.#call.upstream && (next.reduction === 'none') !== (this.#loss.reduction === 'none')) {
            fail('Combination', 'reduction: the bound upstream gradient has the length of the old one; bind again');
        }
        const call = { ...this.#call };
        if (rows !== undefined) call.rows = rows;
        if (accumulate !== undefined) call.accumulate = accumulate;
        const settings = this.#settings(next, call);
        const state = stateOf(this.#planned, { ...this.#state, step, seed });
        this.#apply(next, call, settings.bytes, settings.sizes);
        this.#state = state;
        this.#draw();
        if (training !== undefined) this.#training = training;
    }

    /** Which of the bound inputs count from now on. For `evaluate`. */
    use({ loss, training, state }, call) {
        this.#check();
        const { bytes, sizes } = this.#settings(loss, call);
        this.#apply(loss, call, bytes, sizes);
        this.setState(state);
        this.#training = training;
    }

    /** Records statistics and loss. */
    recordForward(encoder) {
        const { targets, follow, statistics, losses } = this.#head.plan.stages;
        const from = this.#training ? follow[0] : statistics[0];
        this.#record('forward', encoder, [targets, [from, losses[1]]]);
    }

    /** Records the gradients. One follows each forward pass of this bound set: it may overwrite the cosines kept by it. */
    recordBackward(encoder) {
        this.#record('backward', encoder, [[this.#head.plan.forward.length, this.#steps.length]]);
    }

    #record(label, encoder, ranges) {
        this.#check();
        const pass = encoder.beginComputePass({ label });
        for (const [from, to] of ranges) {
            for (let i = from; i < to; i++) {
                const x = this.#sizes[3 * i];
                if (x === 0) continue;
                const { pipeline, group, offsets } = this.#steps[i];
                pass.setPipeline(pipeline);
                pass.setBindGroup(0, group, offsets);
                pass.dispatchWorkgroups(x, this.#sizes[3 * i + 1], this.#sizes[3 * i + 2]);
            }
        }
        pass.end();
    }

    /** Frees the workspace; the caller's buffers stay. */
    destroy() {
        this.#own.forEach((buffer) => buffer.destroy());
        this.#own = [];
        this.#steps = undefined;
    }

    #check() {
        alive(this.#shared);
        if (!this.#steps) fail('Missing', 'this bound set was destroyed: bind again');
    }
}

// ---- typed arrays

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

/** What `Head.evaluate` keeps from call to call. */
class Slices {
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
        const { device, shape, plan } = this.#head;
        const inputs = this.#inputs(batch, how.loss);
        const rows = inputs.labels.length;
        await this.#prepare(Object.keys(inputs));
        const { queue } = device;
        const flag = (name) => name in inputs;
        this.#bound.use(how, {
            rows,
            class_weights: flag('classWeights'),
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
        if (sizes.gradEmbeddings) result('gradEmbeddings', rows * dim * 4);
        for (const name of ['gradPrototypes', 'gradScale', 'gradBias']) {
            if (sizes[name]) result(name, sizes[name]);
        }
        if (how.training) result('state', 16);
        const staging = await this.#stage(end);
        const mapping = guarded(device, () => {
            const encoder = device.createCommandEncoder({ label: 'margin-softmax' });
            this.#bound.recordForward(encoder);
            if (plan.backward.length > 0) this.#bound.recordBackward(encoder);
            for (const { buffer, size, at } of results) encoder.copyBufferToBuffer(buffer, 0, staging, at, size);
            queue.submit([encoder.finish()]);
            return staging.mapAsync(READ, 0, end).then(() => staging.getMappedRange(0, end));
        });
        const mapped = await mapping.catch((error) => {
            this.#staging = undefined; // whatever state it is in
            throw error;
        });
        const out = {};
        for (const name of new Set(results.map((r) => r.name))) {
            const parts = results.filter((r) => r.name === name);
            const bytes = parts.reduce((sum, part) => sum + part.size, 0);
            out[name] = new Float32Array(mapped.slice(parts[0].at, parts[0].at + bytes));
        }
        staging.unmap();
        out.rowLosses ??= new Float32Array();
        if (sizes.gradEmbeddings) out.gradEmbeddings ??= new Float32Array();
        out.loss = out.loss[0];
        if (out.gradScale) out.gradScale = out.gradScale[0];
        const { state: numbers, ...rest } = out;
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
            classMargins: [classes * 4, kinds.f32],
            rowMargins: [rows * 4, kinds.f32],
            bias: [classes, kinds.f32],
            upstream: [loss.reduction === 'none' ? rows : 1, kinds.f32],
        };
        only('input', batch, Object.keys(counts));
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
        const { classWeights, upstream, bias, classMargins, rowMargins } = found;
        const small = [classWeights, upstream, bias, classMargins, rowMargins];
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
        const also = asked.filter((name) => name === 'rowLosses' || name === 'state' || optional.includes(name) || kept.includes(name));
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
