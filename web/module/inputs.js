// The arrays of a batch, checked.

import { asked, fail, only } from './errors.js';
import { KINDS, arraysOf, expectArray } from './transfer.js';

const WHOLE = ['Int8', 'Uint8', 'Uint8Clamped', 'Int16', 'Uint16', 'Int32', 'Uint32', 'BigInt64', 'BigUint64'];
/** The kinds of arrays that hold labels. */
export const LABELS = [...WHOLE.map((kind) => `${kind}Array`), 'Array'];

/** Classes as a device takes them, `count` to a row. */
export const classesOf = (name, values, count, planned) => {
    const numbers = new Int32Array(values.length);
    for (let i = 0; i < values.length; i++) {
        const [value, row] = [values[i], Math.floor(i / count)];
        if (typeof value !== 'bigint' && !Number.isInteger(value)) {
            const found = typeof value === 'number' ? value : `a value of the type ${typeof value}`;
            fail('Element', `\`${name}\` holds ${found} in row ${row}, expected whole numbers`);
        }
        numbers[i] = Number(value);
        if (numbers[i] !== Number(value)) asked(() => planned.refuse_label(row, `${BigInt(value)}`));
    }
    return numbers;
};

/** Soft labels of so many rows, each array checked for its kind and length. */
const softOf = ({ plan, planned }, given, rows) => {
    const most = plan.soft_labels;
    if (most === 0) fail('Missing', '`options.soft_labels` is missing: the batch has soft labels');
    only('part of softLabels', given, ['classes', 'weights', 'count']);
    const { classes, weights, count = most } = given;
    if (!Number.isInteger(count) || count > most) {
        fail('Parameter', `\`softLabels.count\` is ${count}, allowed is at most options.soft_labels, ${most}`);
    }
    expectArray('softLabels.classes', classes, rows * count, LABELS);
    expectArray('softLabels.weights', weights, rows * count, KINDS.f32);
    return { count, classes: classesOf('softLabels.classes', classes, count, planned), weights };
};

/** The same with as many targets to a row as planned. */
const widened = ({ count, classes, weights }, rows, most) => {
    const softClasses = new Int32Array(rows * most).fill(-1);
    const softWeights = new Float32Array(rows * most);
    for (let row = 0; row < rows; row++) {
        softClasses.set(classes.subarray(row * count, (row + 1) * count), row * most);
        softWeights.set(weights.subarray(row * count, (row + 1) * count), row * most);
    }
    return { softClasses, softWeights };
};

/** The arrays, checked: their kinds and lengths here, what they hold by the planner, as the crate checks slices. */
export const inputsOf = (head, batch, loss) => {
    const { shape, elements, plan, planned } = head;
    const { rows: most, classes, dim, sub_centers } = shape;
    const labels = batch?.labels;
    if (labels === undefined || labels === null) fail('Missing', '`labels` is missing: an array with one whole number per row');
    if (batch.state !== undefined) fail('Name', '`state` is no input: set head.state');
    const rows = labels.length;
    const expected = {
        labels: [rows, LABELS],
        embeddings: [rows * dim, KINDS[elements.embeddings]],
        prototypes: [classes * sub_centers * dim, KINDS[elements.prototypes]],
        classWeights: [classes, KINDS.f32],
        rowWeights: [rows, KINDS.f32],
        classMargins: [classes * 4, KINDS.f32],
        rowMargins: [rows * 4, KINDS.f32],
        bias: [classes, KINDS.f32],
        upstream: [loss.reduction === 'none' ? rows : 1, KINDS.f32],
    };
    only('input', batch, [...Object.keys(expected), 'divisor', 'softLabels']);
    if (!['undefined', 'number'].includes(typeof batch.divisor)) fail('Element', '`divisor` is no number');
    if (rows > most) fail('Rows', `the batch has ${rows} rows, this head was made for at most ${most}`);
    const found = arraysOf(batch, expected);
    found.labels = classesOf('labels', labels, 1, planned);
    const soft = batch.softLabels && softOf(head, batch.softLabels, rows);
    const { classWeights, rowWeights, upstream, bias, classMargins, rowMargins } = found;
    const small = [classWeights, rowWeights, batch.divisor, upstream, bias, classMargins, rowMargins];
    asked(() => planned.check(JSON.stringify(loss), found.labels, ...small, soft?.count ?? 0, soft?.classes, soft?.weights));
    return soft ? { ...found, ...widened(soft, rows, plan.soft_labels) } : found;
};
