// What stands beside a head, against the crate: penalties and the center loss on a device, schedules and monitors on the host. The
// cases come from tests/browser/companions.rs.

import { clean, prepare } from './prepare.mjs';

/** In the page: the cases, and what compares numbers. */
const load = async (folder) => {
    const companions = await (await fetch(`${folder}/companions.json`)).json();
    const bytes = await (await fetch(`${folder}/cases.bin`)).arrayBuffer();
    const pick = (Kind, place) => place && new Kind(bytes, ...place);
    /** Refuses what is further off than `most`. */
    const near = (what, found, expected, most) => {
        if (found.length !== expected.length) throw new Error(`${what}: ${found.length} values, not ${expected.length}`);
        const i = Array.from(expected).findIndex((v, i) => !(Math.abs(v - found[i]) <= most));
        if (i >= 0) throw new Error(`${what} ${i}: ${found[i]}, not ${expected[i]} within ${most}`);
    };
    const equal = (what, found, expected) => {
        const [one, two] = [found, expected].map((value) => JSON.stringify(value));
        if (one !== two) throw new Error(`${what}: ${one}, not ${two}`);
    };
    /** Plain data, with its parts in the order of their names. */
    const sorted = (value) => {
        if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
        return Object.fromEntries(Object.keys(value).sort().map((name) => [name, sorted(value[name])]));
    };
    Object.assign(globalThis, { companions, pick, near, equal, sorted });
};

