// Loss and gradients in a page against the f64 reference, through both paths: the ES module on a device of the page's own,
// and the crate itself compiled to wasm. The cases and the reference's answers come from tests/browser/cases.rs.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** In the page: what both paths need. */
const prepare = async (folder) => {
    const text = await (await fetch(`${folder}/cases.json`)).text();
    const bytes = await (await fetch(`${folder}/cases.bin`)).arrayBuffer();
    const pick = (Kind, [at, count]) => new Kind(bytes, at, count);
    const numbers = (kind, list) =>
        Object.fromEntries(Object.entries(list).filter(([, at]) => at).map(([name, at]) => [name, pick(kind, at)]));

    /** The worst distance, relative to the largest value expected, or to `floor`. */
    const distance = (found, expected, floor = 0) => {
        if (found.length !== expected.length) return `${found.length} values instead of ${expected.length}`;
        let [worst, largest] = [0, floor];
        for (let i = 0; i < expected.length; i++) {
            if (!Number.isFinite(found[i])) return `value ${i} is ${found[i]}`;
            worst = Math.max(worst, Math.abs(found[i] - expected[i]));
            largest = Math.max(largest, Math.abs(expected[i]));
        }
        // the gradient of a vector of one value is 0: what is left of s·2⁻²⁴/|w|
        return largest < 1e-12 ? worst / 10 : worst / largest;
    };

    globalThis.cases = JSON.parse(text).map(({ name, training, run, request, inputs, expected, normalizer, counts, report }) => {
        const { labels, softClasses, embeddingBits, prototypeBits, ...floats } = inputs;
        const bits = { embeddings: embeddingBits, prototypes: prototypeBits };
        return {
            name,
            training,
            run,
            request,
            inputs: { ...numbers(Float32Array, floats), ...numbers(Int32Array, { labels, softClasses }) },
            bits: numbers(Uint16Array, bits),
            normalizer,
            counts,
            report,
            compare(found) {
                const { loss, ...lists } = expected;
                const worst = {};
                worst.loss = Number.isFinite(found.loss) ? Math.abs(found.loss - loss) / Math.max(1, Math.abs(loss)) : `${found.loss}`;
                for (const [name, at] of Object.entries(lists)) {
                    const expected = pick(Float32Array, at);
                    // a cosine of two long vectors may be small
                    const floor = name.endsWith('Cosines') ? 1 : 0;
                    if (expected.length > 0 || found[name]?.length > 0) worst[name] = distance(found[name] ?? [], expected, floor);
                }
                return worst;
            },
        };
    });
};

/** In the page: one case through the ES module. */
const runModule = async (name) => {
    const { Planner, Head, requestDevice } = await import('/web/margin-softmax.js');
    globalThis.opened ??= Promise.all([Planner.load(), requestDevice()]);
    const [planner, { device }] = await globalThis.opened;
    const { request, inputs, bits, compare, training, normalizer, counts, report } = globalThis.cases.find((c) => c.name === name);
    const { shards, ...settings } = request;
    const head = await Head.create(device, planner, { ...settings, shards: shards ?? undefined });
    const { state, softClasses: classes, softWeights: weights, ...given } = inputs;
    const batch = { ...given, ...bits, divisor: given.divisor?.[0], softLabels: classes && { classes, weights } };
    const names = ['hardness', 'norm_mean', 'norm_deviation', 'scale'];
    const start = { ...head.state, ...(state && Object.fromEntries(names.map((name, i) => [name, state[i]]))) };
    const run = async () => {
        head.state = start;
        const out = await head.evaluate(batch, { training });
        if (head.state.step !== Number(training)) throw new Error(`${head.state.step} steps`);
        return training ? { ...out, state: Float32Array.from(names, (name) => head.state[name]) } : out;
    };
    const out = await run();
    // the same bits again
    const again = await run();
    const list = (one) => (typeof one === 'object' ? Object.values(one) : [one]);
    for (const key of Object.keys(out)) {
        const [one, two] = [list(out[key]), list(again[key])];
        if (one.some((v, i) => v !== two[i])) throw new Error(`${key} differs from run to run`);
    }
    for (const [count, expected] of Object.entries(counts)) {
        if (out.counts[count] !== expected) throw new Error(`counts: ${count} is ${out.counts[count]}, not ${expected}`);
    }
    if (!(Math.abs(out.normalizer - normalizer) <= 1e-5 * normalizer)) throw new Error(`normalizer: ${out.normalizer}, not ${normalizer}`);
    const { ignore_index } = request.loss;
    const rows = Array.from(inputs.labels.keys()).filter((i) => inputs.labels[i] !== ignore_index);
    const right = rows.filter((i) => out.targetCosines[i] > out.otherCosines[i]).length;
    if (out.accuracy !== right / rows.length) throw new Error(`accuracy: ${out.accuracy}, not ${right} of ${rows.length}`);
    const reported = head.report(batch, again, { training });
    for (const [name, expected] of Object.entries(report)) {
        const [one, two] = [[expected ?? []].flat(), [reported[name] ?? []].flat()];
        // the gates of gradients and of losses
        const most = name.endsWith('Gradient') ? 1e-4 : 1e-5;
        const far = one.length !== two.length || one.some((v, i) => !(Math.abs(v - two[i]) <= most * Math.max(1, Math.abs(v))));
        if (far) throw new Error(`report: ${name} is ${two}, not ${one}`);
    }
    if (Object.keys(reported).length !== Object.keys(report).length) throw new Error(Object.keys(reported).join());
    const { schedule } = head.plan;
    head.destroy();
    return { worst: compare({ ...out, gradScale: out.gradScale === undefined ? [] : [out.gradScale] }), schedule };
};

