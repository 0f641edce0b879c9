// This crate's CPU path, compiled from benches/browser/head.

export async function start({ file }, { rows, classes, dim, x, w, labels }) {
    const { instance } = await WebAssembly.instantiateStreaming(fetch(file));
    const head = instance.exports;
    const bench = head.create(rows, classes, dim, 256 << 20);
    if (!bench) throw new Error('the head was refused');
    const at = (Type, address, length) => new Type(head.memory.buffer, address, length);
    at(Float32Array, head.embeddings(bench), x.length).set(x);
    at(Float32Array, head.prototypes(bench), w.length).set(w);
    at(Int32Array, head.labels(bench), rows).set(labels);
    return {
        about: { device: 'wasm', threads: 1 },
        async step() {
            const loss = head.step(bench);
            const read = (address, length) => at(Float32Array, address, length).slice();
            return { loss, dx: read(head.grad_embeddings(bench), x.length), dw: read(head.grad_prototypes(bench), w.length) };
        },
    };
}
