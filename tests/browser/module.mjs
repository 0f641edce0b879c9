// What the module and the crate promise in a page beside the numbers: records only, refuses in plain words, leaves the
// device to its owner.

import { clean, inPage } from './prepare.mjs';

const tests = {
    'the named losses': () => {
        const names = planner.losses().map(({ name }) => name);
        if (!names.includes('chebyaam') || names.length < 20) throw new Error(names.join());
        for (const name of names) if (typeof planner.loss(name).scale !== 'number') throw new Error(name);
        const { values, slopes } = planner.curve('cosface', [-0.5, 0.25]);
        same('values', [...values], [-0.5 - 0.35, 0.25 - 0.35]);
        same('slopes', [...slopes], [1, 1]);
    },

    'progress is told kernel by kernel': async () => {
        const seen = [];
        const own = { ...settings, loss: 'sphereface2' };
        const made = await Head.create(device, planner, own, { onProgress: (...told) => seen.push(told) });
        const total = made.plan.kernels.length;
        same('done', seen.map(([done]) => done), Array.from({ length: total + 1 }, (_, i) => i));
        if (seen.some(([, all]) => all !== total)) throw new Error('the total moves');
    },

    'two heads at offsets in one submit, and recording only records': async () => {
        const expected = await head.evaluate(batch);
        // one buffer for what is read, one for what is written; two heads, the second of another loss
        const other = await Head.create(device, planner, { ...settings, loss: 'cosface' });
        const expectedOther = await other.evaluate(batch);
        const [input, output] = [buffer(16 * 1024), buffer(32 * 1024)];
        const at = { embeddings: 256, prototypes: 1024, labels: 5120 };
        for (const [name, offset] of Object.entries(at)) device.queue.writeBuffer(input, offset, batch[name]);
        const sets = [head, other].map((one, i) => {
            const end = 16384 * i;
            return one.bind({
                embeddings: { buffer: input, offset: at.embeddings, size: 384 },
                prototypes: { buffer: input, offset: at.prototypes },
                labels: { buffer: input, offset: at.labels },
                loss: { buffer: output, offset: end },
                gradEmbeddings: { buffer: output, offset: end + 256 },
                gradPrototypes: [{ buffer: output, offset: end + 1024, size: 3360 }],
            });
        });
        const [one, two] = await Promise.all(sets);
        // anything but passes on the encoder would be counted
        const touched = [];
        const spied = [
            [GPUDevice.prototype, device],
            [GPUQueue.prototype, device.queue],
            [GPUBuffer.prototype, output],
        ];
        const originals = [];
        const encoder = device.createCommandEncoder();
        for (const [prototype] of spied) {
            for (const name of Object.getOwnPropertyNames(prototype)) {
                const original = Object.getOwnPropertyDescriptor(prototype, name);
                if (typeof original.value !== 'function' || name === 'constructor') continue;
                originals.push([prototype, name, original]);
                prototype[name] = function (...given) {
                    touched.push(name);
                    return original.value.apply(this, given);
                };
            }
        }
        one.recordForward(encoder);
        two.recordForward(encoder);
        two.recordBackward(encoder);
        one.recordBackward(encoder);
        originals.forEach(([prototype, name, original]) => Object.defineProperty(prototype, name, original));
        if (touched.length > 0) throw new Error(`recording called ${touched}`);
        device.queue.submit([encoder.finish()]);
        for (const [i, want] of [expected, expectedOther].entries()) {
            const end = 16384 * i;
            same('loss', await read(output, end, 4), [want.loss]);
            same('dX', await read(output, end + 256, 384), want.gradEmbeddings);
            same('dW', await read(output, end + 1024, 3360), want.gradPrototypes);
        }
        one.destroy();
        two.destroy();
        const gone = await refused(() => one.recordForward(device.createCommandEncoder()));
        if (!gone.startsWith('Missing')) throw new Error(gone);
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },

    'pipelines are made once per device': async () => {
        const { createComputePipelineAsync } = GPUDevice.prototype;
        let made = 0;
        GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
            made += 1;
            return createComputePipelineAsync.call(this, descriptor);
        };
        try {
            const loss = { ...planner.loss('arcface'), label_smoothing: 0.1 };
            const other = await Head.create(device, planner, { ...settings, loss, shape: { rows: 3, classes: 9, dim: 8 } });
            if (made !== 0) throw new Error(`${made} pipelines for another shape and scale of the same loss`);
            await Head.create(device, planner, { ...settings, loss: 'arcface_filter' });
            if (made === 0 || made > 5) throw new Error(`${made} pipelines for another loss`);
            other.destroy();
        } finally {
            GPUDevice.prototype.createComputePipelineAsync = createComputePipelineAsync;
        }
        // two heads at once share them as well
        const two = [0, 1].map(() => Head.create(device, planner, { ...settings, loss: 'arcgrad' }));
        const [one, another] = await Promise.all(two);
        one.pipelines.forEach((pipeline, i) => {
            if (pipeline !== another.pipelines[i]) throw new Error('compiled twice');
        });
    },

    'an update is a write, and another kernel is refused': async () => {
        const io = await head.createBuffers(['rowLosses']);
        const bound = await head.bind(io);
        for (const name of ['embeddings', 'labels']) device.queue.writeBuffer(io[name], 0, batch[name]);
        device.queue.writeBuffer(io.prototypes[0], 0, batch.prototypes);
        const run = async () => {
            const encoder = device.createCommandEncoder();
            bound.recordForward(encoder);
            bound.recordBackward(encoder);
            device.queue.submit([encoder.finish()]);
            return (await read(io.loss, 0, 4))[0];
        };
        const loss = planner.loss('arcface');
        loss.target.unified.m2 = 0.3;
        loss.scale = 16;
        const fresh = await Head.create(device, planner, { ...settings, loss });
        const some = { ...batch, embeddings: batch.embeddings.slice(0, 36), labels: batch.labels.slice(0, 3) };
        bound.update(loss, { rows: 3 });
        const found = await run();
        const { loss: expected, rowLosses } = await fresh.evaluate(some);
        same('loss of 3 rows', [found], [expected]);
        same('rows', await read(io.rowLosses, 0, 12), rowLosses);
        same('the same through arrays', [(await head.evaluate(some, { loss })).loss], [expected]);
        const no = await refused(() => bound.update('sphereface2'));
        if (!/^Recompile: .*make a new head/.test(no)) throw new Error(no);
        const most = await refused(() => bound.update(loss, { rows: 9 }));
        if (!/^Rows: .*9 rows.*at most 8/.test(most)) throw new Error(most);
        same('still in force', [await run()], [expected]);

        // gradients are added to what is there
        const once = await read(io.gradEmbeddings, 0, 144);
        bound.update(undefined, { accumulate: true });
        await run();
        same('twice', await read(io.gradEmbeddings, 0, 144), once.map((v) => v + v));
        // one of the two alone, and a mean that is divided by another number
        bound.update(undefined, { accumulate: { embeddings: true }, divisor: 6 });
        await run();
        same('half more', await read(io.gradEmbeddings, 0, 144), once.map((v) => v + v + v / 2));
        const prototypes = await read(io.gradPrototypes[0], 0, 400);
        await run();
        same('overwritten', await read(io.gradPrototypes[0], 0, 400), prototypes);
        bound.destroy();
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },

    'errors say what to do': async () => {
        const big = buffer(8192);
        const io = await head.createBuffers();
        const bind = (changes) => () => head.bind({ ...io, ...changes });
        const create = (changes) => () => Head.create(device, planner, { ...settings, ...changes });
        const evaluate = (changes) => () => head.evaluate({ ...batch, ...changes });
        const { limits } = device;
        const few = { createComputePipelineAsync() {}, features: new Set(), lost: new Promise(() => {}) };
        few.limits = Object.fromEntries(Object.keys(GPUSupportedLimits.prototype).map((name) => [name, limits[name]]));
        few.limits.maxStorageBuffersPerShaderStage = 4;
        const loss = (changes) => ({ ...planner.loss('arcface'), ...changes });
        const linear = await Head.create(device, planner, { ...settings, loss: 'softmax' });
        const bound = await head.bind(io);
        const following = await Head.create(device, planner, { ...settings, loss: 'adaface' });
        const unwritable = await following.bind({ ...io, state: buffer(16, GPUBufferUsage.STORAGE) });
        const filled = (count, value) => new Float32Array(count).fill(value);
        const quads = (count, place, value) => Float32Array.from({ length: 4 * count }, (_, i) => (i % 4 === place ? value : NaN));
        const state = (changes) => () => (head.state = { ...head.state, ...changes });
        const before = JSON.stringify(head.state);
        for (const [call, expected] of [
            [() => Head.create({}, planner, settings), /^Missing: `device` is no GPUDevice/],
            [() => Head.create(device, {}, settings), /^Missing: `planner` is no Planner: .*Planner\.load/],
            [() => Head.create(few, planner, settings), /^Limit: .*needs 8.*allows 4.*requiredLimits: \{ maxStorageBuffersPerShaderStage/],
            [create({ loss: 'arkface' }), /^Name: `arkface` is not a known loss; known are: .*arcface/],
            [create({ los: 1 }), /^Name: `los` is not a known setting/],
            [create({ loss: loss({ scale: -1 }) }), /^Parameter: `scale` is -1/],
            [create({ loss: loss({ sclae: 1 }) }), /^Format: .*unknown field `sclae`.*`scale`/],
            [create({ shape: { ...shape, classes: 0 } }), /^Zero: `classes` is 0/],
            [create({ options: { budget: 100 } }), /^Budget: .*at least \d+ bytes.*100/],
            [create({ options: { tile: 'huge' } }), /^Name: `huge` is not a known tile; known are: direct/],
            [create({ shards: [64, 7] }), /^Length: `shards` has 71 values, expected 70/],
            [bind({ embeddings: undefined }), /^Missing: `embeddings` is missing/],
            [bind({ labels: batch.labels }), /^Missing: `labels` must be a GPUBuffer/],
            [bind({ weights: big }), /^Name: `weights` is no tensor of this head; known are: .*classWeights/],
            [bind({ embeddings: buffer(384, GPUBufferUsage.COPY_DST) }), /^Usage: .*`embeddings`.*GPUBufferUsage\.STORAGE/],
            [bind({ embeddings: { buffer: big, offset: 4 } }), /^Alignment: `embeddings` starts at byte 4.*multiple of 256/],
            [bind({ embeddings: buffer(380) }), /^Buffer: `embeddings` needs bytes 0\.\.384 of a buffer of 380 bytes/],
            [bind({ embeddings: { buffer: big, size: 768 } }), /^Shape: `embeddings` has 768 bytes, this head was planned for 384/],
            [bind({ prototypes: [big, big] }), /^Length: `prototypes` has 2 buffers, expected 1/],
            [() => bound.update(undefined, { row: 3 }), /^Name: `row` is not a known option; known are: rows/],
            [() => bound.update(undefined, { divisor: 0 }), /^Parameter: `divisor` is 0, allowed is 1e-30 <= divisor <= 1e30/],
            [() => bound.update(undefined, { accumulate: { rows: true } }), /^Name: `rows` is not a known gradient; known are: embeddings/],
            [() => bound.update(undefined, { step: -1 }), /^Format: this is no state: .*u64/],
            [() => bound.setState({ ...head.state, hardness: 2 }), /^Parameter: `state\.hardness` is 2/],
            [() => unwritable.setState(), /^Usage: .*`state`.*GPUBufferUsage\.COPY_DST/],
            [bind({ loss: io.embeddings }), /^Overlap: `\w+` and `\w+` share a buffer/],
            [
                bind({ loss: { buffer: big, offset: 256 }, gradEmbeddings: { buffer: big, offset: 0 } }),
                /^Overlap: `(loss|gradEmbeddings)` and `(loss|gradEmbeddings)`/,
            ],
            [evaluate({ labels: new Int32Array(9) }), /^Rows: the batch has 9 rows.*at most 8/],
            [evaluate({ labels: Int32Array.of(0, 1, 2, 3, 4, 5, 70, 7) }), /^Label: row 6 has label 70, .*70 classes/],
            [evaluate({ embeddings: new Float32Array(95) }), /^Length: `embeddings` has 95 values, expected 96/],
            [evaluate({ embeddings: new Float64Array(96) }), /^Element: `embeddings` is a Float64Array, expected a Float32Array/],
            [evaluate({ prototypes: undefined }), /^Missing: `prototypes`/],
            [evaluate({ bias: new Float32Array(70) }), /^Combination: bias: only a linear head adds one/],
            [evaluate({ weights: new Float32Array(70) }), /^Name: `weights` is not a known input; known are: .*classWeights/],
            [evaluate({ state: new Float32Array(4) }), /^Name: `state` is no input: set head\.state/],
            [() => head.evaluate(batch, { trainning: true }), /^Name: `trainning` is not a known option; known are: loss, training/],
            [() => head.evaluate(batch, { training: true, step: 3 }), /^Name: `step` and `seed` .* head\.state/],
            // what numbers may be
            [evaluate({ classWeights: filled(70, -1) }), /^Parameter: `classWeights` is -1, allowed is 0, or 1e-30 <= w <= 1e24/],
            [evaluate({ classWeights: filled(70, NaN) }), /^Parameter: `classWeights` is NaN/],
            [evaluate({ rowWeights: filled(8, -1) }), /^Parameter: `rowWeights` is -1, allowed is 0, or 1e-30 <= w <= 1e24/],
            [evaluate({ divisor: '3' }), /^Element: `divisor` is no number/],
            [evaluate({ divisor: -3 }), /^Parameter: `divisor` is -3/],
            [evaluate({ classWeights: filled(69, 1) }), /^Length: `classWeights` has 69 values, expected 70/],
            [evaluate({ upstream: filled(1, NaN) }), /^Parameter: `upstream` is NaN, allowed is finite numbers/],
            [evaluate({ upstream: filled(1, Infinity) }), /^Parameter: `upstream` is inf/],
            [() => linear.evaluate({ ...batch, bias: filled(70, NaN) }), /^Parameter: `bias` is NaN, allowed is finite numbers/],
            [() => linear.evaluate({ ...batch, rowMargins: quads(8, 2, 0.1) }), /^Combination: .*a linear head has no angles/],
            [evaluate({ classMargins: quads(70, 2, 4) }), /^Parameter: `m2` is 4, allowed is -pi < m2 < pi/],
            [evaluate({ rowMargins: quads(8, 1, -1) }), /^Parameter: `m1` is -1/],
            [evaluate({ rowMargins: quads(7, 1, 1) }), /^Length: `rowMargins` has 28 values, expected 32/],
            [evaluate({ labels: new Float32Array(8) }), /^Element: `labels` is a Float32Array, expected a Int8Array or .*BigInt64Array/],
            [evaluate({ labels: '01234567' }), /^Element: `labels` is a String, expected/],
            [evaluate({ labels: [...'01234567'] }), /^Element: `labels` holds a value of the type string in row 0, expected whole/],
            [evaluate({ labels: [0, 1, 2.5, 3, 4, 5, 6, 7] }), /^Element: `labels` holds 2.5 in row 2, expected whole numbers/],
            [evaluate({ labels: [0, 1, 2, 3, 4, 5, 6, NaN] }), /^Element: `labels` holds NaN in row 7/],
            [evaluate({ labels: new Int8Array(8).fill(-1) }), /^Label: row 0 has label -1/],
            [evaluate({ labels: new BigInt64Array(8).fill(-(2n ** 40n)) }), /^Label: row 0 has label -1099511627776/],
            [evaluate({ labels: new BigUint64Array(8).fill(2n ** 64n - 1n) }), /^Label: row 0 has label 18446744073709551615,/],
            [evaluate({ labels: new Array(8).fill(2 ** 40) }), /^Label: row 0 has label 1099511627776, .*70 classes/],
            // and a state
            [state({ norm_mean: NaN }), /^Parameter: `state\.norm_mean` is NaN, allowed is 0 <= norm_mean <= 1e30/],
            [state({ scale: 0 }), /^Parameter: `state\.scale` is 0/],
            [state({ classes: 71 }), /^Shape: `state` has shape \[71\], expected \[70\]/],
            [state({ step: 1.5 }), /^Format: this is no state: /],
            [state({ seed: 2n ** 64n }), /^Format: this is no state: /],
            [state({ seed: undefined }), /^Format: this is no state: /],
            [state({ hardnes: 0 }), /^Format: this is no state: .*unknown field `hardnes`/],
            [() => (head.state = null), /^Format: this is no state: .*missing field/],
            [() => (head.state = filled(4, 0)), /^Format: this is no state: /],
        ]) {
            const found = await refused(call);
            if (!expected.test(found)) throw new Error(`${found}\ninstead of ${expected}`);
        }
        // and the head still works
        await head.evaluate(batch);
        if (JSON.stringify(head.state) !== before) throw new Error(`the state is ${JSON.stringify(head.state)}`);
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
        if (device.onuncapturederror !== handler) throw new Error('the handler was replaced');
    },

    'work in parts has the bits of one submit': async () => {
        const options = { tile: 'direct', work_per_submit: 150_000 };
        const divided = await Head.create(device, planner, { ...settings, options });
        const told = [];
        const expected = await divided.evaluate(batch, { onProgress: (...parts) => told.push(parts) });
        const total = told.length;
        if (total < 5 || told.some(([done, all], i) => done !== i + 1 || all !== total)) throw new Error(told.join(' '));
        const start = JSON.stringify(divided.state);
        for (const stop of [1, total >> 1, total]) {
            const calls = [];
            const onProgress = (done) => calls.push(done) !== stop;
            const error = await divided.evaluate(batch, { training: true, onProgress }).catch((refused) => refused);
            if (error.code !== 'Cancelled' || calls.length !== stop) throw new Error(`${error}, ${calls}`);
            if (JSON.stringify(divided.state) !== start) throw new Error(`stopped at ${stop}: ${JSON.stringify(divided.state)}`);
        }
        same('dW after calls that were stopped', (await divided.evaluate(batch)).gradPrototypes, expected.gradPrototypes);
        const io = await divided.createBuffers();
        for (const name of ['embeddings', 'prototypes', 'labels']) {
            device.queue.writeBuffer([io[name]].flat()[0], 0, batch[name]);
        }
        const bound = await divided.bind(io);
        const submit = (record) => {
            const encoder = device.createCommandEncoder();
            record(encoder);
            device.queue.submit([encoder.finish()]);
        };
        const results = async () => {
            same('loss', await read(io.loss, 0, 4), [expected.loss]);
            same('dX', await read(io.gradEmbeddings, 0, 384), expected.gradEmbeddings);
            same('dW', await read(io.gradPrototypes[0], 0, 3360), expected.gradPrototypes);
            [io.loss, io.gradEmbeddings, ...io.gradPrototypes].forEach((b) => submit((e) => e.clearBuffer(b)));
        };
        submit((encoder) => {
            bound.recordForward(encoder);
            bound.recordBackward(encoder);
        });
        await results();
        const parts = bound.forwardParts();
        parts.forEach(submit);
        const more = bound.backwardParts();
        more.forEach(submit);
        await results();
        // the end of one pass and the begin of the next may share a part
        if (![total, total + 1].includes(parts.length + more.length)) throw new Error(`${parts.length} ${more.length} ${total}`);
        // out of order, half of a pass, and what changed between
        const [first, second] = bound.forwardParts();
        const unfinished = async (call) => {
            const found = await refused(call);
            if (!found.startsWith('Unfinished: ')) throw new Error(found);
        };
        await unfinished(() => submit(second));
        submit(first);
        await unfinished(() => submit(first));
        await unfinished(() => bound.backwardParts());
        await unfinished(() => submit((encoder) => bound.recordBackward(encoder)));
        bound.update();
        await unfinished(() => submit(second));
        await unfinished(() => bound.backwardParts());
        submit((encoder) => bound.recordForward(encoder));
        bound.backwardParts().forEach(submit);
        await results();
        const least = await refused(() =>
            Head.create(device, planner, { ...settings, options: { ...options, work_per_submit: 10 } }),
        );
        if (!/^Work: a dispatch takes at least 131072 multiply-adds/.test(least)) throw new Error(least);
    },

    'labels of every usual kind': async () => {
        const kinds = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Array];
        const given = [...kinds.map((kind) => kind.from(batch.labels)), BigInt64Array.from(batch.labels, BigInt)];
        given.push(BigUint64Array.from(batch.labels, BigInt), Array.from(batch.labels, BigInt));
        const expected = await head.evaluate(batch);
        for (const labels of given) {
            const found = await head.evaluate({ ...batch, labels });
            same('loss', [found.loss], [expected.loss]);
            same('dW', found.gradPrototypes, expected.gradPrototypes);
        }
        // rows that are left out
        const ignoring = { ...planner.loss('arcface'), ignore_index: -1 };
        const some = (labels) => head.evaluate({ ...batch, labels }, { loss: ignoring });
        const { rowLosses } = await some(Int32Array.from(batch.labels, (label, row) => (row === 2 ? -1 : label)));
        same('ignored', [rowLosses[2]], [0]);
        same('the same', (await some(BigInt64Array.from(batch.labels, (label, row) => (row === 2 ? -1n : BigInt(label))))).rowLosses, rowLosses);
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },

    'a head that trains goes on, and an error leaves its state': async () => {
        // AdaFace sees lengths that differ alone
        const some = { ...batch, embeddings: batch.embeddings.map((v, i) => v * (1 + Math.floor(i / 12))) };
        for (const loss of ['adaface', 'curricularface', 'adacos', 'elasticface_arc']) {
            const made = await Head.create(device, planner, { ...settings, loss });
            const start = made.state;
            const once = await made.evaluate(some, { training: true });
            const after = made.state;
            if (after.step !== 1 || start.step !== 0) throw new Error(`${loss}: step ${after.step} after ${start.step}`);
            const moved = Object.keys(after).filter((name) => after[name] !== start[name]);
            const expected = { adaface: 'norm_deviation,norm_mean,step', curricularface: 'hardness,step', adacos: 'scale,step' };
            if (`${moved.sort()}` !== (expected[loss] ?? 'step')) throw new Error(`${loss} moved ${moved}`);
            await refused(() => made.evaluate({ ...some, labels: [99] }, { training: true }));
            await refused(() => made.evaluate({ ...some, upstream: Float32Array.of(NaN) }, { training: true }));
            await made.evaluate(some);
            if (JSON.stringify(made.state) !== JSON.stringify(after)) throw new Error(`${loss}: an error or an evaluation moved it`);
            const twice = await made.evaluate(some, { training: true });
            if (twice.loss === once.loss) throw new Error(`${loss}: the second step is the first one`);
            // back, and on from a copy that went through text
            made.state = JSON.parse(JSON.stringify(start));
            same(loss, (await made.evaluate(some, { training: true })).gradPrototypes, once.gradPrototypes);
            same(loss, (await made.evaluate(some, { training: true })).gradPrototypes, twice.gradPrototypes);
            // rows that are all left out leave it alone, but for the step
            const kept = made.state;
            const ignoring = { ...made.loss, ignore_index: 3 };
            await made.evaluate({ ...some, labels: new Int32Array(8).fill(3) }, { training: true, loss: ignoring });
            same(loss, Object.values(made.state), Object.values({ ...kept, step: 3 }));
            // two calls at once are two steps, and no other state slips in between
            const both = [0, 1].map(() => made.evaluate(some, { training: true }));
            const busy = await refused(() => (made.state = start));
            if (!/^Combination: state: .*under way/.test(busy)) throw new Error(busy);
            await Promise.all(both);
            if (made.state.step !== 5) throw new Error(`${loss}: ${made.state.step} steps`);
            made.state = { ...start, step: 2n ** 60n, seed: 2n ** 64n - 1n };
            await made.evaluate(some, { training: true });
            if (made.state.step !== 2n ** 60n + 1n || made.state.seed !== 2n ** 64n - 1n) throw new Error(`${made.state.step}`);
            made.destroy();
        }
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },

    'a bound set keeps the step of its draws': async () => {
        const made = await Head.create(device, planner, { ...settings, loss: 'elasticface_arc' });
        const io = await made.createBuffers();
        const bound = await made.bind(io);
        for (const name of ['embeddings', 'labels']) device.queue.writeBuffer(io[name], 0, batch[name]);
        device.queue.writeBuffer(io.prototypes[0], 0, batch.prototypes);
        const run = async () => {
            const encoder = device.createCommandEncoder();
            bound.recordForward(encoder);
            device.queue.submit([encoder.finish()]);
            return (await read(io.loss, 0, 4))[0];
        };
        const first = await run();
        bound.update(undefined, { step: 1, seed: 5 });
        const second = await run();
        if (second === first) throw new Error('no new draws');
        bound.update('elasticface_arc');
        same('still there', [await run()], [second]);
        bound.setState({ ...made.state, step: 1, seed: 5 });
        same('the same state', [await run()], [second]);
        made.state = { ...made.state, step: 1, seed: 5 };
        same('as the head has it', [(await made.evaluate(batch)).loss], [second]);
        bound.setState();
        same('the first one', [await run()], [first]);
        bound.destroy();
        made.destroy();
    },

    'what the device refuses arrives as an error, in our scopes alone': async () => {
        const { device: foreign } = await requestDevice();
        const io = await head.createBuffers();
        const alien = foreign.createBuffer({ size: 384, usage: GPUBufferUsage.STORAGE });
        device.pushErrorScope('validation');
        const refusal = refused(() => head.bind({ ...io, embeddings: alien }));
        // the caller's own mistake, in the caller's own scope
        device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
        const mine = await device.popErrorScope();
        const found = await refusal;
        if (!/^Foreign: the buffer of `embeddings` cannot be used here: make it on the head's own device/.test(found)) {
            throw new Error(found);
        }
        const other = await refused(() => head.bind({ ...io, loss: foreign.createBuffer({ size: 4, usage: GPUBufferUsage.STORAGE }) }));
        if (!/^Foreign: the buffer of `loss`/.test(other)) throw new Error(other);
        if (!mine) throw new Error("the caller's scope lost its error");
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
        foreign.destroy();
    },

    'a lost device is told': async () => {
        const { device: own } = await requestDevice();
        const made = await Head.create(own, planner, settings);
        const bound = await made.bind(await made.createBuffers());
        const under = refused(() => made.evaluate(batch));
        own.destroy();
        const encoder = device.createCommandEncoder();
        const told = [await under];
        await own.lost;
        told.push(
            await refused(() => bound.recordForward(encoder)),
            await refused(() => bound.update('arcface')),
            await refused(() => made.evaluate(batch)),
            await refused(() => made.bind({})),
            await refused(() => Head.create(own, planner, settings)),
        );
        for (const found of told) {
            if (!/^DeviceLost: the device is lost .*request a new one/.test(found)) throw new Error(found);
        }
    },
};

