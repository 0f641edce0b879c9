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

    /** The worst distance, relative to the largest value expected. */
    const distance = (found, expected) => {
        if (found.length !== expected.length) return `${found.length} values instead of ${expected.length}`;
        let [worst, largest] = [0, 0];
        for (let i = 0; i < expected.length; i++) {
            if (!Number.isFinite(found[i])) return `value ${i} is ${found[i]}`;
            worst = Math.max(worst, Math.abs(found[i] - expected[i]));
            largest = Math.max(largest, Math.abs(expected[i]));
        }
        // the gradient of a vector of one value is 0: what is left of s·2⁻²⁴/|w|
        return largest < 1e-12 ? worst / 10 : worst / largest;
    };

    globalThis.cases = JSON.parse(text).map(({ name, training, run, request, inputs, expected }) => {
        const { labels, embeddingBits, prototypeBits, ...floats } = inputs;
        const bits = { embeddings: embeddingBits, prototypes: prototypeBits };
        return {
            name,
            training,
            run,
            request,
            inputs: { ...numbers(Float32Array, floats), labels: pick(Int32Array, labels) },
            bits: numbers(Uint16Array, bits),
            compare(found) {
                const { loss, ...lists } = expected;
                const worst = {};
                worst.loss = Number.isFinite(found.loss) ? Math.abs(found.loss - loss) / Math.max(1, Math.abs(loss)) : `${found.loss}`;
                for (const [name, at] of Object.entries(lists)) {
                    const expected = pick(Float32Array, at);
                    if (expected.length > 0 || found[name]?.length > 0) worst[name] = distance(found[name] ?? [], expected);
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
    const { request, inputs, bits, compare, training } = globalThis.cases.find((c) => c.name === name);
    const { shards, ...settings } = request;
    const head = await Head.create(device, planner, { ...settings, shards: shards ?? undefined });
    const { state, ...given } = inputs;
    const batch = { ...given, ...bits, divisor: given.divisor?.[0] };
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
    const list = (one) => (typeof one === 'number' ? [one] : one);
    for (const key of Object.keys(out)) {
        if (list(out[key]).some((v, i) => v !== list(again[key])[i])) throw new Error(`${key} differs from run to run`);
    }
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

/** In the page: one case through the crate in wasm. */
const runRust = async (name) => {
    const rust = await import('/web/dist/browser_tests.js');
    globalThis.rust ??= rust.default().then(() => rust.Session.open());
    const session = await globalThis.rust;
    const { request, inputs, bits, compare, training } = globalThis.cases.find((c) => c.name === name);
    const { embeddings, prototypes, labels, ...more } = inputs;
    const batch = new rust.Inputs(embeddings, prototypes, labels);
    for (const [key, values] of Object.entries(more)) batch.set(key, values);
    const tensors = request.shards || Object.keys(bits).length > 0;
    const json = JSON.stringify(request);
    const out = await (tensors ? session.evaluate_tensors(json, batch) : session.evaluate(json, batch, training));
    const lists = ['rowLosses', 'logSumExps', 'gradEmbeddings', 'gradPrototypes', 'gradScale', 'gradBias', 'state'];
    const found = Object.fromEntries(lists.map((list) => [list, out.get(list)]));
    const worst = compare({ loss: out.loss, ...found });
    out.free();
    return { worst, way: tensors ? 'tensors' : 'slices' };
};

export default async ({ page, check, out }) => {
    const cases = JSON.parse(readFileSync(join(out, 'cases.json')));
    const most = { loss: 1e-5, rowLosses: 1e-5, logSumExps: 1e-5, gradEmbeddings: 1e-4, gradPrototypes: 1e-4, gradScale: 1e-4, gradBias: 1e-4, state: 1e-5 };
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
    console.log(`        worst: ${Object.entries(worstOf).map(([what, d]) => `${what} ${d.toExponential(1)}`).join(', ')}`);
};
