// This crate's CPU path, compiled from benches/browser/head.

/** A head in a module's memory, and its step. */
export function open(head, { rows, classes, dim, x, w, labels }) {
    const bench = head.create(rows, classes, dim, 256 << 20);
    if (!bench) throw new Error('the head was refused');
    const at = (Type, address, length) => new Type(head.memory.buffer, address, length);
    at(Float32Array, head.embeddings(bench), x.length).set(x);
    at(Float32Array, head.prototypes(bench), w.length).set(w);
    at(Int32Array, head.labels(bench), rows).set(labels);
    return () => {
        const loss = head.step(bench);
        const read = (address, length) => at(Float32Array, address, length).slice();
        return { loss, dx: read(head.grad_embeddings(bench), x.length), dw: read(head.grad_prototypes(bench), w.length) };
    };
}

export async function start({ file }, data) {
    const { instance } = await WebAssembly.instantiateStreaming(fetch(file));
    const step = open(instance.exports, data);
    return { about: { device: 'wasm', threads: 1 }, step: async () => step() };
}
