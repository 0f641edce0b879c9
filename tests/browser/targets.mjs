// What rows may have beside one label: predictions, a report, and several targets with weights.

import { inPage } from './prepare.mjs';

const tests = {
    'the nearest classes of each row, through arrays and buffers': async () => {
        const count = 5;
        const length = (v, row, dim) => Math.hypot(...v.subarray(row * dim, row * dim + dim));
        const [x, w] = [batch.embeddings.slice(), batch.prototypes];
        x[2 * 12] = NaN;
        const rows = Array.from({ length: 8 }, (_, i) => i);
        const cosine = (i, j) => {
            const dot = [...x.subarray(i * 12, i * 12 + 12)].reduce((sum, v, k) => sum + v * w[j * 12 + k], 0);
            return dot / length(x, i, 12) / length(w, j, 12);
        };
        const own = await Head.create(device, planner, { ...settings, options: { tile: 'direct', predictions: count } });
        const { predictions } = await own.evaluate({ ...batch, embeddings: x });
        for (const i of rows) {
            const all = Array.from({ length: 70 }, (_, j) => [cosine(i, j), j]).sort(([a], [b]) => b - a);
            const sum = all.reduce((sum, [c]) => sum + Math.exp(own.loss.scale * (c - all[0][0])), 0);
            for (let k = 0; k < count; k++) {
                const at = i * count + k;
                const [c, j] = i === 2 ? [NaN, -1] : all[k];
                const log = own.loss.scale * (c - all[0][0]) - Math.log(sum);
                const near = (found, wanted) => (Number.isNaN(wanted) ? Number.isNaN(found) : Math.abs(found - wanted) < 2e-5 * own.loss.scale);
                const found = [predictions.classes[at], predictions.cosines[at], predictions.logProbabilities[at], predictions.subCenters[at]];
                if (found[0] !== j || !near(found[1], c) || !near(found[2], log) || found[3] !== 0) throw new Error(`${i}, ${k}: ${found}, not ${[j, c, log]}`);
            }
        }
        const few = await own.evaluate({ ...batch, embeddings: x.subarray(0, 0), labels: [] });
        same('none', few.predictions.classes, new Int32Array());
        const io = await own.createBuffers();
        for (const [name, values] of Object.entries({ ...batch, embeddings: x })) device.queue.writeBuffer([io[name]].flat()[0], 0, values);
        const bound = await own.bind(io);
        const encoder = device.createCommandEncoder();
        bound.recordForward(encoder);
        device.queue.submit([encoder.finish()]);
        same('cosines', await read(io.predictedCosines, 0, 8 * count * 4), predictions.cosines);
        same('log-probabilities', await read(io.logProbabilities, 0, 8 * count * 4), predictions.logProbabilities);
        same('classes', new Int32Array((await read(io.predictedClasses, 0, 8 * count * 4)).buffer), predictions.classes);
        const { predictedClasses, ...without } = io;
        same('refused', [await refused(() => own.bind(without))], ['Missing: `predictedClasses` is missing: the plan reads or writes it']);
        const most = await refused(() => Head.create(device, planner, { ...settings, options: { predictions: 71 } }));
        if (!most.startsWith('Parameter: ')) throw new Error(most);
        bound.destroy();
        own.destroy();
    },

    'accuracy, target cosines and counts': async () => {
        const own = await Head.create(device, planner, { ...settings, loss: { ...planner.loss('arcface'), ignore_index: -1 }, options: { tile: 'direct', predictions: 2 } });
        const { embeddings, prototypes } = batch;
        // rows 0, 1 and 2 are their classes' prototypes; row 3 is that of another class, beside which row 4's comes second
        const x = embeddings.slice();
        const labels = [7, 20, 33, 45, 12, 25, -1, 35];
        const w = prototypes.map((value, i) => value + Math.sin(i * i));
        const vector = (j) => w.subarray(j * 12, j * 12 + 12);
        for (const [row, class_] of [[0, 7], [1, 20], [2, 33], [3, 40]]) x.set(vector(class_), row * 12);
        vector(12).set(vector(60).map((value, i) => value + 0.05 * Math.sin(i)));
        x.set(vector(60), 4 * 12);
        x[5 * 12] = NaN;
        x.fill(0, 7 * 12);
        const out = await own.evaluate({ embeddings: x, prototypes: w, labels });
        const near = (found, expected) => Math.abs(found - expected) <= 2e-6;
        for (const i of [0, 1, 2]) if (!near(out.targetCosines[i], 1)) throw new Error(`${i}: ${out.targetCosines[i]}`);
        if (!near(out.otherCosines[3], 1)) throw new Error(`${out.otherCosines}`);
        // neither row 5 nor row 6 has a loss
        same('left out', [out.targetCosines[5], out.targetCosines[6]], [0, 0]);
        const counts = { rows: 6, ignored: 1, nonFiniteRows: 1, invalidLabels: 0, zeroEmbeddings: 1, zeroPrototypes: 0, nonFinitePrototypes: 0 };
        same('counts', Object.entries(out.counts).flat(), Object.entries(counts).flat());
        same('weights', [out.normalizer], [6]);
        const report = own.report({ embeddings: x, prototypes: w, labels }, out);
        same('reported', [report.rows, report.lengthMin, report.lengthsOutside, report.scale], [6, 0, undefined, own.loss.scale]);
        if (!near(report.margins[2], own.loss.target.unified.m2) || !near(report.targetCosines[4], 1)) throw new Error(JSON.stringify(report));
        for (const [call, expected] of [
            [() => own.report({ embeddings: x, prototypes: w, labels }, out, { training: true }), /^Combination: state: it has made no step/],
            [() => own.report({ embeddings: x, prototypes: w, labels: [7] }, out), /^Length: `embeddings` has 96 values, expected 12/],
            [() => own.report({ embeddings: x.subarray(0, 12), prototypes: w, labels: [7] }, out), /^Length: `rowLosses` has 8 values, expected 1/],
            [() => own.report({ embeddings: x, prototypes: w, labels }, out, { state: { ...own.state, classes: 3 } }), /^Shape: `state`/],
        ]) {
            const found = await refused(call);
            if (!expected.test(found)) throw new Error(`${found}\ninstead of ${expected}`);
        }
        same('accuracy', [out.accuracy], [3 / 6]);
        const { predictions, topK } = out;
        if (predictions.classes[8] !== 60 || predictions.classes[9] !== 12) throw new Error(`${predictions.classes}`);
        same('among two', [topK.count, topK.accuracy], [2, 4 / 6]);
        same('no prediction', [predictions.nonFiniteRows, predictions.classes[10], predictions.logSumExps[5]], [1, -1, NaN]);
        const none = await own.evaluate({ embeddings: x.subarray(0, 12), prototypes: w, labels: [-1] });
        same('of none', [none.accuracy, none.topK.accuracy, none.counts.rows], [undefined, undefined, 0]);
        const broken = await own.evaluate({ embeddings: x, prototypes: w.with(3, Infinity), labels });
        same('a broken prototype', [broken.targetCosines[0], broken.otherCosines[0], broken.accuracy], [0, -1, undefined]);
        same('counted', [broken.counts.nonFinitePrototypes, broken.predictions.nonFinitePrototypes], [1, 1]);
        own.destroy();
    },

    'predictions without labels, through arrays and buffers': async () => {
        const { embeddings, prototypes } = batch;
        const own = { loss: 'arcface', shape, count: 5, options: { tile: 'direct' } };
        const predictor = await Predictor.create(device, planner, own);
        const found = await predictor.predict({ embeddings, prototypes });
        // the same as a step gives
        const step = await Head.create(device, planner, { ...settings, options: { tile: 'direct', predictions: 5 } });
        const { predictions } = await step.evaluate(batch);
        for (const name of ['classes', 'subCenters', 'range']) same(name, found[name], predictions[name]);
        for (const name of ['cosines', 'logProbabilities', 'logSumExps']) {
            const far = predictions[name].findIndex((v, i) => !(Math.abs(v - found[name][i]) <= 6e-6 * step.loss.scale));
            if (far >= 0) throw new Error(`${name} ${far}: ${found[name][far]}, not ${predictions[name][far]}`);
        }
        const some = await predictor.predict({ embeddings: embeddings.subarray(0, 36), prototypes });
        same('three rows', some.classes, found.classes.subarray(0, 15));
        const none = await predictor.predict({ embeddings: new Float32Array(), prototypes });
        same('no rows', [none.classes.length, none.logSumExps.length, none.nonFiniteRows], [0, 0, 0]);
        // another scale, as dynamic AdaCos has in its state
        const flat = await predictor.predict({ embeddings, prototypes }, { loss: { ...predictor.loss, scale: 1 } });
        same('the same classes', flat.classes, found.classes);
        if (!(flat.logProbabilities[0] < found.logProbabilities[0])) throw new Error('the scale has no effect');
        const io = await predictor.createBuffers();
        for (const name of ['embeddings', 'prototypes']) device.queue.writeBuffer([io[name]].flat()[0], 0, batch[name]);
        const bound = await predictor.bind(io);
        const encoder = device.createCommandEncoder();
        bound.recordForward(encoder);
        device.queue.submit([encoder.finish()]);
        same('cosines', await read(io.predictedCosines, 0, 160), found.cosines);
        same('log-probabilities', await read(io.logProbabilities, 0, 160), found.logProbabilities);
        same('classes', new Int32Array((await read(io.predictedClasses, 0, 160)).buffer), found.classes);
        const create = (changes) => () => Predictor.create(device, planner, { ...own, ...changes });
        const predict = (changes) => () => predictor.predict({ embeddings, prototypes, ...changes });
        const one = (range, more) => ({ ...found, range, ...more });
        const shorter = { classes: found.classes.subarray(5) };
        for (const [call, expected] of [
            [create({ count: 71 }), /^Parameter: `predictions` is 71, allowed is 1 <= k <= 64, and no more than there are classes/],
            [create({ count: 0 }), /^Parameter: `predictions` is 0/],
            [create({ count: undefined }), /^Format: this is no request: missing field `count`/],
            [create({ want: {} }), /^Name: `want` is not a known setting; known are: loss, shape, count, range/],
            [create({ options: { filter: 1e-3 } }), /^Name: `filter` is not a known option; known are: budget, preset, tile, work_per_submit/],
            [create({ range: [60, 71] }), /^Shards: shard 60\.\.71 found .* 70 classes/],
            [create({ range: [9, 9] }), /^Shards: shard 9\.\.9 found/],
            [create({ shards: [64, 7] }), /^Length: `shards` has 71 values, expected 70/],
            [create({ options: { budget: 100 } }), /^Budget: .*at least \d+ bytes.*100/],
            [predict({ embeddings: undefined }), /^Missing: `embeddings` is missing/],
            [predict({ embeddings: new Float32Array(95) }), /^Length: `embeddings` has 95 values, expected 96/],
            [predict({ embeddings: new Float32Array(108) }), /^Rows: the batch has 9 rows, .*at most 8/],
            [predict({ prototypes: new Float32Array(12) }), /^Length: `prototypes` has 12 values, expected 840/],
            [predict({ prototypes: new Uint16Array(840) }), /^Element: `prototypes` is a Uint16Array, expected a Float32Array/],
            [predict({ labels: [1] }), /^Name: `labels` is not a known input; known are: embeddings, prototypes, bias/],
            [predict({ bias: new Float32Array(70) }), /^Combination: bias: only a linear head adds one/],
            [() => predictor.predict({ embeddings, prototypes }, { training: true }), /^Name: `training` is not a known option/],
            [() => predictor.predict({ embeddings, prototypes }, { loss: 'sphereface2' }), /^Recompile: /],
            [() => predictor.bind({ ...io, labels: buffer(32) }), /^Name: `labels` is no tensor of this head; known are: embeddings, prototypes, predictedClasses/],
            [() => predictor.bind({ ...io, predictedClasses: undefined }), /^Missing: `predictedClasses` is missing/],
            [() => predictor.bind({ ...io, embeddings: io.predictedCosines }), /^(Buffer|Overlap): /],
            [() => mergePredictions([one([0, 40]), one([41, 70])], 70), /^Shards: shard 41\.\.70 found where one from class 40 must begin: together they must be 70 classes/],
            [() => mergePredictions([one([0, 40])], 70), /^Shards: shard 70\.\.70 found where one from class 40 must begin/],
            [() => mergePredictions([], 70), /^Shards: /],
            [() => mergePredictions([one([0, 40]), one([40, 70], { count: 4 })], 70), /^Length: `predictions\.count` has 4 values, expected 5/],
            [() => mergePredictions([one([0, 40]), one([40, 70], shorter)], 70), /^Length: `predictions\.classes` has 35 values, expected 40/],
        ]) {
            const found = await refused(call);
            if (!expected.test(found)) throw new Error(`${found}\ninstead of ${expected}`);
        }
        same('still works', (await predictor.predict({ embeddings, prototypes })).classes, found.classes);
        bound.destroy();
        predictor.destroy();
        const gone = await refused(() => predictor.predict({ embeddings, prototypes }));
        if (!gone.startsWith('Missing: ')) throw new Error(gone);
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },

    'soft labels are the mix of separate calls': async () => {
        const options = { tile: 'direct', soft_labels: 3 };
        const rows = [...batch.labels.keys()];
        const other = batch.labels.map((label) => (label * 3 + 1) % 70);
        const lambda = Float32Array.from(rows, (i) => i / 10);
        const pairs = (one, two) => rows.flatMap((i) => [one[i], two[i]]);
        const weights = Float32Array.from(pairs(lambda, lambda.map((l) => 1 - l)));
        const own = await Head.create(device, planner, { ...settings, options });
        // mixup: two targets, one of them the label
        const mixed = await own.evaluate({ ...batch, softLabels: { count: 2, classes: pairs(batch.labels, other), weights } });
        const none = { ...planner.loss('arcface'), reduction: 'none' };
        const [one, two] = [await head.evaluate(batch, { loss: none }), await head.evaluate({ ...batch, labels: other }, { loss: none })];
        const expected = rows.map((i) => lambda[i] * one.rowLosses[i] + (1 - lambda[i]) * two.rowLosses[i]);
        const largest = Math.max(...expected);
        // the gate of row losses, twice: two calls are compared
        const near = (found, i) => Math.abs(found - expected[i]) <= 2e-5 * largest;
        if (!mixed.rowLosses.every(near)) throw new Error(`${mixed.rowLosses} instead of ${expected}`);
        // three slots, a class twice, a gap: the same targets
        const apart = rows.flatMap((i) => [batch.labels[i], other[i], i % 2 ? -1 : other[i]]);
        const parts = rows.flatMap((i) => [lambda[i], (1 - lambda[i]) / (i % 2 ? 1 : 2), (1 - lambda[i]) / 2]);
        const again = await own.evaluate({ ...batch, softLabels: { classes: BigInt64Array.from(apart, BigInt), weights: Float32Array.from(parts) } });
        if (!again.rowLosses.every(near)) throw new Error(`${again.rowLosses} instead of ${expected}`);
        // without them the label is the only target, as in a head that has none
        const alone = await own.evaluate(batch);
        const plain = await head.evaluate(batch);
        if (!alone.rowLosses.every((loss, i) => Math.abs(loss - plain.rowLosses[i]) <= 1e-5 * largest)) throw new Error(`${alone.rowLosses}`);
        // through buffers
        const io = await own.createBuffers(['softClasses', 'softWeights', 'rowLosses']);
        for (const name of ['embeddings', 'prototypes', 'labels']) device.queue.writeBuffer([io[name]].flat()[0], 0, batch[name]);
        device.queue.writeBuffer(io.softClasses, 0, Int32Array.from(apart));
        device.queue.writeBuffer(io.softWeights, 0, Float32Array.from(parts));
        const bound = await own.bind(io);
        const encoder = device.createCommandEncoder();
        bound.recordForward(encoder);
        device.queue.submit([encoder.finish()]);
        same('bound', await read(io.rowLosses, 0, 32), again.rowLosses);
        bound.destroy();
        own.destroy();
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },

    'soft labels that are refused': async () => {
        const filled = (count, value) => new Float32Array(count).fill(value);
        const io = await head.createBuffers();
        const soft = await Head.create(device, planner, { ...settings, options: { tile: 'direct', soft_labels: 2 } });
        const softIo = await soft.createBuffers(['softClasses', 'softWeights']);
        const classes = Int32Array.from({ length: 16 }, (_, i) => i);
        const softly = (changes) => () => soft.evaluate({ ...batch, softLabels: { classes, weights: filled(16, 0.5), ...changes } });
        const softWith = (i, value) => classes.map((class_, at) => (at === i ? value : class_));
        const create = (changes) => () => Head.create(device, planner, { ...settings, ...changes });
        const options = (changes) => create({ options: { tile: 'direct', ...changes } });
        for (const [call, expected] of [
            [() => head.evaluate({ ...batch, softLabels: { classes, weights: filled(16, 1) } }), /^Missing: `options\.soft_labels` is missing: the batch has soft labels/],
            [softly({ classes: classes.subarray(1) }), /^Length: `softLabels\.classes` has 15 values, expected 16/],
            [softly({ weights: filled(15, 1) }), /^Length: `softLabels\.weights` has 15 values, expected 16/],
            [softly({ weights: undefined }), /^Element: `softLabels\.weights` is a Undefined, expected a Float32Array/],
            [softly({ weights: new Float64Array(16) }), /^Element: `softLabels\.weights` is a Float64Array, expected a Float32Array/],
            [softly({ classes: filled(16, 1) }), /^Element: `softLabels\.classes` is a Float32Array, expected a Int8Array/],
            [softly({ classes: Array(16).fill(0.5) }), /^Element: `softLabels\.classes` holds 0\.5 in row 0, expected whole numbers/],
            [softly({ classes: softWith(5, 70) }), /^Label: row 2 has label 70, .*70 classes/],
            [softly({ classes: Array.from(classes, (class_) => (class_ === 5 ? 2 ** 40 : class_)) }), /^Label: row 2 has label 1099511627776/],
            [softly({ weights: filled(16, NaN) }), /^Parameter: `softLabels\.weights` is NaN, allowed is 0, or 1e-30 <= w <= 1e24/],
            [softly({ weights: filled(16, -1) }), /^Parameter: `softLabels\.weights` is -1/],
            [softly({ count: 3 }), /^Parameter: `softLabels\.count` is 3, allowed is at most options\.soft_labels, 2/],
            [softly({ count: 1.5 }), /^Parameter: `softLabels\.count` is 1\.5/],
            [softly({ count: 0, classes: [], weights: filled(0, 1) }), /^Parameter: `soft_labels` is 0, allowed is 1 to 16 targets of a row/],
            [softly({ lambda: 1 }), /^Name: `lambda` is not a known part of softLabels; known are: classes, weights, count/],
            [
                () => soft.evaluate({ ...batch, rowWeights: filled(8, 1e20), softLabels: { classes, weights: filled(16, 1e20) } }),
                /^Parameter: `softLabels\.weights · rowWeights · classWeights` is /,
            ],
            [options({ soft_labels: 17 }), /^Parameter: `soft_labels` is 17, allowed is 1 to 16 targets of a row/],
            [options({ soft_labels: 2, predictions: 3 }), /^Combination: soft_labels: predictions know one target of a row/],
            [create({ loss: 'curricularface', options: { soft_labels: 2 } }), /^Combination: soft_labels: the other classes of CurricularFace depend on the target/],
            [() => head.bind({ ...io, softClasses: buffer(64) }), /^Combination: softClasses: the plan has no soft labels: ask for them with options\.soft_labels/],
            [() => soft.bind({ ...softIo, softWeights: undefined }), /^Missing: `softWeights` is missing: there are softClasses/],
            [() => soft.bind({ ...softIo, softClasses: buffer(60) }), /^Buffer: `softClasses` needs bytes 0\.\.64 of a buffer of 60 bytes/],
        ]) {
            const found = await refused(call);
            if (!expected.test(found)) throw new Error(`${found}\ninstead of ${expected}`);
        }
        await soft.evaluate({ ...batch, softLabels: { classes, weights: filled(16, 0.5) } });
        if (uncaptured.length > 0) throw new Error(uncaptured.join());
    },
};

export default (suite) => inPage(suite, tests);