/** In the page: a head that trains goes on from step to step as the crate's does. */
const runSteps = async (name) => {
    const { Planner, Head, requestDevice } = await import('/web/margin-softmax.js');
    globalThis.opened ??= Promise.all([Planner.load(), requestDevice()]);
    const [planner, { device }] = await globalThis.opened;
    const { request, inputs, bits, run } = globalThis.cases.find((c) => c.name === name);
    const { shards, ...settings } = request;
    const own = { ...settings, shards: shards ?? undefined };
    const head = await Head.create(device, planner, own);
    const batch = { ...inputs, ...bits };
    head.state = { ...head.state, seed: BigInt(run.seed) };
    const worst = {};
    const close = (what, found, expected) => {
        worst[what] = Math.max(worst[what] ?? 0, Math.abs(found - expected) / Math.max(1, Math.abs(expected)));
    };
    for (const loss of run.losses) {
        // an evaluation only reads
        const before = JSON.stringify({ ...head.state, seed: 0 });
        await head.evaluate(batch);
        if (JSON.stringify({ ...head.state, seed: 0 }) !== before) throw new Error('an evaluation moved the state');
        close('loss', (await head.evaluate(batch, { training: true })).loss, loss);
    }
    const { seed, step, classes, ...numbers } = head.state;
    if (`${seed}` !== run.seed || step !== run.losses.length || classes !== run.state.classes) throw new Error(`${seed}, ${step}`);
    for (const [number, found] of Object.entries(numbers)) close(number, found, Number(run.state[number]));
    // a second head goes on where the first one is, from the crate's own spelling too
    const second = await Head.create(device, planner, own);
    second.state = head.state;
    const [one, two] = [await head.evaluate(batch, { training: true }), await second.evaluate(batch, { training: true })];
    if (one.loss !== two.loss) throw new Error(`${one.loss} and ${two.loss}`);
    second.state = { ...run.state, seed: BigInt(run.seed) };
    head.destroy();
    second.destroy();
    return worst;
};

/** In the page: one case of predictions, alone and merged from two halves of its classes. */
const runPredictions = async (entry) => {
    const { Planner, Predictor, mergePredictions, requestDevice } = await import('/web/margin-softmax.js');
    globalThis.opened ??= Promise.all([Planner.load(), requestDevice()]);
    const [planner, { device }] = await globalThis.opened;
    globalThis.numbers ??= fetch('/out/browser/cases.bin').then((response) => response.arrayBuffer());
    const bytes = await globalThis.numbers;
    const pick = (Kind, place) => place && new Kind(bytes, ...place);
    const given = (Kind, list) => Object.fromEntries(Object.entries(list).filter(([, at]) => at).map(([name, at]) => [name, pick(Kind, at)]));
    const { request, whole, floats } = entry;
    const inputs = { ...given(Float32Array, entry.inputs), ...given(Uint16Array, entry.bits) };
    const optional = { range: request.range ?? undefined, shards: request.shards ?? undefined };
    const { loss } = request;
    // of plain products as large as these are
    const size = Math.max(1, ...pick(Float32Array, floats.cosines).filter((c) => !Number.isNaN(c)).map(Math.abs));
    // cosines agree within 2e-6; a log-probability is s times one less a logarithm, which is off by as much, and rounded as an f32
    const most = { cosines: 2e-6 * size, logProbabilities: 6e-6 * size * loss.scale, logSumExps: 4e-6 * size * loss.scale };
    const check = (found, what) => {
        for (const [name, at] of Object.entries(whole)) {
            const expected = pick(Int32Array, at);
            const i = expected.findIndex((v, i) => v !== found[name][i]);
            if (i >= 0 || expected.length !== found[name].length) throw new Error(`${what}: ${name} ${i}: ${found[name][i]}, not ${expected[i]}`);
        }
        for (const [name, at] of Object.entries(floats)) {
            const expected = pick(Float32Array, at);
            const list = found[name] ?? [];
            const near = (v, i) => (Number.isNaN(v) ? Number.isNaN(list[i]) : Math.abs(v - list[i]) <= most[name]);
            const i = expected.findIndex((v, i) => !near(v, i));
            if (i >= 0 || expected.length !== list.length) throw new Error(`${what}: ${name} ${i}: ${list[i]}, not ${expected[i]}`);
        }
        for (const name of ['nonFiniteRows', 'nonFinitePrototypes']) {
            if (found[name] !== entry[name]) throw new Error(`${what}: ${name} ${found[name]}, not ${entry[name]}`);
        }
    };
    const predictor = await Predictor.create(device, planner, { ...request, ...optional });
    const { schedule } = predictor.plan;
    const parts = [];
    check(await predictor.predict(inputs, { onProgress: (done, total) => parts.push(total) }), 'alone');
    check(await predictor.predict(inputs), 'again');
    predictor.destroy();
    if (!request.range && request.shape.classes > 1) {
        const { classes, dim, sub_centers = 1 } = request.shape;
        const half = Math.floor(classes / 2);
        const halves = [];
        // each with the memory of its own classes alone, in any order
        for (const range of [[half, classes], [0, half]]) {
            const own = await Predictor.create(device, planner, { ...request, shards: undefined, range });
            const part = (values, width) => values?.subarray(range[0] * width, range[1] * width);
            const { embeddings, prototypes, bias } = inputs;
            halves.push(await own.predict({ embeddings, prototypes: part(prototypes, sub_centers * dim), bias: part(bias, 1) }));
            own.destroy();
        }
        check(mergePredictions(halves, classes), 'merged');
    }
    return { schedule, parts: parts.length };
};

