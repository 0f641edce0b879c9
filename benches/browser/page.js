// One peer in a page of its own: window.peer is what run.mjs drives.
import { check, make } from './data.js';

const peers = {
    'crate-webgpu': () => import('./crate-webgpu.js'),
    'crate-wasm': () => import('./crate-wasm.js'),
    'crate-threads': () => import('./crate-threads.js'),
    jax: () => import('./jax.js'),
    tfjs: () => import('./tfjs.js'),
};

let data, running;

window.peer = {
    /** Makes the inputs and what runs on them; resolves to what computes, { device, threads }. */
    async start(module, options, shape) {
        data = make(shape);
        running = await (await peers[module]()).start(options, data);
        return running.about;
    },
    /** One step: its milliseconds from inputs where the peer keeps them to loss and gradients in the page's own arrays. */
    async step() {
        const start = performance.now();
        const found = await running.step();
        return { ms: performance.now() - start, loss: found.loss };
    },
    /** What a step's result differs by from a plain f64 computation, each relative to its largest value. */
    async check() {
        return check(data, await running.step());
    },
};
