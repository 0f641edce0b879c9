// Node, with the package's own wasm (`node node.js`) and with bytes (`node node.js bytes`). Prints what it found.

import { readFile } from 'node:fs/promises';
import { Planner } from 'margin-softmax';

const refused = (how) => Planner.load(how).then(() => 'loaded', ({ code, message }) => `${code}: ${message}`);
const file = new URL(import.meta.resolve('margin-softmax/planner.wasm'));
const errors = [
    await refused({ wasn: 1 }),
    await refused({ wasm: new Uint8Array(4) }),
    // Node's `fetch` reads no files
    await refused({ wasm: file }),
];
const how = process.argv[2] === 'bytes' ? { wasm: await readFile(file) } : undefined;
const planners = await Promise.all([Planner.load(how), Planner.load(how)]);
const values = planners.map((planner) => [...planner.curve('cosface', [-0.5, 0.25]).values]);
console.log(JSON.stringify({ errors, values }));
