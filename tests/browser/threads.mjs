// The CPU path in wasm on several threads: `web-build --threads`, which takes a nightly toolchain. Without that build the tests
// are skipped by name.

import { existsSync } from 'node:fs';
import { join } from 'node:path';

const MODULE = '/web/dist/threads/browser_tests.js';

const large = { rows: 256, classes: 5_994, dim: 192 };
/** All cosines kept, computed twice, and with a scan of its own. */
const STEPS = {
    'kept': { loss: {}, shape: large, options: {} },
    'computed twice': { loss: {}, shape: large, options: { budget: 3 << 20 } },
    'other margins, a filter': { loss: { others: { top_k: { count: 5 } } }, shape: { rows: 70, classes: 3_001, dim: 65 }, options: { filter: 1e-4 } },
};

/** In the page: every step in a worker of its own with so many threads. */
const inWorker = async ([module, threads, steps, runs]) => {
    const worker = new Worker('/tests/browser/threads.worker.js', { type: 'module' });
    const found = {};
    for (const [name, request] of Object.entries(steps)) {
        const answer = new Promise((resolve, reject) => {
            worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
            worker.onerror = (event) => reject(new Error(event.message));
        });
        worker.postMessage({ module, threads, request, runs });
        const { bits, ms } = await answer;
        found[name] = { ms, bits };
    }
    worker.terminate();
    globalThis.found ??= {};
    globalThis.found[`${module} ${threads}`] = found;
    return Object.fromEntries(Object.entries(found).map(([name, { ms }]) => [name, ms]));
};

/** In the page: a step on its own thread, with the ticks of a timer meanwhile. */
const onPage = async ([module, threads, name, request]) => {
    const { open, step } = await import('/tests/browser/threads.worker.js');
    const crate = await open(module, threads);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const { bits } = await step(crate, request, 1);
    clearInterval(timer);
    globalThis.found['page'] = { [name]: { bits } };
    return ticks;
};

/** In the page: what differs from the first. */
const differences = () => {
    const [[first, expected], ...others] = Object.entries(globalThis.found);
    const wrong = [];
    for (const [run, found] of others) {
        for (const [name, { bits }] of Object.entries(found)) {
            bits.forEach((list, k) => {
                const all = expected[name].bits[k];
                const at = list.findIndex((value, i) => value !== all[i]);
                if (list.length !== all.length || at >= 0) wrong.push(`${name}, list ${k}, value ${at}: ${run} and ${first}`);
            });
        }
    }
    return wrong;
};

export default async ({ page, check, root }) => {
    const name = 'rust: threads have the bits of one';
    if (!existsSync(join(root, MODULE))) {
        console.log(`skipped: ${name} (web-build --threads, which needs rustup's nightly with rust-src)`);
        return;
    }
    await check(name, async () => {
        const own = await page();
        if (!(await own.evaluate(() => globalThis.crossOriginIsolated))) throw new Error('the page is not isolated');
        const times = {};
        for (const threads of [1, 2, 3]) {
            times[threads] = await own.evaluate(inWorker, [MODULE, threads, STEPS, threads < 3 ? 5 : 1]);
        }
        await own.evaluate(inWorker, ['/web/dist/browser_tests.js', 1, STEPS, 1]);
        const ticks = await own.evaluate(onPage, [MODULE, 2, 'kept', STEPS.kept]);
        const wrong = await own.evaluate(differences);
        if (wrong.length > 0) throw new Error(wrong.join('\n'));
        if (ticks < 2) throw new Error(`${ticks} ticks of a timer while the page computes`);
        if (own.problems.length > 0) throw new Error(own.problems.join('\n'));
        const { rows, classes, dim } = large;
        for (const [how, one] of Object.entries(times[1])) {
            console.log(`        ${how}: ${one.toFixed(1)} ms with one thread, ${times[2][how].toFixed(1)} ms with two`);
        }
        console.log(`        kept, computed twice: ${rows}×${classes}×${dim}; the page's timer ticked ${ticks} times`);
        await own.close();
    });
};
