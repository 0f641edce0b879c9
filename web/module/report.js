// What a batch reports of its rows, read from the workspace.

import { camel } from './errors.js';

/** Reads the bytes of the workspaces `rows` and `batch` of a plan. */
export const reportOf = ({ report }, rows, batch) => {
    const { row, states, batch: words } = report;
    const [whole, floats] = [new Uint32Array(rows ?? 0), new Float32Array(rows ?? 0)];
    const numbers = new Uint32Array(batch);
    const length = whole.length / row.size;
    const { size, normalizer, ...names } = words;
    const counts = Object.fromEntries(Object.entries(names).map(([name, at]) => [camel(name), numbers[at]]));
    const broken = counts.nonFinitePrototypes > 0;
    const [counted, short, nonFinite] = states;
    const state = (i) => whole[i * row.size + row.state];
    /** Whether row i has a finite loss. */
    const known = (i) => !broken && (state(i) === counted || state(i) === short);
    const list = (value) => Float32Array.from({ length }, (_, i) => value(i));
    return {
        known,
        nonFiniteRows: Array.from({ length }, (_, i) => state(i)).filter((one) => one === nonFinite).length,
        targetCosines: list((i) => (known(i) ? floats[i * row.size + row.cosine] : 0)),
        // that of a row without another class
        otherCosines: list((i) => (broken ? -1 : floats[i * row.size + row.nearest])),
        normalizer: new Float32Array(batch)[normalizer],
        counts,
    };
};

/** The share of the rows with a loss that `right(row)` is true of; none of none. */
export const shareOf = (rows, ignored, right) => {
    const counted = Array.from(rows.keys()).filter((i) => !ignored(i) && !Number.isNaN(rows[i]));
    return counted.length > 0 ? counted.filter(right).length / counted.length : undefined;
};
