// A head bound to buffers.

import { foreign, overlaps, rangeOf } from './buffers.js';
import { COPY_DST, COPY_SRC, STORAGE, UNIFORM, alive, guarded, sharedOf } from './device.js';
import { asked, camel, fail, only } from './errors.js';
import { firstState, onDevice, stateOf } from './state.js';

/** Soft labels: both or none. */
const SOFT = ['softClasses', 'softWeights'];

/** The whole numbers from `first` to before `end`. */
const range = (first, end) => Array.from({ length: end - first }, (_, i) => first + i);

/** A head bound to buffers. */
export class Bound {
    #head;
    #shared;
    #own = [];
    #buffers;
    #uniform;
    #steps;
    #sizes;
    #loss;
    #call;
    #state;
    #training = false;
    #parts;

    /** Made by `Head.bind` and `Predictor.bind`. */
    static async make(head, io) {
        const { device, plan, loss } = head;
        alive(sharedOf(device));
        const sizes = head.bytes();
        const entries = Object.entries(io ?? {}).filter(([, given]) => given !== undefined && given !== null);
        for (const [name] of entries) {
            if (SOFT.includes(name) && plan.soft_labels === 0) {
                fail('Combination', `${name}: the plan has no soft labels: ask for them with options.soft_labels`);
            }
            if (!(name in sizes)) {
                fail('Name', `\`${name}\` is no tensor of this head; known are: ${Object.keys(sizes).join(', ')}`);
            }
        }
        const given = new Map(entries.map(([name, one]) => [name, Array.isArray(one) ? one : [one]]));
        const alone = SOFT.filter((name) => given.has(name));
        const lacking = SOFT.find((name) => !given.has(name));
        if (alone.length === 1) fail('Missing', `\`${lacking}\` is missing: there are ${alone[0]}`);
        for (const [name, list] of given) {
            const expected = Array.isArray(sizes[name]) ? sizes[name].length : 1;
            if (list.length !== expected) {
                fail('Length', `\`${name}\` has ${list.length} buffers, expected ${expected}: one for each shard of head.plan.shards`);
            }
        }
        const ranges = plan.buffers.map((buffer) => {
            if (buffer.role === 'workspace') return undefined;
            const name = camel(buffer.name);
            const one = given.get(name)?.[buffer.shard];
            if (one) return rangeOf(one, name, [sizes[name]].flat()[buffer.shard], device);
            if (buffer.role === 'given') fail('Missing', `\`${name}\` is missing: the plan reads or writes it`);
            return undefined;
        });
        overlaps(plan, ranges);

        const call = { rows: head.shape.rows };
        for (const flag of ['class_weights', 'row_weights', 'upstream', 'class_margins', 'row_margins']) {
            call[flag] = given.has(camel(flag));
        }
        call.soft_labels = alone.length > 0;
        if ((call.class_margins || call.row_margins) && loss.target && !loss.target.unified) {
            fail('Combination', 'classMargins, rowMargins: only a unified target has m0..m3');
        }
        const bound = new Bound();
        bound.#head = head;
        bound.#shared = sharedOf(device);
        const settings = bound.#settings(loss, call);
        try {
            await guarded(device, () => bound.#allocate(ranges, settings, given.has('state')));
        } catch (error) {
            bound.destroy();
            throw error.code === 'Device' ? ((await foreign(device, plan, ranges)) ?? error) : error;
        }
        return bound;
    }

    #allocate(ranges, { loss, call, bytes, sizes }, hasState) {
        const { device, plan, pipelines } = this.#head;
        const make = (label, size, usage) => {
            const buffer = device.createBuffer({ label, size, usage });
            this.#own.push(buffer);
            return buffer;
        };
        const usage = STORAGE | COPY_SRC | COPY_DST;
        this.#buffers = plan.buffers.map(
            ({ name, bytes }, i) => ranges[i] ?? { buffer: make(name, bytes, usage), offset: 0, size: bytes },
        );
        const table = this.#head.planned.parts();
        const parts = make('parts', table.byteLength, UNIFORM | COPY_DST);
        this.#uniform = make('settings', plan.uniforms[0], UNIFORM | COPY_DST);
        device.queue.writeBuffer(parts, 0, table);

