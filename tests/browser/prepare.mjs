// What the tests of the module share.

/** In the page: a small head and what its tests share. */
export const prepare = async () => {
    const module = await import('/web/margin-softmax.js');
    const planner = await module.Planner.load();
    const { device } = await module.requestDevice();
    const uncaptured = [];
    device.onuncapturederror = (event) => uncaptured.push(event.error.message);
    const handler = device.onuncapturederror;
    const shape = { rows: 8, classes: 70, dim: 12 };
    const settings = { loss: 'arcface', shape, options: { tile: 'direct' } };
    const wave = (count, step) => Float32Array.from({ length: count }, (_, i) => Math.sin(1 + i * step));
    const batch = {
        embeddings: wave(8 * 12, 0.7),
        prototypes: wave(70 * 12, 1.3),
        labels: Int32Array.from({ length: 8 }, (_, i) => i * 5),
    };
    const head = await module.Head.create(device, planner, settings);
    const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = (size, usage = STORAGE) => device.createBuffer({ size, usage });
    const read = async (source, offset, bytes) => {
        const staging = device.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(source, offset, staging, 0, bytes);
        device.queue.submit([encoder.finish()]);
        await staging.mapAsync(GPUMapMode.READ);
        return new Float32Array(staging.getMappedRange().slice());
    };
    /** What a call is refused with. */
    const refused = async (call) => {
        try {
            await call();
        } catch (error) {
            if (!(error instanceof module.MarginSoftmaxError)) throw error;
            return `${error.code}: ${error.message}`;
        }
        throw new Error(`not refused: ${call}`);
    };
    const same = (what, found, expected) => {
        if (found.length !== expected.length) throw new Error(`${what}: ${found.length} values, not ${expected.length}`);
        const i = expected.findIndex((v, i) => !Object.is(v, found[i]));
        if (i >= 0) throw new Error(`${what}: value ${i} is ${found[i]}, not ${expected[i]}`);
    };
    Object.assign(globalThis, { ...module, planner, device, uncaptured, handler, shape, settings, batch, head });
    Object.assign(globalThis, { wave, buffer, read, refused, same });
};

/** Runs tests in one page, each under its name. */
export const inPage = async ({ page, check }, tests) => {
    const own = await page();
    await own.evaluate(prepare);
    for (const [name, test] of Object.entries(tests)) {
        await check(`module: ${name}`, async () => {
            await own.evaluate(test);
            clean(own);
        });
    }
    await own.close();
};

/** Fails with what the page said. */
export const clean = (one) => {
    if (one.problems.length > 0) throw new Error(one.problems.splice(0).join('\n'));
};
