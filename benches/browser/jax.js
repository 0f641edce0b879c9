// jax-js: one compiled function for loss and gradients.
import { defaultDevice, init, jit, nn, numpy as np, valueAndGrad } from '@jax-js/jax';
import { MARGIN, SCALE } from './data.js';

export async function start({ device }, { rows, classes, dim, x, w, labels }) {
    if (!(await init(device)).includes(device)) throw new Error(`jax-js finds no ${device}`);
    defaultDevice(device);
    const [cos, sin] = [Math.cos(MARGIN), Math.sin(MARGIN)];
    const unit = (v) => v.ref.div(np.sqrt(np.square(v).sum(1, { keepdims: true })));
    // a value is consumed by what it is passed to, unless as `.ref`
    const loss = (x, w, y) => {
        const c = np.matmul(unit(x), unit(w).transpose());
        const own = y.reshape([rows, 1]).equal(np.arange(classes).reshape([1, classes]));
        const t = np.where(own.ref, c.ref, 0).sum(1, { keepdims: true });
        const s = np.sqrt(np.maximum(t.ref.mul(-1).add(1).mul(t.ref.add(1)), 1e-8));
        const aim = np.where(t.ref.greater(-cos), t.ref.mul(cos).sub(s.mul(sin)), t.sub(1 - cos)).mul(SCALE);
        const z = np.where(own, aim.ref, c.mul(SCALE));
        return nn.logsumexp(z, 1).sub(aim.reshape([rows])).mean();
    };
    const run = jit(valueAndGrad(loss, { argnums: [0, 1] }));
    const inputs = [
        np.array(x).reshape([rows, dim]),
        np.array(w).reshape([classes, dim]),
        np.array(labels, { dtype: np.int32 }),
    ];
    const threads = device === 'wasm' && globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
    return {
        about: { device, threads },
        async step() {
            const [value, [dx, dw]] = run(...inputs.map((input) => input.ref));
            const all = await Promise.all([value.data(), dx.data(), dw.data()]);
            return { loss: all[0][0], dx: all[1], dw: all[2] };
        },
    };
}