        const groups = new Map();
        const groupOf = (step) => {
            const key = `${step.kernel}:${step.buffers}`;
            if (!groups.has(key)) {
                const storage = step.buffers.map((b, i) => ({ binding: i + 2, resource: this.#buffers[b] }));
                const entries = [
                    { binding: 0, resource: { buffer: this.#uniform, size: plan.uniforms[0] } },
                    { binding: 1, resource: { buffer: parts, size: plan.uniforms[1] } },
                    ...storage,
                ];
                const { layout } = pipelines[step.kernel];
                groups.set(key, device.createBindGroup({ label: plan.kernels[step.kernel].name, layout, entries }));
            }
            return groups.get(key);
        };
        this.#steps = [...plan.forward, ...plan.backward].map((step) => ({
            pipeline: pipelines[step.kernel].pipeline,
            group: groupOf(step),
            offsets: [step.part * plan.part_stride],
        }));
        this.#apply(loss, call, bytes, sizes);
        this.#state = firstState(this.#head.planned, loss, this.#head.shape.classes);
        if (!hasState) this.#write('state', onDevice(this.#state));
        this.#draw();
    }

    /**
     * Goes on from a state like `head.state`, by default the one before the first step: writes the numbers that follow the
     * batch, and what ElasticFace draws in this step. Recorded training steps move the numbers on the device alone, and
     * count no steps: say `step` in `update`.
     */
    setState(state = firstState(this.#head.planned, this.#loss, this.#head.shape.classes)) {
        this.#check();
        this.#giveUp();
        const checked = stateOf(this.#head.planned, state);
        this.#write('state', onDevice(checked));
        this.#state = checked;
        this.#draw();
    }

    /** The settings of a loss and a call, or the error that refuses them; changes nothing. */
    #settings(loss, call) {
        const bytes = asked(() => this.#head.planned.settings(JSON.stringify(loss), JSON.stringify(call)));
        const sizes = asked(() => this.#head.planned.dispatches(JSON.stringify(call)));
        return { loss, call, bytes, sizes };
    }

    #apply(loss, call, bytes, sizes) {
        this.#head.device.queue.writeBuffer(this.#uniform, 0, bytes);
        [this.#loss, this.#call, this.#sizes] = [loss, call, sizes];
    }

    #write(name, values) {
        const i = this.#head.plan.buffers.findIndex((b) => b.name === name);
        if (i < 0 || values.length === 0) return;
        const { buffer, offset } = this.#buffers[i];
        if (!(buffer.usage & COPY_DST)) {
            fail('Usage', `the buffer of \`${name}\` was made without the usage COPY_DST: add GPUBufferUsage.COPY_DST`);
        }
        this.#head.device.queue.writeBuffer(buffer, offset, values);
    }

    /** A buffer of the workspace, as a copy takes it. For `evaluate` and `predict`. */
    workspace(name) {
        const { buffer, offset } = this.#buffers[this.#head.plan.buffers.findIndex((b) => b.name === name)];
        return { buffer, offset };
    }

    #draw() {
        if (!this.#head.plan.buffers.some((b) => b.name === 'draws')) return;
        const [step, seed] = [this.#state.step, this.#state.seed].map(BigInt);
        this.#write('draws', asked(() => this.#head.planned.draws(JSON.stringify(this.#loss), this.#call.rows, step, seed)));
    }

    /**
     * A new loss (margins, scale, …) or call: one queue write, which holds for every later submit. Nothing is compiled or
     * allocated. What is left out stays as it is.
     *
     * `rows`: rows of the batch, at most as planned. `accumulate`: gradients are added to what their buffers hold: true, false, or
     * `{ embeddings, prototypes }`. `divisor`: what a mean is divided by, in the place of the weights of its rows; null for those.
     * `training`: what is recorded from now on is a training step, in which the state moves first (AdaFace, AdaCos,
     * CurricularFace). `step`, `seed`: of ElasticFace's draws. Record again after `rows` or `training` changed.
     */
    update(loss = this.#loss, changes = {}) {
        this.#check();
        this.#giveUp();
        only('option', changes, ['rows', 'accumulate', 'divisor', 'training', 'step', 'seed']);
        const { rows, accumulate, divisor, training, step = this.#state.step, seed = this.#state.seed } = changes;
        const next = this.#head.planner.loss(loss);
        if (this.#call.upstream && (next.reduction === 'none') !== (this.#loss.reduction === 'none')) {
            fail('Combination', 'reduction: the bound upstream gradient has the length of the old one; bind again');
        }
        const call = { ...this.#call };
        if (rows !== undefined) call.rows = rows;
        if (accumulate !== undefined) {
            const { embeddings = false, prototypes = false } =
                typeof accumulate === 'boolean' ? { embeddings: accumulate, prototypes: accumulate } : accumulate;
            only('gradient', typeof accumulate === 'boolean' ? {} : accumulate, ['embeddings', 'prototypes']);
            [call.accumulate_embeddings, call.accumulate_prototypes] = [embeddings, prototypes];
        }
        if (divisor !== undefined) call.divisor = divisor;
        const settings = this.#settings(next, call);
        const state = stateOf(this.#head.planned, { ...this.#state, step, seed });
        this.#apply(next, call, settings.bytes, settings.sizes);
        this.#state = state;
        this.#draw();
        if (training !== undefined) this.#training = training;
    }

    /** Which of the bound inputs count from now on. For `evaluate`. */
    use({ loss, training, state }, call) {
        this.#check();
        this.#parts = undefined;
        const { bytes, sizes } = this.#settings(loss, call);
        this.#apply(loss, call, bytes, sizes);
        this.setState(state);
        this.#training = training;
    }

    /** Records statistics and loss. */
    recordForward(encoder) {
        this.#check();
        this.#parts = undefined;
        this.#record('forward', encoder, this.#forward());
    }

    /** Records the gradients. One follows each forward pass of this bound set: it may overwrite the cosines kept by it. */
    recordBackward(encoder) {
        this.#check();
        this.#whole();
        this.#record('backward', encoder, this.#backward());
    }

    /**
     * What `recordForward` records, in parts that take at most `options.work_per_submit` each (one, if the head was made
     * without it): functions that each take an encoder, for a submit of their own, in this order. The results are there, with the
     * bits of one submit, after the last. Recording a whole forward pass, `forwardParts`, `update` or `setState` before that
     * gives the rest up: they, and the backward pass, then throw `Unfinished`.
     */
    forwardParts() {
        this.#check();
        return this.#divided(this.#forward());
    }

    /** What `recordBackward` records, in such parts. */
    backwardParts() {
        this.#check();
        this.#whole();
        return this.#divided(this.#backward());
    }

    /** Both passes. For `evaluate`. */
    allParts() {
        this.#check();
        return this.#divided([...this.#forward(), ...this.#backward()]);
    }

    #forward() {
        const { targets, follow, statistics, losses } = this.#head.plan.stages;
        const from = this.#training ? follow[0] : statistics[0];
        return [...range(targets[0], targets[1]), ...range(from, losses[1])];
    }

    #backward() {
        return range(this.#head.plan.forward.length, this.#steps.length);
    }

    #divided(steps) {
        const ends = this.#head.planned.part_ends(Uint32Array.from(steps));
        const call = { next: 0, count: ends.length };
        this.#parts = call;
        return Array.from(ends, (end, i) => (encoder) => {
            this.#check();
            if (this.#parts !== call || call.next !== i) {
                fail('Unfinished', `part ${i + 1} of ${call.count} is not the next to be recorded: begin a forward pass anew`);
            }
            call.next += 1;
            this.#record('part', encoder, steps.slice(ends[i - 1] ?? 0, end));
        });
    }

    /** Refuses a backward pass where the call before was recorded in part. */
    #whole() {
        const { next, count } = this.#parts ?? { next: 0, count: 0 };
        if (next < count) fail('Unfinished', `${next} of ${count} parts of the last call were recorded: begin a forward pass anew`);
    }

    /** The parts that are left can be recorded no more. */
    #giveUp() {
        if (this.#parts && this.#parts.next < this.#parts.count) this.#parts = { ...this.#parts };
    }

    #record(label, encoder, steps) {
        const pass = encoder.beginComputePass({ label });
        for (const i of steps) {
            const x = this.#sizes[3 * i];
            if (x === 0) continue;
            const { pipeline, group, offsets } = this.#steps[i];
            pass.setPipeline(pipeline);
            pass.setBindGroup(0, group, offsets);
            pass.dispatchWorkgroups(x, this.#sizes[3 * i + 1], this.#sizes[3 * i + 2]);
        }
        pass.end();
    }

    /** Frees the workspace; the caller's buffers stay. */
    destroy() {
        this.#own.forEach((buffer) => buffer.destroy());
        this.#own = [];
        this.#steps = undefined;
    }

    #check() {
        alive(this.#shared);
        if (!this.#steps) fail('Missing', 'this bound set was destroyed: bind again');
    }
}
