// The planner in the page; the planner and a device in a module worker.

import { curve } from './work.js';

const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
const answer = new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => resolve({ failed: message ?? 'the worker does not load' });
});
globalThis.found = { page: await curve().catch((error) => error.stack), worker: await answer };
