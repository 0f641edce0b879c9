// The numbers that a run must keep.

import { asked } from './errors.js';

/** A whole number of 64 bits: a number where that is exact, else a BigInt. */
const whole = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value));

/** A state as the crate writes it in JSON: digits for whole numbers, strings for all others, NaN among them. */
const stateText = (state) => {
    const text = (value) => {
        if (typeof value === 'bigint') return `${value}`;
        return typeof value === 'number' && !Number.isInteger(value) ? `"${value}"` : (JSON.stringify(value) ?? 'null');
    };
    return `{${Object.entries(state ?? {}).map(([name, value]) => `${JSON.stringify(name)}:${text(value)}`)}}`;
};

/** A state of the caller's, checked and copied. */
export const stateOf = (planned, state) => {
    asked(() => planned.check_state(stateText(state)));
    const { classes, step, seed, hardness, norm_mean, norm_deviation, scale } = state;
    const numbers = { hardness, norm_mean, norm_deviation, scale };
    for (const name of Object.keys(numbers)) numbers[name] = Number(numbers[name]);
    return { classes: Number(classes), step: whole(step), seed: whole(seed), ...numbers };
};

/** The state before the first step. */
export const firstState = (planned, loss, classes) => {
    const [hardness, norm_mean, norm_deviation, scale] = asked(() => planned.state(JSON.stringify(loss)));
    return { classes, step: 0, seed: 0, hardness, norm_mean, norm_deviation, scale };
};

/** Of a state, what lies on the device. */
const FOLLOWS = ['hardness', 'norm_mean', 'norm_deviation', 'scale'];

export const onDevice = (state) => {
    const numbers = Float32Array.from(FOLLOWS, (name) => state[name]);
    // a device takes a scale of 0 for one that was never written
    numbers[3] = Math.max(numbers[3], 2 ** -126);
    return numbers;
};

/** The state after a training step; a number that came back as it was sent keeps full precision. */
export const movedState = (state, numbers) => {
    const moved = { ...state, step: whole(BigInt(state.step) + 1n) };
    const sent = onDevice(state);
    FOLLOWS.forEach((name, i) => {
        if (numbers && numbers[i] !== sent[i]) moved[name] = numbers[i];
    });
    return moved;
};
