// The dots and how a gradient moves them. Twin of the move: motion.wgsl.

export const CLASSES = 8;
export const PER_CLASS = 50;
export const ROWS = CLASSES * PER_CLASS;
export const DIM = 3;
/** The lengths of embeddings, drawn evenly. */
export const LENGTHS = [10, 40];
/** No step turns a vector by more than this many radians. */
const MAX = 0.2;

/** PCG's output function: 32 well mixed bits of a counter. */
export function hash(x) {
    const state = (Math.imul(x, 747796405) + 2891336453) >>> 0;
    const word = Math.imul((state >>> ((state >>> 28) + 4)) ^ state, 277803737) >>> 0;
    return ((word >>> 22) ^ word) >>> 0;
}

/** Dots and prototypes to begin with: both scattered about one direction per class, the directions at least 50° apart. */
export function scatter(seed) {
    let counter = hash(seed);
    const uniform = () => (hash(counter++) + 0.5) / 2 ** 32;
    const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    const toUnit = (v) => v.map((x) => x / Math.hypot(...v));
    const around = (v, spread) => toUnit(v.map((x) => x + spread * normal()));
    const centers = [];
    while (centers.length < CLASSES) {
        const next = around([0, 0, 0], 1);
        if (centers.every((c) => c[0] * next[0] + c[1] * next[1] + c[2] * next[2] < Math.cos((50 * Math.PI) / 180))) centers.push(next);
        else if (uniform() < 0.02) centers.length = 0; // no room left: from the beginning
    }
    const embeddings = new Float32Array(ROWS * DIM);
    const prototypes = new Float32Array(CLASSES * DIM);
    const labels = Int32Array.from({ length: ROWS }, (_, row) => row % CLASSES);
    centers.forEach((center, c) => prototypes.set(around(center, 0.5), c * DIM));
    labels.forEach((c, row) => {
        const length = LENGTHS[0] + (LENGTHS[1] - LENGTHS[0]) * uniform();
        embeddings.set(around(centers[c], 0.6).map((x) => x * length), row * DIM);
    });
    return { embeddings, prototypes, labels };
}

/** Turns every vector against its gradient by `factor` · length · gradient, and by a random `noise`; lengths stay. */
export function move(vectors, gradients, factor, noise, step) {
    for (let row = 0; row * DIM < vectors.length; row++) {
        const at = row * DIM;
        const [x, y, z] = vectors.subarray(at, at + DIM);
        const [gx, gy, gz] = gradients.subarray(at, at + DIM);
        const length = Math.hypot(x, y, z);
        const unit = [x / length, y / length, z / length];
        const along = unit[0] * gx + unit[1] * gy + unit[2] * gz;
        const turn = [gx, gy, gz].map((g, k) => -factor * length * (g - along * unit[k]));
        const shrink = Math.min(1, MAX / Math.max(Math.hypot(...turn), 1e-30));
        const next = unit.map((u, k) => {
            const even = hash(hash(step) ^ (at + k)) / 2 ** 31 - 1;
            return u + shrink * turn[k] + noise * even;
        });
        const stretch = length / Math.hypot(...next);
        for (let k = 0; k < DIM; k++) vectors[at + k] = next[k] * stretch;
    }
}

/** `factor` for embeddings and prototypes. Gradients are those of a mean over rows; `strength` is that of the loss. */
export function factors(rate, strength) {
    return { embeddings: (rate * ROWS) / strength, prototypes: (rate * CLASSES) / strength };
}

/** Degrees from every dot to its own prototype and to the nearest other one, and how many dots are right. */
export function angles({ embeddings, prototypes, labels }) {
    const own = new Float32Array(ROWS);
    const other = new Float32Array(ROWS);
    const right = new Uint8Array(ROWS);
    const unit = [];
    for (let c = 0; c < CLASSES; c++) {
        const w = prototypes.subarray(c * DIM, c * DIM + DIM);
        const length = Math.hypot(...w);
        unit.push([w[0] / length, w[1] / length, w[2] / length]);
    }
    for (let row = 0; row < ROWS; row++) {
        const [x, y, z] = embeddings.subarray(row * DIM, row * DIM + DIM);
        const length = Math.hypot(x, y, z);
        let [mine, most] = [-1, -1];
        for (let c = 0; c < CLASSES; c++) {
            const cosine = (x * unit[c][0] + y * unit[c][1] + z * unit[c][2]) / length;
            if (c === labels[row]) mine = cosine;
            else if (cosine > most) most = cosine;
        }
        own[row] = (Math.acos(Math.max(-1, Math.min(1, mine))) * 180) / Math.PI;
        other[row] = (Math.acos(Math.max(-1, Math.min(1, most))) * 180) / Math.PI;
        right[row] = mine > most;
    }
    return { own, other, right };
}
