// One loss trained on the CPU: the library as wasm.

import { CpuHead, strength } from './margin_softmax_demo.js';
import { CLASSES, DIM, LENGTHS, ROWS, factors, move } from './motion.js';

export const MEAN_LENGTH = (LENGTHS[0] + LENGTHS[1]) / 2;

export class CpuRun {
    kind = 'cpu';

    /** Same calls as GpuRun's. `data` is taken over as the start. */
    static async create({ loss, data }) {
        return new CpuRun(loss, data);
    }

    constructor(loss, data) {
        this.note = '';
        this.wanted = loss;
        this.restart(data);
    }

    /** From these dots, with a fresh head: the loss' own state is in there. */
    restart(data) {
        this.head?.free();
        this.head = new CpuHead(JSON.stringify(this.wanted), ROWS, CLASSES, DIM);
        this.update(this.wanted);
        this.data = { embeddings: data.embeddings.slice(), prototypes: data.prototypes.slice(), labels: data.labels };
    }

    /** Another loss of any kind. Throws the library's words if it is refused; the old one then stays. */
    update(loss) {
        const text = JSON.stringify(loss);
        this.head.update(text);
        this.wanted = loss;
        this.strength = strength(text, CLASSES, MEAN_LENGTH);
    }

    /** Trains `count` steps; `step` is the number of the first. */
    async run({ count, step, rate, jitter }) {
        const { embeddings, prototypes, labels } = this.data;
        const factor = factors(rate, this.strength);
        const begun = performance.now();
        const losses = new Float32Array(count);
        for (let i = 0; i < count; i++) {
            losses[i] = this.head.evaluate(embeddings, prototypes, labels, true);
            move(embeddings, this.head.grad_embeddings, factor.embeddings, jitter, step + i);
            move(prototypes, this.head.grad_prototypes, factor.prototypes, 0, step + i);
        }
        return { losses, milliseconds: (performance.now() - begun) / count };
    }

    lost() {
        return false;
    }

    destroy() {
        this.head.free();
    }
}
