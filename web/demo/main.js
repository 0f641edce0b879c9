// The page: loads the library, finds a device, and trains two losses step by step, side by side.

import init from './margin_softmax_demo.js';
import { Planner, requestDevice } from './margin-softmax.js';
import { curveChart, lossChart } from './charts.js';
import { MAX_STEPS } from './gpu.js';
import { scatter } from './motion.js';
import { ANGLES, Panel } from './panel.js';
import { View } from './sphere.js';

const $ = (id) => document.getElementById(id);

const state = {
    running: false,
    hold: false,
    step: 0,
    seed: 1,
    /** Device and planner where there is a GPU that is not lost. */
    gpu: null,
    wanted: 'cpu',
    rebuilt: 0,
    history: [[], [], []],
};
let panels = [];
let charts = {};
let current = Promise.resolve();
let touched = true;
let drawn = 0;

/** One message per `id`; an empty text takes it away. */
function notice(id, text, kind = 'info') {
    $(`notice-${id}`)?.remove();
    if (!text) return;
    const line = document.createElement('p');
    Object.assign(line, { id: `notice-${id}`, className: `notice ${kind}` });
    const close = document.createElement('button');
    Object.assign(close, { type: 'button', textContent: 'Close', onclick: () => line.remove() });
    line.append(Object.assign(document.createElement('span'), { textContent: text }), close);
    $('notices').append(line);
}

const host = {
    gpu: () => (state.wanted === 'gpu' ? state.gpu : null),
    lost: () => state.wanted === 'gpu' && !state.gpu,
    changed: () => (touched = true),
    tell: (text) => notice('run', text, 'warning'),
};

/** A device, or nothing and a message why. */
async function findDevice(again) {
    if (!navigator.gpu) {
        const why = isSecureContext ? 'This browser has no WebGPU' : 'WebGPU needs a page from https or from this machine';
        notice('gpu', `${why}, so the CPU computes: the same library as WebAssembly.`, 'warning');
        return null;
    }
    try {
        const [{ device, adapter }, planner] = await Promise.all([requestDevice(), Planner.load()]);
        const gpu = { device, planner, name: nameOf(adapter) };
        device.lost.then((info) => lost(gpu, info));
        device.addEventListener('uncapturederror', (event) => notice('error', `The GPU reports: ${event.error.message}`, 'warning'));
        return gpu;
    } catch (error) {
        notice('gpu', `No GPU answers${again ? ' any more' : ''}, so the CPU computes: the same library as WebAssembly. (${error.message})`, 'warning');
        return null;
    }
}

function nameOf({ info = {} }) {
    const name = info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(' ') || 'GPU without a name';
    return /swiftshader|llvmpipe/i.test(name + info.architecture) ? `${name} (software)` : name;
}

/** A lost device is made anew once; after a second loss the CPU takes over. */
async function lost(gpu, { message, reason }) {
    if (state.gpu !== gpu) return;
    state.gpu = null;
    const why = message || reason || 'no reason given';
    notice('gpu', `The GPU was lost (${why}). Looking for it again …`, 'warning');
    if (state.rebuilt < 1) {
        state.rebuilt += 1;
        state.gpu = await findDevice(true);
        if (state.gpu) notice('gpu', `The GPU was lost (${why}). A new device took over and training goes on.`);
    } else {
        notice('gpu', `The GPU was lost again (${why}), so the CPU computes: the same library as WebAssembly.`, 'warning');
    }
    if (!state.gpu) state.wanted = 'cpu';
    await rebuild();
}

/** Runs on the device in force, for both losses. */
async function rebuild() {
    showDevice();
    for (const panel of panels) {
        panel.ready = false;
        panel.progress(0, 0, '');
    }
    for (const panel of panels) {
        panel.milliseconds = undefined;
        await panel.rebuild();
    }
    showDevice();
    touched = true;
}

function showDevice() {
    const gpu = host.gpu();
    const made = panels.map((p) => p.run?.note).filter(Boolean);
    $('device').textContent = gpu ? gpu.name : `WebAssembly, one thread${state.gpu ? '' : '; no GPU'}`;
    for (const radio of document.getElementsByName('device')) {
        radio.checked = radio.value === (gpu ? 'gpu' : 'cpu');
        radio.disabled = radio.value === 'gpu' && !state.gpu;
    }
    $('about').textContent = gpu && made.length ? `Loss A: ${made[0]}. Loss B: ${made[1] ?? '…'}.` : '';
}

/** Nothing trains while `change` runs. */
async function exclusively(change) {
    state.hold = true;
    await current.catch(() => {});
    try {
        await change();
    } finally {
        state.hold = false;
    }
}

function restart() {
    return exclusively(async () => {
        state.step = 0;
        state.history = [[], [], []];
        const data = scatter(state.seed);
        for (const panel of panels) {
            panel.last = undefined;
            await panel.place(data);
        }
        touched = true;
    });
}

/** Trains both losses by the same steps. */
async function advance(count) {
    if (state.hold || !panels.every((p) => p.ready)) return;
    const steps = { count, step: state.step, rate: $('rate').valueAsNumber, jitter: $('jitter').valueAsNumber };
    // one after the other, so that each has the device to itself and its time is its own
    const losses = [];
    for (const panel of panels) losses.push(await panel.advance(steps));
    if (!losses.every(Boolean)) return;
    for (let i = 0; i < count; i++) {
        [state.step + i, losses[0][i], losses[1][i]].forEach((v, k) => state.history[k].push(v));
    }
    state.step += count;
    // every second one of a long course
    if (state.history[0].length > 4000) state.history = state.history.map((all) => all.filter((_, i) => i % 2 === 0));
    touched = true;
}