/** In a page without WebGPU, or without an adapter. */
const lacking = async (how) => {
    const gpu = how === 'adapter' ? { requestAdapter: async () => null } : undefined;
    Object.defineProperty(Navigator.prototype, 'gpu', { get: () => gpu });
    if (how === 'secure') Object.defineProperty(globalThis, 'isSecureContext', { value: false });
    const { requestDevice } = await import('/web/margin-softmax.js');
    return requestDevice().then(() => 'opened', (error) => `${error.code}: ${error.message}`);
};

const rust = {
    'the CPU path lets a timer tick': async () => {
        const { default: init, evaluate_on_cpu, Inputs } = await import('/web/dist/browser_tests.js');
        await init();
        const [rows, classes, dim] = [128, 40_000, 128];
        const values = (count) => Float32Array.from({ length: count * dim }, (_, i) => ((i * 7919) % 2003) / 1000 - 1);
        const inputs = () => new Inputs(values(rows), values(classes), Int32Array.from({ length: rows }, (_, i) => i * 31));
        const elements = { embeddings: 'f32', prototypes: 'f32' };
        let losses = [];
        // all cosines kept, and computed twice
        for (const budget of [1 << 28, 1 << 24]) {
            const request = JSON.stringify({ loss: {}, shape: { rows, classes, dim }, want: {}, elements, options: { budget } });
            let ticks = 0;
            const timer = setInterval(() => ticks++, 1);
            losses.push((await evaluate_on_cpu(request, inputs())).loss);
            clearInterval(timer);
            // 4·10⁹ operations and more, with a pause after every 25 ms
            if (ticks < 5) throw new Error(`${ticks} ticks with a budget of ${budget}`);
        }
        if (Math.abs(losses[0] - losses[1]) > 1e-4 * losses[0]) throw new Error(`${losses}`);
    },

    'no WebGPU': async () => {
        Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined });
        const { default: init, Session } = await import('/web/dist/browser_tests.js');
        await init();
        const found = await Session.open().then(() => 'opened', (error) => error.message);
        if (!/^NoAdapter: .*no WebGPU/.test(found)) throw new Error(found);
    },

    'a refused operation and a lost device': async () => {
        const { default: init, Session, Inputs } = await import('/web/dist/browser_tests.js');
        await init();
        const session = await Session.open();
        const refused = await session.read_destroyed().then(() => 'read', (error) => error.message);
        if (!/^Device: .*destroyed/i.test(refused)) throw new Error(refused);
        const request = JSON.stringify({
            loss: {},
            shape: { rows: 2, classes: 3, dim: 4 },
            want: {},
            elements: { embeddings: 'f32', prototypes: 'f32' },
            options: { tile: 'direct' },
        });
        const inputs = () => new Inputs(new Float32Array(8).fill(1), new Float32Array(12).fill(1), Int32Array.of(0, 2));
        // goes on after an error
        const { loss } = await session.evaluate(request, inputs(), false);
        if (Math.abs(loss - Math.log(3)) > 1e-5) throw new Error(`the loss of equal cosines is ${loss}, not log 3`);
        session.lose();
        for (const turn of ['at once', 'later']) {
            const lost = await session.evaluate(request, inputs(), false).then(() => 'evaluated', (error) => error.message);
            if (!/^DeviceLost: /.test(lost)) throw new Error(`${turn}: ${lost}`);
        }
    },
};

export default async ({ page, check }) => {
    await inPage({ page, check }, tests);
    for (const [how, expected] of Object.entries({
        missing: /^NoAdapter: this browser has no WebGPU/,
        adapter: /^NoAdapter: WebGPU is there, but no adapter answered/,
        secure: /^NoAdapter: WebGPU is off on pages from an insecure address/,
    })) {
        await check(`module: no WebGPU: ${how}`, async () => {
            const bare = await page();
            const found = await bare.evaluate(lacking, how);
            if (!expected.test(found)) throw new Error(found);
            clean(bare);
            await bare.close();
        });
    }
    for (const [name, test] of Object.entries(rust)) {
        await check(`rust: ${name}`, async () => {
            const bare = await page();
            await bare.evaluate(test);
            clean(bare);
            await bare.close();
        });
    }
};
