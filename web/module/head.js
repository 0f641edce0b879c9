// A planned head, compiled.

import { batchReport } from './batch_report.js';
import { Bound } from './bound.js';
import { Compiled, Turns } from './compiled.js';
import { fail, only } from './errors.js';
import { Slices } from './slices.js';
import { firstState, movedState, stateOf } from './state.js';

/** A planned head, compiled: bind it to any number of sets of buffers. */
export class Head extends Compiled {
    #slices;
    #state;
    #turns = new Turns();
    #pending = 0;

    /**
     * Plans and compiles. `settings`: `loss` (a name or plain data), `shape` { rows, classes, dim, sub_centers? }, and
     * optionally `want`, `elements`, `shards`, `options`, all spelled as in the crate's JSON. `onProgress(done, total,
     * name)` is called once before and once after every kernel.
     */
    static async create(device, planner, settings, hooks) {
        only('setting', settings, ['loss', 'shape', 'want', 'elements', 'shards', 'options']);
        const head = await this.make(device, planner, settings, hooks);
        head.#state = firstState(head.planned, head.loss, head.shape.classes);
        return head;
    }

    /** Frees the plan and what `evaluate` made. Bound sets are destroyed on their own. */
    destroy() {
        this.#slices?.destroy();
        this.#slices = undefined;
        super.destroy();
    }

    /**
     * Allocates a workspace and binds the caller's buffers: `GPUBuffer`s or `{ buffer, offset, size }`. Two bound sets are
     * independent of each other and may be recorded into one submit.
     */
    async bind(io) {
        return Bound.make(this, io);
    }

    /**
     * What a run must keep: training steps so far, the seed of what is drawn, and what follows the batches; spelled as the
     * crate's `State` in JSON. Moved by training calls of `evaluate` that succeed, only read by all others. Set it to go on
     * from a state that was kept; while a call is under way it can only be read.
     */
    get state() {
        return { ...this.#state };
    }

    set state(state) {
        const checked = stateOf(this.planned, state);
        if (this.#pending > 0) fail('Combination', 'state: a call of evaluate is under way; await it first');
        this.#state = checked;
    }

    /**
     * Loss and gradients of one batch of typed arrays: uploads, records, submits, reads back. Its buffers are made once;
     * calls run one after the other. `loss`: the head's loss with other numbers. `training`: a training step:
     * `state` moves first, then the step counts; an error leaves it as it was. With `options.work_per_submit` the work is
     * submitted in parts, one when the one before is done; `onProgress(done, total)` is called after each;
     * `false` stops the call.
     */
    evaluate(batch, options = {}) {
        this.#pending += 1;
        return this.#turns.run(async () => {
            try {
                if (options.step !== undefined || options.seed !== undefined) {
                    fail('Name', '`step` and `seed` are no options of evaluate: set them in head.state');
                }
                only('option', options, ['loss', 'training', 'onProgress']);
                const { loss = this.loss, training = false, onProgress } = options;
                this.#slices ??= new Slices(this);
                const how = { loss: this.planner.loss(loss), training, state: this.#state, onProgress };
                const { numbers, ...out } = await this.#slices.run(batch, how);
                if (training) this.#state = movedState(this.#state, numbers);
                return out;
            } finally {
                this.#pending -= 1;
            }
        });
    }

    /**
     * Lengths, margins, parts of the loss and gradients of a batch, from what `evaluate` returned for it: numbers for a log. `loss`
     * and `training` as they were there; `state`: that after the call, by default `head.state`.
     */
    report(batch, out, options = {}) {
        only('option', options, ['loss', 'training', 'state']);
        const { loss = this.loss, training = false, state = this.#state } = options;
        return batchReport(this, batch, out, { loss: this.planner.loss(loss), training, state });
    }
}
