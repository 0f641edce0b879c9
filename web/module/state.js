// The numbers that a run must keep.

import { asked } from './errors.js';

/** A whole number of 64 bits: a number where that is exact, else a BigInt. */
const whole = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value));

/** The numbers of a state that may be broken, in the order of the crate. */
const FOLLOWS = ['hardness', 'norm_mean', 'norm_deviation', 'scale'];

/** A number, or a string that holds one, as the crate writes it; NaN for everything else. */
const numberOf = (value) => (typeof value === 'number' || (typeof value === 'string' && value.trim()) ? Number(value) : NaN);

/** The crate's JSON of a state without its broken numbers, since JSON has no NaN, and these. */
export const stateText = (state) => {
    const text = (name, value) => {
        if (FOLLOWS.includes(name)) return '0';
        return typeof value === 'bigint' ? `${value}` : (JSON.stringify(value) ?? 'null');
    };
    const fields = Object.entries(state ?? {}).map(([name, value]) => `${JSON.stringify(name)}:${text(name, value)}`);
    return [`{${fields}}`, Float64Array.from(FOLLOWS, (name) => numberOf(state?.[name]))];
};

/** A state of the caller's, checked and copied. */
export const stateOf = (planned, state) => {
    const [text, broken] = stateText(state);
    asked(() => planned.check_state(text, broken));
    const { classes, step, seed } = state;
    const numbers = Object.fromEntries(FOLLOWS.map((name, i) => [name, broken[i]]));
    return { classes: Number(classes), step: whole(step), seed: whole(seed), ...numbers };
};

/** The state before the first step. */
export const firstState = (planned, loss, classes) => {
    const [hardness, norm_mean, norm_deviation, scale] = asked(() => planned.state(JSON.stringify(loss)));
    return { classes, step: 0, seed: 0, hardness, norm_mean, norm_deviation, scale };
};

/** Of a state, what lies on the device. */
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
