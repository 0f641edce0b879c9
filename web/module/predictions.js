// The nearest classes of each row.

import { fail } from './errors.js';

/** The buffers that they come in, with the names of their fields. */
const BUFFERS = {
    predictedClasses: 'classes',
    predictedCosines: 'cosines',
    logProbabilities: 'logProbabilities',
    predictedSubCenters: 'subCenters',
};

/** Whether a loss has one sum over all classes. */
export const isSummed = ({ link = 'softmax' }) => link === 'softmax';

/** What is to be read back for so many rows, from the buffers of `io` and from the workspace. */
export const predictionResults = ({ plan }, io, bound, loss, rows) => {
    const size = rows * plan.predictions * 4;
    const results = Object.keys(BUFFERS).map((name) => ({ name, buffer: io[name], size }));
    return isSummed(loss) ? [...results, { name: 'log sums', ...bound.workspace('log sums'), size: rows * 4 }] : results;
};

/** The predictions among these results, with what the batch reports of its rows. */
export const predictionsOf = ({ plan }, loss, found, { known, nonFiniteRows, counts }) => {
    const bytes = (name) => found[name] ?? 0;
    return {
        count: plan.predictions,
        range: plan.range,
        classes: new Int32Array(bytes('predictedClasses')),
        cosines: new Float32Array(bytes('predictedCosines')),
        logProbabilities: new Float32Array(bytes('logProbabilities')),
        subCenters: new Int32Array(bytes('predictedSubCenters')),
        ...(isSummed(loss) && { logSumExps: new Float32Array(bytes('log sums')).map((sum, i) => (known(i) ? sum : NaN)) }),
        nonFiniteRows,
        nonFinitePrototypes: counts.nonFinitePrototypes,
    };
};

/** Whether row i has this class among its nearest ones. */
export const isAmong = ({ count, classes }, i, label) => classes.subarray(i * count, (i + 1) * count).includes(label);

const LISTS = Object.values(BUFFERS);

/**
 * The nearest classes among those of all parts, and their log-probabilities among all classes. The parts are what predictors
 * of ranges found for the same rows; together they must be all of so many classes, each once.
 */
export function mergePredictions(parts, classes) {
    const sorted = [...parts].sort((a, b) => a.range[0] - b.range[0]);
    let expected = 0;
    for (const { range: [first, end] } of [...sorted, { range: [classes, classes] }]) {
        if (first !== expected || end > classes) {
            fail('Shards', `shard ${first}..${end} found where one from class ${expected} must begin: together they must be ${classes} classes, each once`);
        }
        expected = end;
    }
    if (sorted.length === 0) fail('Zero', '`shards` is 0, it must be at least 1');
    return sorted.reduce(merged);
}

const merged = (one, two) => {
    for (const [what, found, wanted] of [
        ['count', two.count, one.count],
        ['classes', two.classes.length, one.classes.length],
        ['logSumExps', two.logSumExps?.length ?? 0, one.logSumExps?.length ?? 0],
    ]) {
        if (found !== wanted) fail('Length', `\`predictions.${what}\` has ${found} values, expected ${wanted}`);
    }
    const { count } = one;
    const rows = one.classes.length / count;
    const nonFinitePrototypes = one.nonFinitePrototypes + two.nonFinitePrototypes;
    const out = {
        count,
        range: [one.range[0], two.range[1]],
        classes: new Int32Array(rows * count).fill(-1),
        cosines: new Float32Array(rows * count).fill(NaN),
        logProbabilities: new Float32Array(rows * count).fill(NaN),
        subCenters: new Int32Array(rows * count),
        ...(one.logSumExps && { logSumExps: new Float32Array(rows).fill(NaN) }),
        nonFiniteRows: 0,
        nonFinitePrototypes,
    };
    for (let i = 0; i < rows; i++) {
        if (one.classes[i * count] < 0 || two.classes[i * count] < 0) continue;
        // what each part's log-sum-exp lacks of that of both; nothing with a binary link
        const sums = [one, two].map(({ logSumExps }) => logSumExps?.[i] ?? 0);
        const both = Math.max(...sums) + Math.log1p(Math.exp(-Math.abs(sums[0] - sums[1])));
        if (out.logSumExps) out.logSumExps[i] = both;
        const entries = [one, two].flatMap((part, p) => {
            const moved = out.logSumExps ? sums[p] - both : 0;
            return Array.from({ length: count }, (_, k) => ({ part, moved, at: i * count + k })).filter(({ at }) => part.classes[at] >= 0);
        });
        const classOf = ({ part, at }) => part.classes[at];
        entries.sort((a, b) => b.part.cosines[b.at] - a.part.cosines[a.at] || classOf(a) - classOf(b));
        entries.slice(0, count).forEach(({ part, moved, at }, k) => {
            for (const list of LISTS) out[list][i * count + k] = part[list][at];
            out.logProbabilities[i * count + k] += moved;
        });
    }
    // a row may be left out of one part alone
    const unanswered = Array.from({ length: rows }, (_, i) => out.classes[i * count]).filter((first) => first < 0).length;
    out.nonFiniteRows = nonFinitePrototypes > 0 ? Math.max(one.nonFiniteRows, two.nonFiniteRows) : unanswered;
    return out;
};
