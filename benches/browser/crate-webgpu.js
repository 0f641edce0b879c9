// This crate through web/margin-softmax.js: buffers stay on the device, a step is recorded, submitted and read back.

export async function start({ module, preset, tile }, { rows, classes, dim, x, w, labels }) {
    const { Planner, Head, requestDevice } = await import(module);
    const planner = await Planner.load();
    const { device, adapter } = await requestDevice();
    const head = await Head.create(device, planner, {
        loss: 'arcface',
        shape: { rows, classes, dim, sub_centers: 1 },
        options: { preset, tile },
    });
    const io = await head.createBuffers();
    const bound = await head.bind(io);
    const inputs = [io.embeddings, [io.prototypes].flat()[0], io.labels];
    [x, w, labels].forEach((values, i) => device.queue.writeBuffer(inputs[i], 0, values));
    bound.update(undefined, { rows });
    const outputs = [io.loss, io.gradEmbeddings, [io.gradPrototypes].flat()[0]];
    const bytes = [4, 4 * x.length, 4 * w.length];
    const starts = [0, 4, 4 + bytes[1]];
    const staging = device.createBuffer({
        size: bytes[0] + bytes[1] + bytes[2],
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const { vendor, architecture, description } = adapter.info;
    return {
        about: { device: description || `${vendor} ${architecture}`, threads: 1, plan: head.plan.schedule },
        async step() {
            const encoder = device.createCommandEncoder();
            bound.recordForward(encoder);
            bound.recordBackward(encoder);
            outputs.forEach((from, i) => encoder.copyBufferToBuffer(from, 0, staging, starts[i], bytes[i]));
            device.queue.submit([encoder.finish()]);
            await staging.mapAsync(GPUMapMode.READ);
            const all = new Float32Array(staging.getMappedRange().slice(0));
            staging.unmap();
            return { loss: all[0], dx: all.subarray(1, 1 + x.length), dw: all.subarray(1 + x.length) };
        },
    };
}
