// TensorFlow.js: eager operations and their gradients.
import * as tf from '@tensorflow/tfjs-core';
import { getThreadsCount, setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import '@tensorflow/tfjs-backend-webgpu';
import { MARGIN, SCALE } from './data.js';

export async function start({ device, wasm }, { rows, classes, dim, x, w, labels }) {
    if (device === 'wasm') setWasmPaths(wasm);
    if (!(await tf.setBackend(device))) throw new Error(`TensorFlow.js does not start with ${device}`);
    await tf.ready();
    const [cos, sin] = [Math.cos(MARGIN), Math.sin(MARGIN)];
    const unit = (v) => tf.div(v, tf.sqrt(tf.sum(tf.square(v), 1, true)));
    const own = tf.cast(tf.oneHot(tf.tensor1d(labels, 'int32'), classes), 'float32');
    // on wasm its own gradient of a product takes twice as long as transposed copies, on WebGPU it is the faster one
    const product = tf.customGrad((a, b, save) => {
        save([a, b]);
        const gradFunc = (dy, [a, b]) => [tf.matMul(dy, b), tf.matMul(tf.transpose(dy), a)];
        return { value: tf.matMul(a, tf.transpose(b)), gradFunc };
    });
    const cosines = device === 'wasm' ? product : (a, b) => tf.matMul(a, b, false, true);
    const loss = (x, w) => {
        const c = cosines(unit(x), unit(w));
        const t = tf.sum(tf.mul(c, own), 1, true);
        const s = tf.sqrt(tf.maximum(tf.mul(tf.sub(1, t), tf.add(1, t)), 1e-8));
        // a comparison has no gradient here, not even zero, and a step has
        const above = tf.step(tf.add(t, cos));
        const margin = tf.sub(tf.mul(t, cos), tf.mul(s, sin));
        const line = tf.sub(t, 1 - cos);
        const aim = tf.add(line, tf.mul(above, tf.sub(margin, line)));
        const z = tf.mul(tf.add(c, tf.mul(own, tf.sub(aim, t))), SCALE);
        return tf.mean(tf.sub(tf.logSumExp(z, 1), tf.mul(tf.squeeze(aim, [1]), SCALE)));
    };
    const run = tf.valueAndGrads(loss);
    const inputs = [tf.tensor2d(x, [rows, dim]), tf.tensor2d(w, [classes, dim])];
    return {
        about: { device, threads: device === 'wasm' ? getThreadsCount() : 1 },
        async step() {
            const { value, grads } = tf.tidy(() => run(inputs));
            const all = await Promise.all([value, ...grads].map((tensor) => tensor.data()));
            tf.dispose([value, ...grads]);
            return { loss: all[0][0], dx: all[1], dw: all[2] };
        },
    };
}
