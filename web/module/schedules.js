// Margins and scale that change over the steps of a run: the crate's `Schedules`.

import { fail, only } from './errors.js';

const MARGINS = ['m0', 'm1', 'm2', 'm3'];
const RAMPS = ['linear', 'exponential'];

/** A training step: a whole number from 0, a BigInt beyond 2^53. */
const stepOf = (name, value) => {
    if (typeof value === 'bigint' ? value < 0n : !(Number.isSafeInteger(value) && value >= 0)) {
        fail('Parameter', `\`${name}\` is ${value}, expected a number of a training step`);
    }
    return BigInt(value);
};

/** A schedule that holds together, its steps as BigInt. */
const checked = (name, given) => {
    if (typeof given !== 'object' || given === null) fail('Parameter', `\`schedules.${name}\` is ${given}, expected { start, end, from, until }`);
    only('number of a schedule', given, ['start', 'end', 'from', 'until', 'ramp']);
    const { start, end, ramp = 'exponential' } = given;
    if (!Number.isFinite(start)) fail('Parameter', `\`schedule.start\` is ${start}, allowed is a finite number`);
    if (!Number.isFinite(end) || !Number.isFinite(end - start)) {
        fail('Parameter', `\`schedule.end\` is ${end}, allowed is a finite number, at a finite distance from start`);
    }
    const [from, until] = [stepOf('schedule.from', given.from), stepOf('schedule.until', given.until)];
    if (until < from) fail('Parameter', `\`schedule.until\` is ${until}, allowed is until >= from`);
    if (!RAMPS.includes(ramp)) fail('Name', `\`${ramp}\` is not a known ramp; known are: ${RAMPS.join(', ')}`);
    return { start, end, from, until, ramp };
};

/** The value of a step. */
const valueAt = ({ start, end, from, until, ramp }, step) => {
    if (step < from) return start;
    if (step >= until) return end;
    const p = Number(step - from) / Number(until - from);
    const r = ramp === 'linear' ? p : 1 - Math.exp(p * Math.log(1e-3 / (1 + 1e-6)));
    // rounding must not pass the end
    return Math.min(Math.max(start + (end - start) * r, Math.min(start, end)), Math.max(start, end));
};

/** A loss, as whole plain data, as it is in a step; not checked yet. */
export const scheduledLoss = (loss, schedules, given) => {
    only('scheduled number', schedules, [...MARGINS, 'margin', 'scale', 'top_k']);
    const step = stepOf('step', given);
    const there = Object.entries(schedules).filter(([name, one]) => name !== 'top_k' && one !== undefined && one !== null);
    const values = Object.fromEntries(there.map(([name, one]) => [name, valueAt(checked(name, one), step)]));
    const { scale, margin, ...margins } = values;
    const next = structuredClone(loss);
    const { unified, angle, power } = next.target;
    if (Object.keys(margins).length > 0 && !unified) fail('Combination', 'schedules: only a unified target has m0..m3');
    Object.assign(unified ?? {}, margins);
    if (margin !== undefined) {
        const own = angle ?? power;
        if (!own) fail('Combination', 'schedules.margin: only Li-ArcFace, ArcGrad and SphereFace2 have it; a unified target has m0..m3');
        own.margin = margin;
        if (power && next.others.power) next.others.power.margin = margin;
    }
    if (scale !== undefined) {
        if (next.adaptive === 'adacos') fail('Combination', 'schedules.scale: dynamic AdaCos sets the scale');
        next.scale = scale;
    }
    const most = schedules.top_k;
    if (most !== undefined && most !== null) {
        if (!Number.isFinite(most)) fail('Parameter', `\`schedules.top_k\` is ${most}, allowed is a finite number`);
        if (!unified || !next.others.top_k) fail('Combination', 'schedules.top_k: it needs inter-topk and the m2 of a unified target');
        next.others.top_k.margin = unified.m2 > 0.001 ? most * (unified.m2 / 0.2) : 0;
    }
    return next;
};
