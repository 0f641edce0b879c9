// The crate in a worker: the page says which build and how many threads, and what to compute.

/** Numbers that look random, as the page makes them too. */
const values = (count) => Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 2003) / 1000 - 1);

/** Every number that comes out, as bits. */
export const bitsOf = (out) => {
    const lists = ['rowLosses', 'logSumExps', 'gradEmbeddings', 'gradPrototypes', 'gradBias'].map((name) => out.get(name));
    const all = [Float32Array.of(out.loss), ...lists];
    out.free();
    return all.map((list) => new Uint32Array(list.buffer));
};

/** Opens a build with so many threads; one of several instances a worker cannot have. */
export const open = async (module, threads) => {
    const crate = await import(module);
    await crate.default();
    if (threads > 1) await crate.initThreadPool(threads);
    return crate;
};

/** One step: its bits, and the shortest of some times in milliseconds. */
export const step = async ({ evaluate_on_cpu, Inputs }, { loss, shape, options }, runs) => {
    const { rows, classes, dim } = shape;
    const elements = { embeddings: 'f32', prototypes: 'f32' };
    const request = JSON.stringify({ loss, shape, want: {}, elements, options });
    const [x, w, labels] = [values(rows * dim), values(classes * dim), Int32Array.from({ length: rows }, (_, i) => (i * 31) % classes)];
    let [bits, shortest] = [undefined, Infinity];
    for (let run = 0; run < runs; run++) {
        const inputs = new Inputs(x, w, labels);
        const start = performance.now();
        const out = await evaluate_on_cpu(request, inputs);
        shortest = Math.min(shortest, performance.now() - start);
        bits = bitsOf(out);
    }
    return { bits, ms: shortest };
};

// imported by a page too, where there is nothing to answer
if (globalThis.DedicatedWorkerGlobalScope) {
    let crate;
    addEventListener('message', async ({ data: { module, threads, request, runs } }) => {
        try {
            crate ??= await open(module, threads);
            postMessage(await step(crate, request, runs));
        } catch (error) {
            postMessage({ error: `${error.stack ?? error}` });
        }
    });
}
