// What goes into heads and predictors, and what comes out.

/** Whole numbers, one per row. */
export type Labels =
    | Int8Array
    | Uint8Array
    | Uint8ClampedArray
    | Int16Array
    | Uint16Array
    | Int32Array
    | Uint32Array
    | BigInt64Array
    | BigUint64Array
    | readonly (number | bigint)[];

/** The same as typed arrays; f16 and bf16 as Float16Array (f16) or raw bits. Values are checked as the crate checks slices. */
export interface Batch {
    embeddings: Float32Array | Uint16Array | ArrayBufferView;
    prototypes: Float32Array | Uint16Array | ArrayBufferView;
    /** 0 to C - 1, or the ignore index. */
    labels: Labels;
    /** 0, or 1e-30 to 1e24. */
    classWeights?: Float32Array;
    /** [N]: a factor on each row's loss and on its share of the mean. 0, or 1e-30 to 1e24. */
    rowWeights?: Float32Array;
    /** What a mean is divided by, in the place of the weights of its rows: 1e-30 to 1e30. */
    divisor?: number;
    /** Several targets for each row; the label alone if absent. */
    softLabels?: SoftLabels;
    /** Finite. */
    upstream?: Float32Array;
    /** NaN for the loss' own. */
    classMargins?: Float32Array;
    /** NaN for those of the class, or the loss' own. */
    rowMargins?: Float32Array;
    /** Finite. */
    bias?: Float32Array;
}

/**
 * Several targets for each row, each with a weight: mixup and cutmix, teachers, label noise; with a binary link the positives of a
 * multi-label problem. The loss of a row is Σ λ_t · loss(x, y_t). The label stays what cosines, accuracy and states follow; it
 * is a target only as far as it is among the classes here.
 */
export interface SoftLabels {
    /** [N, T]: 0 to C - 1; a negative number is a target that is not there. Equal ones are one target with the sum of their weights. */
    classes: Labels;
    /** λ, [N, T]: 0, which is a target that is not there, or 1e-30 to 1e24. */
    weights: Float32Array;
    /** T, at most `options.soft_labels`; as many if absent. */
    count?: number;
}

/** Embeddings to be classified, and prototypes; f16 and bf16 as Float16Array (f16) or raw bits. */
export interface Inputs {
    /** [N, D]. */
    embeddings: Batch['embeddings'];
    /** [C, D] or [C, K, D], of the classes of `range`. */
    prototypes: Batch['prototypes'];
    /** [C] of a linear head, of the classes of `range`; finite. */
    bias?: Float32Array;
}

/**
 * The `count` nearest classes of each row, best first; of equal cosines the lower class comes first. A row with a NaN or infinite
 * value has none, and neither has a row that a training step ignores, nor any row if a prototype has such a value.
 */
export interface Predictions {
    count: number;
    /** First class that was looked at, and the one after the last. */
    range: [number, number];
    /** [N, count]: among all classes; -1 where a row has none. */
    classes: Int32Array;
    /** [N, count]: raw cosines, without margin or scale; of a linear head the products with their bias; NaN where a row has none. */
    cosines: Float32Array;
    /** [N, count]: the log-softmax of s·c over all classes of `range`; with a binary link log σ(s·c + b). */
    logProbabilities: Float32Array;
    /** [N, count]: which prototype of the class has that cosine. */
    subCenters: Int32Array;
    /** [N]: log Σ exp(s·c) over the classes of `range`; absent with a binary link. */
    logSumExps?: Float32Array;
    /** Rows with a NaN or infinite value. */
    nonFiniteRows: number;
    /** Prototypes with a NaN or infinite value. */
    nonFinitePrototypes: number;
}

/** Rows and prototypes that a batch left out, and why: the crate's `Counts`. */
export interface Counts {
    /** Rows that count: neither ignored nor non-finite. */
    rows: number;
    /** Rows with the ignore index. */
    ignored: number;
    /** Rows with a NaN or infinite value: their loss is NaN, their gradient 0. */
    nonFiniteRows: number;
    /** Rows whose numbers only the device saw and no loss may have. */
    invalidLabels: number;
    /** Rows that count although their embedding is shorter than 1e-12; its gradient is 0. */
    zeroEmbeddings: number;
    /** Prototypes shorter than 1e-12; their gradient is 0. */
    zeroPrototypes: number;
    /** Prototypes with a NaN or infinite value: every loss is NaN and every gradient 0. */
    nonFinitePrototypes: number;
}

export interface Output {
    loss: number;
    rowLosses: Float32Array;
    /** log Σ exp over all classes, of the loss' own logits; absent with a binary link. */
    logSumExps?: Float32Array;
    /** [N]: the raw cosine of the labelled class, without margin or scale; 0 for a row that is left out. */
    targetCosines: Float32Array;
    /** [N]: the largest raw cosine among the other classes; -1 where there is none. */
    otherCosines: Float32Array;
    /** The sum over the rows that count of the weight of the row times that of its class. */
    normalizer: number;
    counts: Counts;
    /** The share of the rows with a loss that are nearer to their class than to any other; undefined where there is none. */
    accuracy: number | undefined;
    /** With `predictions` among the options. */
    predictions?: Predictions;
    /** With them: the share of the rows with a loss whose class is among their `count` nearest; undefined where there is none. */
    topK?: { count: number; accuracy: number | undefined };
    gradEmbeddings?: Float32Array;
    gradPrototypes?: Float32Array;
    gradScale?: number;
    gradBias?: Float32Array;
}

/**
 * A batch as its loss saw it, over the rows that count (neither ignored nor with a NaN loss): the crate's `BatchReport`. Every
 * number of rows is 0 if there is none.
 */
export interface BatchReport {
    rows: number;
    /** |x|. */
    lengthMin: number;
    lengthMean: number;
    lengthMax: number;
    /** For MagFace, the share of rows with |x| outside its two lengths. */
    lengthsOutside?: number;
    /** The means of m0..m3 in force (m2 in radians); absent for a target curve without margins. */
    margins?: [number, number, number, number];
    /** The scale in force, which dynamic AdaCos moves. */
    scale: number;
    /** The loss without MagFace's term of the length, reduced as the loss says. */
    marginLoss: number;
    /** For MagFace, its term of the length. */
    lengthLoss?: number;
    /** The 5, 25, 50, 75 and 95 % quantiles of the target cosines. */
    targetCosines: [number, number, number, number, number];
    /** |dL/dX| and |dL/dW| over all values, where they were asked for. */
    embeddingGradient?: number;
    prototypeGradient?: number;
}

/** What a run must keep, spelled as the crate's `State` in JSON. */
export interface State {
    classes: number;
    /** Training steps so far; a BigInt beyond 2^53. */
    step: number | bigint;
    /** Of ElasticFace's draws, 64 bits; a BigInt beyond 2^53; at first 0. */
    seed: number | bigint;
    /** CurricularFace's running mean of the target cosine. */
    hardness: number;
    /** Mean and deviation of the embeddings' norms (AdaFace). */
    norm_mean: number;
    norm_deviation: number;
    /** The scale in force under dynamic AdaCos. */
    scale: number;
}

/** A state to go on from: one that was read here, or in the crate's JSON, where broken numbers are strings. */
export type StateInput = Readonly<{ [K in keyof State]: State[K] | (K extends 'classes' | 'step' | 'seed' ? never : string) }>;
