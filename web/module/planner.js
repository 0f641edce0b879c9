// The planner: which losses there are, and which kernels run on which buffers.

import * as glue from '../dist/planner.js';
import packed from '../dist/planner_wasm.js';
import { MarginSoftmaxError, asked, fail } from './errors.js';
import { scheduledLoss } from './schedules.js';

/** The wasm that this package carries as text: nothing is fetched, and a bundler has no file to copy. */
const unpacked = () => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
};

/** The planner: a wasm module of 184 kB (compressed) that knows the losses, their kernels and how to cut the work. */
export class Planner {
    #losses;

    /** For `load`. */
    constructor(losses) {
        if (!Array.isArray(losses)) fail('Usage', '`await Planner.load()` makes a planner');
        this.#losses = losses;
    }

    /**
     * Starts the planner. Its wasm is a part of this package, so that a page, a worker, a bundle and Node need no more than
     * this call. `wasm` supplies it instead: the bytes of `margin-softmax/planner.wasm`, a compiled module, a response, or
     * a URL. One instance serves all planners of a page or worker: the first call decides.
     */
    static async load({ wasm, ...unknown } = {}) {
        const [extra] = Object.keys(unknown);
        if (extra) fail('Name', `\`${extra}\` is not a known setting; known is: wasm`);
        try {
            await glue.default({ module_or_path: wasm ?? unpacked() });
            return new Planner(JSON.parse(glue.losses()));
        } catch (error) {
            const hint = wasm === undefined ? '' : '; `wasm` is its bytes, a compiled module, a response, or a URL that `fetch` can read';
            throw new MarginSoftmaxError('Format', `the planner's wasm does not start: ${error.message}${hint}`, { cause: error });
        }
    }

    /** The named losses and where their numbers come from. */
    losses() {
        return this.#losses.map(({ name, source }) => ({ name, source }));
    }

    /** A named loss as plain data, to be changed and given to a head; a loss that is plain data already is returned as it is. */
    loss(loss) {
        if (typeof loss !== 'string') return loss;
        const found = this.#losses.find(({ name }) => name === loss);
        if (!found) {
            const known = this.#losses.map(({ name }) => name).join(', ');
            fail('Name', `\`${loss}\` is not a known loss; known are: ${known}`);
        }
        return structuredClone(found.loss);
    }

    /**
     * A loss as it is in a training step under schedules `{ m2: { start, end, from, until, ramp }, … }` of m0 to m3, margin and scale,
     * and the number `top_k`, spelled as in the crate's JSON. For `evaluate` and `update`: nothing is compiled anew.
     */
    scheduled(loss, schedules, step) {
        // whole: what is left out of plain data has its default
        const whole = JSON.parse(asked(() => glue.whole(JSON.stringify(this.loss(loss)))));
        const next = scheduledLoss(whole, schedules, step);
        asked(() => glue.curve(JSON.stringify(next), new Float64Array()));
        return next;
    }

    /** φ(x) and dφ/dx at target cosines x, without the scale: what a loss does to the logit of the labelled class. */
    curve(loss, cosines) {
        const text = JSON.stringify(this.loss(loss));
        const both = asked(() => glue.curve(text, Float64Array.from(cosines)));
        const half = both.length / 2;
        return { values: both.slice(0, half), slopes: both.slice(half) };
    }

    /** The plan of a request in JSON: buffers, kernels, steps. What `Head.create` uses. */
    plan(request) {
        return asked(() => new glue.Planned(JSON.stringify(request)));
    }
}