const tests = {
    'penalties are the reference\'s': async () => {
        for (const { regularizer, shape, element, prototypes, bits, value, gradient, weight } of companions.penalties) {
            const [name] = Object.keys(regularizer);
            const what = `${name} ${shape.classes}x${shape.dim} ${element}`;
            const made = await Regularizer.create(device, planner, { regularizer, shape, element });
            const w = bits ? pick(Uint16Array, bits) : pick(Float32Array, prototypes);
            const found = await made.evaluate(w);
            near(`${what}: value`, [found.value], [value], 2e-6 * weight);
            near(`${what}: gradient`, found.gradient, pick(Float32Array, gradient), 4e-6 * weight);
            same(`${what}: the same bits`, (await made.evaluate(w)).gradient, found.gradient);
            made.destroy();
        }
    },

    'a penalty is recorded onto the gradient of a head': async () => {
        const { rows, ...size } = shape;
        const penalty = await Regularizer.create(device, planner, { regularizer: { reg_ss: { weight: 10 } }, shape: size });
        const alone = await penalty.evaluate(batch.prototypes);
        const own = await head.evaluate(batch);
        const io = await head.createBuffers();
        const bound = await head.bind(io);
        const value = buffer(4);
        const companion = await penalty.bind({ prototypes: io.prototypes[0], gradPrototypes: io.gradPrototypes[0], loss: value });
        for (const name of ['embeddings', 'labels']) device.queue.writeBuffer(io[name], 0, batch[name]);
        device.queue.writeBuffer(io.prototypes[0], 0, batch.prototypes);
        companion.update(undefined, { accumulate: true });
        const encoder = device.createCommandEncoder();
        bound.recordForward(encoder);
        bound.recordBackward(encoder);
        companion.recordForward(encoder);
        device.queue.submit([encoder.finish()]);
        same('value', await read(value, 0, 4), [alone.value]);
        const sum = own.gradPrototypes.map((v, i) => v + alone.gradient[i]);
        near('gradient', await read(io.gradPrototypes[0], 0, sum.byteLength), sum, 1e-6);
        bound.destroy();
        companion.destroy();
        penalty.destroy();
    },

    'the center loss and its move are the reference\'s': async () => {
        for (const one of companions.centers) {
            const { loss, shape, element } = one;
            const made = await CenterLoss.create(device, planner, { loss, shape, element });
            const embeddings = one.bits ? pick(Uint16Array, one.bits) : pick(Float32Array, one.embeddings);
            const given = { embeddings, labels: pick(Int32Array, one.labels), centers: pick(Float32Array, one.centers) };
            const what = `${shape.rows}x${shape.classes}x${shape.dim}`;
            const kept = given.centers.slice();
            const found = await made.evaluate(given);
            near(`${what}: loss`, [found.loss], [one.value], 1e-6 * Math.max(1, one.value));
            near(`${what}: gradient`, found.gradEmbeddings, pick(Float32Array, one.gradEmbeddings), 1e-6);
            near(`${what}: moved`, await made.moved(given), pick(Float32Array, one.moved), 2e-6);
            same(`${what}: the caller's centers`, given.centers, kept);
            // as many embeddings as rows, and none
            const none = { ...given, embeddings: embeddings.slice(0, 0), labels: [] };
            equal(`${what}: without rows`, (await made.evaluate(none)).loss, 0);
            same(`${what}: nothing moves`, await made.moved(none), kept);
            made.destroy();
        }
    },

    'centers are bound and move in place': async () => {
        const [one] = companions.centers;
        const { loss, shape } = one;
        const made = await CenterLoss.create(device, planner, { loss, shape });
        const given = { embeddings: pick(Float32Array, one.embeddings), labels: pick(Int32Array, one.labels), centers: pick(Float32Array, one.centers) };
        const io = Object.fromEntries(Object.entries(given).map(([name, values]) => [name, buffer(values.byteLength)]));
        for (const [name, values] of Object.entries(given)) device.queue.writeBuffer(io[name], 0, values);
        const [gradEmbeddings, value] = [buffer(given.embeddings.byteLength), buffer(4)];
        const pull = await made.bind({ ...io, gradEmbeddings, loss: value });
        const move = await made.bindMove(io);
        const encoder = device.createCommandEncoder();
        pull.recordForward(encoder);
        move.recordForward(encoder);
        device.queue.submit([encoder.finish()]);
        near('loss', await read(value, 0, 4), [one.value], 1e-6);
        near('centers', await read(io.centers, 0, given.centers.byteLength), pick(Float32Array, one.moved), 2e-6);
        [pull, move, made].forEach((part) => part.destroy());
    },

    'schedules are the crate\'s, number by number': () => {
        const [{ schedules, cases }] = companions.schedules;
        // steps came as text
        const exact = (one) => ({ ...one, from: BigInt(one.from), until: BigInt(one.until) });
        const known = schedules.map((all) =>
            Object.fromEntries(Object.entries(all).map(([name, one]) => [name, one === null || name === 'top_k' ? one : exact(one)])),
        );
        let refusals = 0;
        for (const { loss, schedules: at, step, expected, error } of cases) {
            const what = `${loss} under ${at} at ${step}`;
            let found;
            try {
                found = planner.scheduled(loss, known[at], BigInt(step));
            } catch (refused) {
                if (refused.code !== error) throw new Error(`${what}: ${refused.code} (${refused.message}), not ${error}`);
                refusals += 1;
                continue;
            }
            if (error) throw new Error(`${what}: not refused, expected ${error}`);
            // an exponential of JavaScript's may differ in its last bit
            const round = (value) => JSON.parse(JSON.stringify(sorted(value), (_, v) => (typeof v === 'number' ? Number(v.toPrecision(14)) : v)));
            equal(what, round(found), round(expected));
        }
        if (refusals < 20) throw new Error(`only ${refusals} refusals`);
        // what is left out of plain data has its default
        const whole = planner.scheduled({ target: { unified: {} } }, { m2: { start: 0.4, end: 0.4, from: 0, until: 0 } }, 0);
        equal('whole', sorted({ ...whole, scale: 64 }), sorted(companions.whole));
    },

    'a scheduled loss compiles nothing': async () => {
        const schedules = { m2: { start: 0, end: 0.5, from: 0, until: 4, ramp: 'linear' } };
        const { createComputePipelineAsync } = GPUDevice.prototype;
        GPUDevice.prototype.createComputePipelineAsync = () => {
            throw new Error('compiled');
        };
        try {
            const losses = [];
            for (let step = 0; step <= 4; step++) losses.push((await head.evaluate(batch, { loss: planner.scheduled('arcface', schedules, step) })).loss);
            same('the last step', [losses[4]], [(await head.evaluate(batch)).loss]);
            if (losses.some((loss, i) => i > 0 && !(loss > losses[i - 1]))) throw new Error(losses.join());
        } finally {
            GPUDevice.prototype.createComputePipelineAsync = createComputePipelineAsync;
        }
    },

    'a monitor reports what the crate\'s does': async () => {
        const { bins, ignored, batches, report } = companions.monitor;
        const [whole, first, rest] = [0, 0, 0].map(() => new Monitor(bins));
        batches.forEach(({ labels, rows, ...lists }, i) => {
            const arrays = Object.entries(lists).map(([name, list]) => [name, Float32Array.from(list, (v) => v ?? NaN)]);
            const out = { ...Object.fromEntries(arrays), counts: { rows, nonFinitePrototypes: 0 } };
            for (const one of [whole, i === 0 ? first : rest]) one.add(out, labels, ignored);
        });
        const { rows, intraHistogram, interHistogram, ...means } = whole.report();
        equal('rows', rows, report.rows);
        equal('histograms', [intraHistogram, interHistogram], [report.intraHistogram, report.interHistogram]);
        for (const [name, mean] of Object.entries(means)) near(name, [mean], [report[name]], 1e-14);
        first.merge(rest);
        equal('merged', first.report().intraHistogram, report.intraHistogram);
        near('merged', [first.report().intraAngle], [report.intraAngle], 1e-14);
        // of a head
        const own = new Monitor();
        own.add(await head.evaluate(batch), batch.labels);
        equal('of a head', own.report().rows, batch.labels.length);
        equal('empty', new Monitor(1).report().accuracy, 0);
    },

    'collapse is seen as the crate sees it': () => {
        const { shape, detected, random } = companions.monitor;
        for (const { thresholds, reports } of detected) {
            const given = Object.fromEntries(Object.entries(thresholds).filter(([, value]) => value !== null));
            const detector = new CollapseDetector(shape, given);
            for (const { rows, targetCosine, length, collapse } of reports) {
                const found = detector.check({ rows, targetCosine }, length);
                equal(`${rows} rows`, found?.kind, collapse?.kind);
                if (!found) continue;
                const { target_cosine, mean_prototype, warm_up } = collapse.thresholds;
                equal('thresholds', found.thresholds, { targetCosine: target_cosine, meanPrototype: mean_prototype, warmUp: warm_up });
                if (!/pushed away from their own prototypes.*Try WC-ReLU/.test(found.text)) throw new Error(found.text);
                if (/collapsed/.test(found.text) !== (found.kind === 'collapsed')) throw new Error(found.text);
            }
        }
        for (const [classes, dim, length] of random) {
            const always = new CollapseDetector({ classes, dim }, { warmUp: 0 }).check({ rows: 1, targetCosine: -1 });
            near('random', [always.thresholds.meanPrototype], [length], 1e-15);
        }
    },

    'mean prototypes are the reference\'s': () => {
        for (const { dim, prototypes, length } of companions.lengths) {
            near('length', [meanPrototype(pick(Float32Array, prototypes) ?? new Float32Array(), dim)], [length], 1e-12);
        }
        if (!Number.isNaN(meanPrototype([1, NaN, 1, 1], 2))) throw new Error('not NaN');
        near('a list', [meanPrototype([3, 0, 0, 4], 2)], [Math.SQRT1_2], 1e-15);
    },

    'mistakes are refused in plain words': async () => {
        const size = { classes: 3, dim: 4 };
        const penalty = (changes) => () => Regularizer.create(device, planner, { regularizer: 'reg_ss', shape: size, ...changes });
        const centers = (changes) => () => CenterLoss.create(device, planner, { shape: { rows: 2, ...size }, ...changes });
        const made = await penalty({})();
        const loss = await centers({ loss: { ignore_index: -1 } })();
        const good = { embeddings: new Float32Array(8), labels: [0, -1], centers: new Float32Array(12) };
        const schedule = (changes) => () => planner.scheduled('arcface', { m2: { start: 0, end: 1, from: 0, until: 9, ...changes } }, 0);
        const out = await head.evaluate(batch);
        for (const [call, expected] of [
            [() => Regularizer.create({}, planner, { regularizer: 'reg_ss', shape: size }), /^Missing: `device` is no GPUDevice/],
            [penalty({ regularizer: 'reg_s' }), /^Name: `reg_s` is not a known regularizer; known are: reg_ss, uniform_face/],
            [penalty({ regularizer: { reg_ss: { wieght: 1 } } }), /^Name: `wieght` is not a known number of reg_ss/],
            [penalty({ regularizer: { reg_ss: { weight: 0 } } }), /^Parameter: `weight` is 0, allowed is 0 < weight/],
            [penalty({ regularizer: { reg_ss: { weight: NaN } } }), /^Parameter: `weight` is NaN/],
            [penalty({ shape: { classes: 0, dim: 4 } }), /^Zero: `classes` is 0/],
            [penalty({ shape: { ...size, rows: 4 } }), /^Name: `rows` is not a known size/],
            [penalty({ loss: 'arcface' }), /^Name: `loss` is not a known setting/],
            [() => made.evaluate(new Float32Array(11)), /^Length: `prototypes` has 11 values, expected 12/],
            [() => made.evaluate([1, 2]), /^Element: `prototypes` is a Array/],
            [() => made.bind({ prototypes: buffer(48), loss: buffer(4) }), /^Missing: `gradPrototypes` is missing/],
            [centers({ loss: { rate: 2 } }), /^Parameter: `rate` is 2, allowed is 0 < rate <= 1/],
            [centers({ loss: { alpha: 2 } }), /^Name: `alpha` is not a known number of the center loss/],
            [centers({ shape: { rows: 40_000, ...size } }), /^Size: .*40000/],
            [() => loss.evaluate({ ...good, labels: [0, 3] }), /^Label: row 1 has label 3, but there are only 3 classes/],
            [() => loss.evaluate({ ...good, labels: [0, 1.5] }), /^Element: `labels` holds 1.5 in row 1/],
            [() => loss.moved({ ...good, centers: new Float32Array(11) }), /^Length: `centers` has 11 values, expected 12/],
            [() => loss.evaluate({ ...good, labels: [0, 1, 2], embeddings: new Float32Array(12) }), /^Rows: the batch has 3 rows/],
            [() => loss.evaluate({ embeddings: good.embeddings, labels: [0, 1] }), /^Missing: `centers` is missing/],
            [() => loss.bindMove({ embeddings: buffer(32), labels: buffer(8) }), /^Missing: `centers` is missing/],
            [() => loss.bindMove({ embeddings: buffer(32), labels: buffer(8), centers: buffer(16) }), /^Buffer: `centers` needs bytes/],
            [schedule({ until: -1 }), /^Parameter: `schedule.until` is -1/],
            [schedule({ from: 10 }), /^Parameter: `schedule.until` is 9, allowed is until >= from/],
            [schedule({ start: '0' }), /^Parameter: `schedule.start` is 0/],
            [schedule({ ramp: 'cubic' }), /^Name: `cubic` is not a known ramp/],
            [schedule({ end: 9, until: 0 }), /^Parameter: `m2` is 9/],
            [() => planner.scheduled('arcface', { m5: {} }, 0), /^Name: `m5` is not a known scheduled number/],
            [() => planner.scheduled('arcfce', {}, 0), /^Name: `arcfce` is not a known loss/],
            [() => planner.scheduled('arcface', {}, 0.5), /^Parameter: `step` is 0.5/],
            [() => new Monitor(0), /^Size: bins: 0, 1 to 1024/],
            [() => new Monitor().add(out, [1]), /^Length: `rowLosses` has 8 values, expected 1/],
            [() => new Monitor().add(out, batch.labels, batch.labels[0]), /^Length: `rows that are not ignored` has 7 values, expected 8/],
            [() => new Monitor().merge(new Monitor(3)), /^Length: `histogram` has 3 values, expected 64/],
            [() => new CollapseDetector(size, { targetCosine: 2 }), /^Parameter: `targetCosine` is 2/],
            [() => new CollapseDetector(size, { warmup: 2 }), /^Name: `warmup` is not a known threshold/],
            [() => meanPrototype([1, 2, 3], 2), /^Length: `prototypes` has 3 values, expected 2/],
        ]) {
            const found = await refused(call);
            if (!expected.test(found)) throw new Error(`${found} is not ${expected}`);
        }
        made.destroy();
        loss.destroy();
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },
};

/** Runs them in one page. */
export default async ({ page, check }) => {
    const own = await page();
    await own.evaluate(prepare);
    await own.evaluate(load, '/out/browser');
    for (const [name, test] of Object.entries(tests)) {
        await check(`companions: ${name}`, async () => {
            await own.evaluate(test);
            clean(own);
        });
    }
    await own.close();
};
