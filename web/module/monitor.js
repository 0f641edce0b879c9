// Reports of a run: accuracy and angles of the batches, and a warning when embeddings and prototypes collapse. The crate's `monitor`.

import { fail, only } from './errors.js';

const MAX_BINS = 1024;
const SHORTEST = 1e-12;

/** θ of a cosine; one that rounded past ±1 gives 0 or π. */
const angleOf = (cosine) => Math.atan2(Math.sqrt(Math.max((1 - cosine) * (1 + cosine), 0)), cosine);

const lengthOf = (name, values, expected) => {
    if (values?.length !== expected) fail('Length', `\`${name}\` has ${values?.length ?? 0} values, expected ${expected}`);
};

/** Sums over the rows of any number of batches. */
export class Monitor {
    #rows = 0;
    #hits = 0;
    #sums = [0, 0, 0];
    #histograms;

    /** No rows yet; histograms of so many equal bins over 0 to π. */
    constructor(bins = 64) {
        if (!Number.isInteger(bins) || bins < 1 || bins > MAX_BINS) fail('Size', `bins: ${bins}, 1 to ${MAX_BINS} are possible`);
        this.#histograms = [Array(bins).fill(0), Array(bins).fill(0)];
    }

    /** Adds the rows of a batch: what `Head.evaluate` returned, with the labels and the ignore index it was given. */
    add(out, labels, ignoreIndex) {
        const { rowLosses, targetCosines, otherCosines, counts } = out;
        for (const [name, values] of Object.entries({ rowLosses, targetCosines, otherCosines })) lengthOf(name, values, labels.length);
        const ignored = (i) => ignoreIndex !== undefined && ignoreIndex !== null && Number(labels[i]) === Number(ignoreIndex);
        const counting = Array.from(rowLosses.keys()).filter((i) => !ignored(i) && !Number.isNaN(rowLosses[i]));
        if (counts.nonFinitePrototypes === 0) lengthOf('rows that are not ignored', counting, counts.rows);
        // a cosine rounds to little more than 1
        const beyond = counting.flatMap((i) => [targetCosines[i], otherCosines[i]]).find((c) => Math.abs(c) > 1 + 1e-3);
        if (beyond !== undefined) {
            fail('Parameter', `\`targetCosines\` is ${beyond}, allowed is a cosine; a linear head gives products, which have no angle`);
        }
        for (const i of counting) {
            const cosines = [targetCosines[i], otherCosines[i]];
            const angles = cosines.map(angleOf);
            this.#rows += 1;
            this.#hits += Number(cosines[0] > cosines[1]);
            [...angles, cosines[0]].forEach((value, k) => (this.#sums[k] += value));
            this.#histograms.forEach((bins, k) => (bins[Math.min(Math.floor((angles[k] / Math.PI) * bins.length), bins.length - 1)] += 1));
        }
    }

    /** Adds the rows of another monitor with as many bins. */
    merge(other) {
        lengthOf('histogram', other.#histograms[0], this.#histograms[0].length);
        this.#rows += other.#rows;
        this.#hits += other.#hits;
        this.#sums = this.#sums.map((sum, k) => sum + other.#sums[k]);
        this.#histograms.forEach((bins, k) => bins.forEach((_, i) => (bins[i] += other.#histograms[k][i])));
    }

    /** Means over all rows so far, 0 where there is none; angles in radians. */
    report() {
        const mean = (sum) => (this.#rows > 0 ? sum / this.#rows : 0);
        const [intraAngle, interAngle, targetCosine] = this.#sums.map(mean);
        const [intraHistogram, interHistogram] = this.#histograms.map((bins) => [...bins]);
        return { rows: this.#rows, accuracy: mean(this.#hits), intraAngle, interAngle, targetCosine, intraHistogram, interHistogram };
    }
}

/** The length of the mean direction of prototypes [C, D]: 1 if all point the same way, about 1/√C at random; NaN where one is not finite. */
export const meanPrototype = (prototypes, dim) => {
    if (!Number.isInteger(dim) || dim < 1) fail('Zero', `\`dim\` is ${dim}, it must be at least 1`);
    const count = Math.floor(prototypes.length / dim);
    lengthOf('prototypes', prototypes, count * dim);
    const sum = new Float64Array(dim);
    for (let j = 0; j < count; j++) {
        const vector = prototypes.subarray ? prototypes.subarray(j * dim, (j + 1) * dim) : prototypes.slice(j * dim, (j + 1) * dim);
        // scaled by the largest, so that no square overflows
        const largest = vector.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
        const length = largest > 0 ? largest * Math.sqrt(vector.reduce((all, v) => all + (v / largest) ** 2, 0)) : 0;
        if (!Number.isFinite(length)) return NaN;
        vector.forEach((v, d) => (sum[d] += v / Math.max(length, SHORTEST) / count));
    }
    return Math.hypot(...sum);
};

/** A length that the mean of random prototypes hardly reaches: √(μ + 4σ) of its square. */
const randomMeanPrototype = ({ classes, dim, sub_centers = 1 }) => {
    const vectors = classes * sub_centers;
    const spread = Math.sqrt((2 * (vectors - 1)) / (dim * vectors));
    return Math.min(Math.sqrt((1 + 4 * spread) / vectors), 1);
};

/** Watches the reports of a run for polar collapse: embeddings that are pushed away from their own prototypes. */
export class CollapseDetector {
    #thresholds;
    #rows = 0;

    /** For a head of this shape; `thresholds`: `targetCosine`, `meanPrototype`, `warmUp`, each with a default. */
    constructor(shape, thresholds = {}) {
        only('threshold', thresholds, ['targetCosine', 'meanPrototype', 'warmUp']);
        const { targetCosine = 0, meanPrototype = randomMeanPrototype(shape), warmUp = Math.max(10 * shape.classes, 20_000) } = thresholds;
        const inside = (name, value, least, most) => {
            if (!(value >= least && value <= most)) fail('Parameter', `\`${name}\` is ${value}, allowed is ${least} <= ${name} <= ${most}`);
        };
        inside('targetCosine', targetCosine, -1, 1);
        inside('meanPrototype', meanPrototype, 0, 1);
        inside('warmUp', warmUp, 0, Number.MAX_SAFE_INTEGER);
        this.#thresholds = { targetCosine, meanPrototype, warmUp };
    }

    /** A warning for this report of a `Monitor`, or undefined; `length`: what `meanPrototype` found, if it was measured. */
    check({ rows, targetCosine }, length) {
        this.#rows += rows;
        const thresholds = { ...this.#thresholds };
        if (!(rows > 0 && this.#rows >= thresholds.warmUp && targetCosine < thresholds.targetCosine)) return undefined;
        // a length of 1 may round to more
        const gathered = thresholds.meanPrototype < 1 && length > thresholds.meanPrototype;
        const kind = gathered ? 'collapsed' : 'repelled';
        return { kind, targetCosine, meanPrototype: length, thresholds, text: told(kind, targetCosine, length, thresholds) };
    }
}

/** A warning for people. */
const told = (kind, targetCosine, length, thresholds) => {
    const seen = `the embeddings are pushed away from their own prototypes: the mean target cosine is ${targetCosine.toFixed(3)} (below ${thresholds.targetCosine})`;
    const gathered = `, and the prototypes have collapsed: the length of their mean direction is ${length?.toFixed(3)} (above ${thresholds.meanPrototype.toFixed(3)}; 1 means that all point the same way)`;
    const remedy = 'The loss can fall in this state while the classes are not told apart. Try WC-ReLU (others: "rectified"), the regularizer reg_ss, or a smaller margin';
    return `${seen}${kind === 'collapsed' ? gathered : ''}. ${remedy}`;
};
