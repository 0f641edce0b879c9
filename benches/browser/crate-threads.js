// The same on several threads: a worker of the page's computes, whose thread may wait for the others.

export async function start({ module, threads }, data) {
    const worker = new Worker('/benches/browser/crate-threads.worker.js', { type: 'module' });
    const ask = (what) =>
        new Promise((resolve, reject) => {
            worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
            worker.onerror = (event) => reject(new Error(event.message));
            worker.postMessage(what);
        });
    await ask({ module, threads, data });
    return { about: { device: 'wasm', threads }, step: () => ask({}) };
}
