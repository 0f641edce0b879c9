// One loss: its picker, sliders, sphere, figures and histogram, and the run that trains it.

import { curves, presets } from './margin_softmax_demo.js';
import { binned, histogram } from './charts.js';
import { CpuRun } from './cpu.js';
import { GpuRun } from './gpu.js';
import { changed, controls, grouped, shown, title } from './losses.js';
import { CLASSES, DIM, angles } from './motion.js';
import { Sphere } from './sphere.js';
import { onTheme } from './theme.js';

/** Angles of a curve: one per degree. */
export const ANGLES = 181;

let known;
/** The library's named losses, by name. */
function named(name) {
    known ??= new Map(JSON.parse(presets()).map((p) => [p.name, p]));
    return name ? known.get(name) : [...known.values()];
}

/** An element with properties and children. */
function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
        if (key.includes('-') || key === 'role' || key === 'for') made.setAttribute(key, value);
        else made[key] = value;
    }
    made.append(...children);
    return made;
}

export class Panel {
    /** `host` has `gpu()`, the device to use or nothing for the CPU; `changed(panel)`; `tell(text)`. */
    constructor(letter, preset, place, view, host) {
        Object.assign(this, { letter, host, ready: false, run: null, token: 0 });
        const low = letter.toLowerCase();
        const figure = (name, text) => {
            this[name] = element('dd', { textContent: '–' });
            return element('div', {}, element('dt', { textContent: text }), this[name]);
        };
        this.select = element('select', { id: `loss-${low}` });
        for (const [group, names] of grouped(named())) {
            const options = names.map(([value, text]) => element('option', { value, textContent: text }));
            this.select.append(element('optgroup', { label: group }, ...options));
        }
        this.canvas = element('canvas', { tabIndex: 0, role: 'img' });
        this.bar = element('progress', { max: 1, value: 0, 'aria-label': `Preparing loss ${letter}` });
        this.task = element('span');
        this.veil = element('div', { className: 'veil', hidden: true }, this.bar, this.task);
        this.source = element('p', { className: 'source' });
        this.controls = element('div', { className: 'controls' });
        this.refusal = element('p', { className: 'refusal', role: 'alert', hidden: true });
        const bars = element('div', { className: 'histogram' });
        place.append(
            element(
                'section',
                { className: `card panel of-${low}`, 'aria-label': `Loss ${letter}` },
                element('div', { className: 'head' }, element('span', { className: 'badge', textContent: letter, 'aria-hidden': 'true' }),
                    element('label', { for: `loss-${low}`, className: 'hidden', textContent: `Loss ${letter}` }), this.select),
                element('div', { className: 'body' },
                    element('div', { className: 'stage' }, this.canvas, this.veil),
                    element('div', { className: 'side' }, this.source, this.controls, this.refusal)),
                element('dl', { className: 'figures' }, figure('loss_', 'loss'), figure('right_', 'right'), figure('own_', 'mean θ'),
                    figure('other_', 'next other'), figure('time_', 'time per step')),
                bars,
            ),
        );
        this.sphere = new Sphere(this.canvas, view);
        this.bars = histogram(bars, `Histogram of the angles with loss ${letter}`, low);
        onTheme(() => (this.sphere.dirty = true));
        this.select.addEventListener('change', () => this.choose(this.select.value));
        this.choose(preset);
    }

    get title() {
        return title(this.preset);
    }

    /** The named loss from now on. */
    choose(name) {
        this.preset = this.select.value = name;
        const { source, loss } = named(name);
        this.source.textContent = `Numbers of ${source}.`;
        this.start = loss;
        this.build(controls(loss));
        this.set(loss);
    }

    /** Sliders for what the loss has. */
    build(list) {
        const more = element('div');
        const main = element('div');
        list.forEach((control, i) => {
            const id = `${this.letter}-${i}`;
            const label = element('label', { for: id, textContent: control.label });
            let field;
            if (control.choices) {
                const options = control.choices.map(([value, text]) => element('option', { value: JSON.stringify(value), textContent: text }));
                const input = element('select', { id }, ...options);
                input.value = JSON.stringify(control.value);
                input.addEventListener('change', () => this.set(changed(this.wanted, control, JSON.parse(input.value))));
                field = element('div', { className: 'field choice' }, label, input);
            } else {
                const value = element('output', { for: id, textContent: shown(control, control.value) });
                const { min, max, step } = control;
                const input = element('input', { id, type: 'range', min, max, step });
                input.value = control.value;
                const tell = () => input.setAttribute('aria-valuetext', value.textContent);
                tell();
                input.addEventListener('input', () => {
                    value.textContent = shown(control, input.valueAsNumber);
                    tell();
                    this.set(changed(this.wanted, control, input.valueAsNumber));
                });
                field = element('div', { className: 'field' }, label, value, input);
            }
            field.dataset.path = control.paths[0];
            (control.more ? more : main).append(field);
        });
        this.controls.replaceChildren(main);
        if (more.children.length) {
            this.controls.append(element('details', {}, element('summary', { textContent: 'More of this loss' }), more));
        }
    }