/** In the page: one case through the crate in wasm. */
const runRust = async (name) => {
    const rust = await import('/web/dist/browser_tests.js');
    globalThis.rust ??= rust.default().then(() => rust.Session.open());
    const session = await globalThis.rust;
    const { request, inputs, bits, compare, training } = globalThis.cases.find((c) => c.name === name);
    const { embeddings, prototypes, labels, ...more } = inputs;
    const batch = new rust.Inputs(embeddings, prototypes, labels);
    const { softClasses, ...floats } = more;
    for (const [key, values] of Object.entries(floats)) batch.set(key, values);
    if (softClasses) batch.set_soft_classes(softClasses);
    const tensors = request.shards || Object.keys(bits).length > 0;
    const json = JSON.stringify(request);
    const out = await (tensors ? session.evaluate_tensors(json, batch) : session.evaluate(json, batch, training));
    const lists = ['rowLosses', 'logSumExps', 'targetCosines', 'otherCosines', 'gradEmbeddings', 'gradPrototypes', 'gradScale', 'gradBias', 'state'];
    const found = Object.fromEntries(lists.map((list) => [list, out.get(list)]));
    const worst = compare({ loss: out.loss, ...found });
    // tensors have none
    if (tensors) ['targetCosines', 'otherCosines'].forEach((name) => delete worst[name]);
    out.free();
    return { worst, way: tensors ? 'tensors' : 'slices' };
};

export default async ({ page, check, out }) => {
    const cases = JSON.parse(readFileSync(join(out, 'cases.json')));
    const predictions = JSON.parse(readFileSync(join(out, 'predictions.json')));
    const most = { loss: 1e-5, rowLosses: 1e-5, logSumExps: 1e-5, targetCosines: 2e-6, otherCosines: 2e-6, gradEmbeddings: 1e-4, gradPrototypes: 1e-4, gradScale: 1e-4, gradBias: 1e-4, state: 1e-5 };
    const worstOf = {};
    for (const [path, run] of Object.entries({ module: runModule, rust: runRust })) {
        const own = await page();
        await own.evaluate(prepare, '/out/browser');
        const steps = path === 'module' ? cases.filter(({ training }) => training) : [];
        for (const { name, request } of cases) {
            await check(`parity ${path} ${name}`, async () => {
                const { worst, schedule } = await own.evaluate(run, name);
                for (const [what, distance] of Object.entries(worst)) {
                    if (!(distance <= most[what])) throw new Error(`${what}: ${distance}, allowed is ${most[what]}`);
                    worstOf[what] = Math.max(worstOf[what] ?? 0, distance);
                }
                const { tile, budget } = request.options;
                if (schedule && tile && schedule.tile !== tile) throw new Error(`planned ${schedule.tile}, not ${tile}`);
                if (schedule && budget && (schedule.keep || schedule.chunks.length < 2)) throw new Error('not in chunks');
                if (own.problems.length > 0) throw new Error(own.problems.splice(0).join('\n'));
            });
        }
        for (const { name } of steps) {
            await check(`parity module ${name}, step by step`, async () => {
                for (const [what, distance] of Object.entries(await own.evaluate(runSteps, name))) {
                    if (!(distance <= 1e-5)) throw new Error(`${what}: ${distance}`);
                }
            });
        }
        await own.close();
    }
    const own = await page();
    for (const entry of predictions) {
        await check(`parity predictor ${entry.name}`, async () => {
            const { schedule, parts } = await own.evaluate(runPredictions, entry);
            const { budget, work_per_submit } = entry.request.options;
            if (budget && (schedule.keep || schedule.chunks.length < 3)) throw new Error('not in chunks');
            if (parts > 1 !== Boolean(work_per_submit)) throw new Error(`${parts} parts`);
            if (own.problems.length > 0) throw new Error(own.problems.splice(0).join('\n'));
        });
    }
    await own.close();
    console.log(`        worst: ${Object.entries(worstOf).map(([what, d]) => `${what} ${d.toExponential(1)}`).join(', ')}`);
};