function train(count) {
    current = advance(count).catch((error) => {
        setRunning(false);
        notice('run', `Training stopped: ${error.message}`, 'warning');
    });
    return current;
}

function setRunning(on) {
    state.running = on;
    $('run').textContent = on ? 'Pause' : 'Start';
    $('step').disabled = on;
}

const clean = (all) => Array.from(all, (v) => (Number.isFinite(v) ? v : null));

/** Charts from curves and history. */
function draw() {
    const theta = Array.from({ length: ANGLES }, (_, i) => i);
    const part = (p, k) => (p.curve?.length ? clean(p.curve.subarray(k * ANGLES, (k + 1) * ANGLES)) : theta.map(() => null));
    const kind = $('gradient').value;
    const names = panels.map((p) => `${p.letter}: ${p.title}`);
    charts.value.set([theta, part(panels[0], 0), part(panels[1], 0), theta.map((t) => Math.cos((t * Math.PI) / 180))]);
    for (const [name, chart] of Object.entries(charts)) {
        const shown = name === kind || !['slope', 'pull'].includes(name);
        chart.place.hidden = !shown;
        [0, 1].forEach((i) => chart.name(i + 1, names[i]));
    }
    charts[kind].set([theta, part(panels[0], kind === 'pull' ? 2 : 1), part(panels[1], kind === 'pull' ? 2 : 1)]);
    charts.loss.set([state.history[0], ...[1, 2].map((k) => state.history[k].map((v) => (v > 0 ? Math.max(v, 1e-9) : null)))]);
    hint(kind);
    for (const panel of panels) panel.show();
}

/** What the curves leave out. */
function hint(kind) {
    const of = (p) => {
        if (!p.curve?.length) return `${p.title} is a loss over plain products: it has no curve over the angle.`;
        if (p.loss.adaptive?.adaface || p.loss.adaptive?.magface) return `${p.title} gives every dot a margin of its own: its curve is drawn without.`;
        return '';
    };
    const pull = (p) => (kind === 'pull' && p.curve?.length && Number.isNaN(p.curve[2 * ANGLES + 90]) ? `The theory does not cover the pull of ${p.title}.` : '');
    const said = (texts) => [...new Set(texts.filter(Boolean))].join(' ');
    $('value-hint').textContent = said(panels.map(of));
    $('gradient-hint').textContent = said(panels.map(pull));
}

function frame(now) {
    requestAnimationFrame(frame);
    if (state.running && !state.busy) {
        state.busy = true;
        train($('speed').valueAsNumber).finally(() => (state.busy = false));
    }
    if (touched && now - drawn > 60) {
        [touched, drawn] = [false, now];
        draw();
    } else if (state.running) {
        for (const panel of panels) panel.follow();
    }
    for (const panel of panels) panel.sphere.draw();
}

function wire() {
    const output = (id, text) => {
        const tell = () => {
            $(`${id}-out`).textContent = text($(id).valueAsNumber);
            $(id).setAttribute('aria-valuetext', $(`${id}-out`).textContent);
        };
        $(id).addEventListener('input', tell);
        tell();
    };
    $('speed').max = MAX_STEPS;
    output('speed', (v) => `${v} ${v === 1 ? 'step' : 'steps'} per frame`);
    output('rate', (v) => `${v.toFixed(3)} rad`);
    output('jitter', (v) => (v ? `${v.toFixed(3)} rad` : 'none'));
    $('run').addEventListener('click', () => setRunning(!state.running));
    $('step').addEventListener('click', () => train(1));
    $('reset').addEventListener('click', restart);
    $('shuffle').addEventListener('click', () => {
        state.seed += 1;
        restart();
    });
    $('gradient').addEventListener('change', () => (touched = true));
    for (const radio of document.getElementsByName('device')) {
        radio.addEventListener('change', () => exclusively(() => {
            state.wanted = radio.value;
            return rebuild();
        }));
    }
    for (const id of ['run', 'step', 'reset', 'shuffle']) $(id).disabled = false;
}

async function main() {
    await init();
    charts = {
        value: curveChart($('chart-value'), 'Logit of the own class over the angle, for both losses', {
            unit: 'φ (logit / scale)',
            reference: 'cos θ',
            range: (_, low, high) => [Math.min(-1.5, Math.floor(2 * (low ?? 0)) / 2), Math.max(1, Math.ceil(2 * (high ?? 0)) / 2)],
        }),
        // the exact slope has no bound at 0°
        slope: curveChart($('chart-slope'), 'Slope of the curve over the angle, for both losses', {
            unit: 'dφ/d cos θ',
            range: (_, low, high) => [Math.max(-2, Math.min(0, Math.floor(low ?? 0))), Math.min(5, Math.max(2, Math.ceil(high ?? 0)))],
        }),
        pull: curveChart($('chart-pull'), 'Pull on a dot over the angle, for both losses', {
            unit: 'dL/dθ (per rad)',
            range: (_, low, high) => [Math.min(0, low ?? 0), 1.05 * Math.max(1, high ?? 0)],
        }),
        loss: lossChart($('chart-loss')),
    };
    const view = new View();
    panels = [new Panel('A', 'normface', $('panels'), view, host), new Panel('B', 'arcface', $('panels'), view, host)];
    const data = scatter(state.seed);
    for (const panel of panels) await panel.place(data);
    wire();
    requestAnimationFrame(frame);
    state.gpu = await findDevice();
    state.wanted = state.gpu ? 'gpu' : 'cpu';
    await rebuild();
    if (!matchMedia('(prefers-reduced-motion: reduce)').matches) setRunning(true);
}

main().catch((error) => notice('load', `The page could not start: ${error.message}`, 'warning'));

// for the tests
globalThis.demo = { state, panels: () => panels, train, restart };
