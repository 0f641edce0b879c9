// Lengths, margins and parts of the loss of one batch: the crate's `BatchReport`.

import { asked, camel } from './errors.js';
import { inputsOf } from './inputs.js';
import { stateText } from './state.js';
import { kindOf } from './transfer.js';

/** The numbers of a half type as f32. */
const half = (bits) => {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
};

/** Values as they are stored, as f32. */
const wide = (values, element) => {
    if (kindOf(values) !== 'Uint16Array') return Float32Array.from(values);
    if (element === 'f16') return Float32Array.from(values, half);
    return new Float32Array(Uint32Array.from(values, (bits) => bits << 16).buffer);
};

/** |values|; undefined for a gradient that was not asked for. */
const norm = (values) => values && Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

/** For `Head.report`. */
export const batchReport = (head, batch, out, { loss, training, state }) => {
    const { labels, embeddings, classWeights, rowWeights, classMargins, rowMargins } = inputsOf(head, batch, loss);
    const { rows, nonFinitePrototypes } = out.counts;
    const [text, numbers] = stateText(state);
    const found = asked(() =>
        head.planned.report(
            JSON.stringify(loss),
            training,
            text,
            numbers,
            labels,
            wide(embeddings, head.elements.embeddings),
            out.rowLosses,
            out.targetCosines,
            Uint32Array.of(rows, nonFinitePrototypes),
            classWeights,
            rowWeights,
            batch.divisor,
            classMargins,
            rowMargins,
        ),
    );
    const report = Object.entries(JSON.parse(found)).map(([name, value]) => [camel(name), value ?? undefined]);
    const gradients = { embeddingGradient: norm(out.gradEmbeddings), prototypeGradient: norm(out.gradPrototypes) };
    return { ...Object.fromEntries(report), ...gradients };
};
