// See crate-threads.js.
import { open } from './crate-wasm.js';

let step;
addEventListener('message', async ({ data: { module, threads, data } }) => {
    try {
        if (module) {
            const crate = await import(module);
            const head = await crate.default();
            if (threads > 1) await crate.initThreadPool(threads);
            step = open(head, data);
            postMessage({});
        } else {
            const { loss, dx, dw } = step();
            postMessage({ loss, dx, dw }, [dx.buffer, dw.buffer]);
        }
    } catch (error) {
        postMessage({ error: `${error.stack ?? error}` });
    }
});