    /** Another loss: at once if the run can take it, else with new kernels. A refused one is told, and the old one stays. */
    async set(loss) {
        this.wanted = loss;
        try {
            const curve = curves(JSON.stringify(loss), CLASSES, DIM, ANGLES);
            if (this.ready) this.run.update(loss);
            [this.curve, this.loss] = [curve, loss];
            this.refuse('');
        } catch (error) {
            if (error.code === 'Recompile') {
                this.loss = loss;
                await this.rebuild();
            } else if (this.run?.kind === 'gpu' && this.host.lost()) {
                return;
            } else {
                this.refuse(error.message);
            }
        }
        this.host.changed(this);
    }

    refuse(text) {
        this.refusal.hidden = !text;
        this.refusal.textContent = text && `Not possible: ${text}. The loss before stays in force.`;
    }

    progress(done, total, name) {
        this.veil.hidden = false;
        this.bar.value = total ? done / total : 0;
        this.task.textContent = name ? `Compiling ${done} of ${total}: ${name}` : 'Preparing …';
    }

    /** A run for the loss as it is, on the device in force; the dots stay where they are. */
    rebuild() {
        return (this.building = this.replace());
    }

    async replace() {
        const token = ++this.token;
        this.ready = false;
        await this.current?.catch(() => {});
        if (token !== this.token) return;
        const old = this.run;
        this.run = null;
        try {
            old?.destroy();
        } catch {
            // a lost device has nothing left to free
        }
        this.progress(0, 0, '');
        const { gpu, loss, data } = { gpu: this.host.gpu(), loss: this.loss, data: this.data };
        let run = null;
        if (gpu) {
            try {
                run = await GpuRun.create({ ...gpu, loss, data, onProgress: (...at) => token === this.token && this.progress(...at) });
            } catch (error) {
                if (this.host.lost()) return;
                this.host.tell(`${this.title} runs on the CPU: ${error.message}`);
            }
        }
        try {
            run ??= await CpuRun.create({ loss, data });
        } catch (error) {
            this.refuse(error.message);
            this.veil.hidden = true;
            return;
        }
        if (token !== this.token) {
            run.destroy();
            return;
        }
        Object.assign(this, { run, ready: true });
        this.veil.hidden = true;
        if (this.wanted !== loss) await this.set(this.wanted);
        this.host.changed(this);
    }

    /** The dots to begin with; what a loss has learnt about its batches is forgotten. */
    async place(data) {
        this.data = data;
        const { run } = this;
        try {
            await run?.restart(data);
        } catch (error) {
            // replaced meanwhile: its successor begins with these dots
            if (run === this.run && !this.host.lost()) throw error;
        }
        this.show();
    }

    /** Trains; the losses of the steps, or nothing where the run was replaced meanwhile. */
    async advance(steps) {
        await this.building;
        if (!this.ready) return null;
        const { run } = this;
        this.current = run.run(steps);
        let found;
        try {
            found = await this.current;
        } catch (error) {
            // the page makes another run for a lost device
            if (run !== this.run || (await run.lost())) return null;
            throw error;
        }
        if (run !== this.run) return null;
        const { losses, milliseconds } = found;
        this.data = run.data;
        this.milliseconds = this.milliseconds ? 0.9 * this.milliseconds + 0.1 * milliseconds : milliseconds;
        this.last = losses.at(-1);
        return losses;
    }

    /** The sphere alone, which may be drawn more often than the figures. */
    follow() {
        this.sphere.show(this.data, this.sphere.right);
    }

    /** Sphere, figures and histogram from the dots as they are. */
    show() {
        const { own, other, right } = angles(this.data);
        const mean = (all) => all.reduce((a, b) => a + b, 0) / all.length;
        this.means = { own: mean(own), other: mean(other), right: mean([...right]) };
        this.sphere.show(this.data, right);
        this.bars.set(binned(own, other));
        this.loss_.textContent = this.last === undefined ? '–' : this.last < 0.001 ? this.last.toExponential(1) : this.last.toPrecision(3);
        this.right_.textContent = `${(100 * this.means.right).toFixed(1)} %`;
        this.own_.textContent = `${this.means.own.toFixed(1)}°`;
        this.other_.textContent = `${this.means.other.toFixed(1)}°`;
        this.time_.textContent = this.milliseconds === undefined ? '–' : `${this.milliseconds.toPrecision(3)} ms`;
        const words = `Sphere of loss ${this.letter}, ${this.title}: ${this.right_.textContent} of the dots are right, mean angle ${this.own_.textContent}. Arrow keys turn it.`;
        if (this.words !== words) this.canvas.setAttribute('aria-label', (this.words = words));
    }
}
