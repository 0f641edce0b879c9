// The inputs, and ArcFace in plain f64 loops: s = 64, m = 0.5, the mean over the rows.

export const SCALE = 64;
export const MARGIN = 0.5;

/** The same numbers in every page: uniform in [-1/2, 1/2). */
export function make([rows, classes, dim]) {
    let state = 1;
    const random = () => {
        // mulberry32
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const values = (count) => Float32Array.from({ length: count }, () => random() - 0.5);
    const [x, w] = [values(rows * dim), values(classes * dim)];
    const labels = Int32Array.from({ length: rows }, () => Math.floor(random() * classes));
    return { rows, classes, dim, x, w, labels };
}

/** { loss, dx, dw } in f64. */
export function expected({ rows, classes, dim, x, w, labels }) {
    const units = (from, count) => {
        const [unit, length] = [new Float64Array(count * dim), new Float64Array(count)];
        for (let i = 0; i < count; i++) {
            let square = 0;
            for (let k = 0; k < dim; k++) square += from[i * dim + k] ** 2;
            length[i] = Math.sqrt(square);
            for (let k = 0; k < dim; k++) unit[i * dim + k] = from[i * dim + k] / length[i];
        }
        return [unit, length];
    };
    const [[a, aLength], [b, bLength]] = [units(x, rows), units(w, classes)];
    const [cos, sin] = [Math.cos(MARGIN), Math.sin(MARGIN)];
    const [dx, dw] = [new Float64Array(rows * dim), new Float64Array(classes * dim)];
    const z = new Float64Array(classes);
    let loss = 0;
    for (let i = 0; i < rows; i++) {
        for (let j = 0; j < classes; j++) {
            let dot = 0;
            for (let k = 0; k < dim; k++) dot += a[i * dim + k] * b[j * dim + k];
            z[j] = SCALE * dot;
        }
        const y = labels[i];
        const c = z[y] / SCALE;
        const s = Math.sqrt((1 - c) * (1 + c));
        const [value, slope] = c > -cos ? [c * cos - s * sin, cos + (c * sin) / s] : [c - (1 - cos), 1];
        z[y] = SCALE * value;
        const most = z.reduce((m, v) => Math.max(m, v));
        const sum = z.reduce((t, v) => t + Math.exp(v - most), 0);
        loss += (most + Math.log(sum) - z[y]) / rows;
        for (let j = 0; j < classes; j++) {
            const p = Math.exp(z[j] - most) / sum;
            const g = (SCALE / rows) * (j === y ? (p - 1) * slope : p);
            for (let k = 0; k < dim; k++) {
                dx[i * dim + k] += g * b[j * dim + k];
                dw[j * dim + k] += g * a[i * dim + k];
            }
        }
    }
    const project = (pull, unit, length) => {
        for (let i = 0; i < length.length; i++) {
            let radial = 0;
            for (let k = 0; k < dim; k++) radial += pull[i * dim + k] * unit[i * dim + k];
            for (let k = 0; k < dim; k++) {
                pull[i * dim + k] = (pull[i * dim + k] - radial * unit[i * dim + k]) / length[i];
            }
        }
    };
    project(dx, a, aLength);
    project(dw, b, bLength);
    return { loss, dx, dw };
}

/** The largest difference of each part from the f64 result, relative to the part's largest value; NaN stays NaN. */
export function check(data, found) {
    const right = expected(data);
    const off = (found, right) => {
        if (found.length !== right.length) return NaN;
        let [worst, largest] = [0, 0];
        for (let i = 0; i < right.length; i++) {
            worst = Math.max(worst, Math.abs(found[i] - right[i]));
            largest = Math.max(largest, Math.abs(right[i]));
        }
        return worst / largest;
    };
    return { loss: off([found.loss], [right.loss]), dx: off(found.dx, right.dx), dw: off(found.dw, right.dw) };
}
