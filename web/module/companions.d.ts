// Types of what stands beside a head: penalties, center loss, monitors. GPU types are those of the DOM library.

import type { Binding, Bound, ElementType, Plan, Planner } from '../margin-softmax.js';
import type { Labels, Output } from './data.js';

/** A name, with the weight 1, or the crate's JSON. */
export type RegularizerInput = 'reg_ss' | 'uniform_face' | { reg_ss: { weight?: number } } | { uniform_face: { weight?: number } };

interface Hooks {
    /** Called once before and once after every kernel. */
    onProgress?(done: number, total: number, name: string): void;
}

/**
 * A penalty on the prototypes alone, to be added to the loss of a head. `reg_ss`: the length of the mean of their directions;
 * `uniform_face`: the mean inverse distance of all pairs, on at most 2^22 classes.
 */
export class Regularizer {
    private constructor();
    static create(
        device: GPUDevice,
        planner: Planner,
        settings: { regularizer: RegularizerInput; shape: { classes: number; dim: number }; element?: ElementType },
        hooks?: Hooks,
    ): Promise<Regularizer>;
    readonly plan: Plan;
    /**
     * Binds the caller's buffers, of which `gradPrototypes` [C, D] and `loss` [1], the value, are written. `recordForward` is all there is to record;
     * with `update(undefined, { accumulate: true })` the gradient is added to what its buffer holds, as to that of a head.
     */
    bind(io: { prototypes: Binding; gradPrototypes: Binding; loss: Binding }): Promise<Bound>;
    /** Of prototypes [C, D]; f16 and bf16 as Float16Array (f16) or raw bits. */
    evaluate(prototypes: Float32Array | Uint16Array | ArrayBufferView): Promise<{ value: number; gradient: Float32Array }>;
    destroy(): void;
}

/** A batch of the center loss. */
export interface CenterBatch {
    /** [N, D], not normalised; f16 and bf16 as Float16Array (f16) or raw bits. */
    embeddings: Float32Array | Uint16Array | ArrayBufferView;
    /** [N]: 0 to C - 1, or the ignore index. */
    labels: Labels;
    /** [C, D]. */
    centers: Float32Array;
}

/** The center loss: embeddings are drawn to the center of their class, λ/(2N)·Σ|x - c|². The loss moves no center, that is a call of its own. */
export class CenterLoss {
    private constructor();
    static create(
        device: GPUDevice,
        planner: Planner,
        settings: {
            /** λ, 0.02 if absent; α, how far a center moves, 0.5 if absent. */
            loss?: { weight?: number; rate?: number; ignore_index?: number | null };
            /** At most 32,768 rows. */
            shape: { rows: number; classes: number; dim: number };
            element?: ElementType;
        },
        hooks?: Hooks,
    ): Promise<CenterLoss>;
    /** Binds the caller's buffers, of which `loss` [1] and `gradEmbeddings` [N, D] are written; labels are i32. */
    bind(io: { embeddings: Binding; labels: Binding; centers: Binding; loss: Binding; gradEmbeddings: Binding }): Promise<Bound>;
    /** Binds the caller's buffers, of which the centers move in place: to be recorded once a step. */
    bindMove(io: { embeddings: Binding; labels: Binding; centers: Binding }): Promise<Bound>;
    evaluate(batch: CenterBatch): Promise<{ loss: number; gradEmbeddings: Float32Array }>;
    /** The centers after one move: a new array. */
    moved(batch: CenterBatch): Promise<Float32Array>;
    destroy(): void;
}

/** Means over the rows that count, before margin and scale; 0 where there is none. Angles in radians. */
export interface MonitorReport {
    rows: number;
    accuracy: number;
    /** M_intra: to the labelled prototype. */
    intraAngle: number;
    /** M_inter: to the nearest other prototype. */
    interAngle: number;
    targetCosine: number;
    /** Rows by these angles: equal bins over 0 to π. */
    intraHistogram: number[];
    interHistogram: number[];
}

/** Accuracy and angles over the rows of any number of batches, on the host. */
export class Monitor {
    /** Of the histograms, 1 to 1024; 64 if absent. */
    constructor(bins?: number);
    /** The result of `Head.evaluate`, with the labels and the ignore index it was given. Not of a linear head, which has no angles. */
    add(
        out: Pick<Output, 'rowLosses' | 'targetCosines' | 'otherCosines'> & { counts: Pick<Output['counts'], 'rows' | 'nonFinitePrototypes'> },
        labels: Labels,
        ignoreIndex?: number | bigint | null,
    ): void;
    merge(other: Monitor): void;
    report(): MonitorReport;
}

/** The length of the mean direction of prototypes [C, D]: 1 if all point the same way, about 1/√C at random; NaN where one is not finite. */
export function meanPrototype(prototypes: Float32Array | Float64Array | readonly number[], dim: number): number;

export interface CollapseThresholds {
    /** A warning is due below it; 0 if absent. */
    targetCosine?: number;
    /** Above it the prototypes have collapsed too; what random ones hardly reach if absent. */
    meanPrototype?: number;
    /** No warning before so many rows; 20,000, or ten for each class, if absent. */
    warmUp?: number;
}

export interface Collapse {
    /** The embeddings are pushed away from their prototypes, or these have also gathered on one side. */
    kind: 'repelled' | 'collapsed';
    targetCosine: number;
    meanPrototype: number | undefined;
    thresholds: Required<CollapseThresholds>;
    /** A sentence for people: the readings, their meaning and the remedies. */
    text: string;
}

/** Watches the reports of a run for polar collapse. */
export class CollapseDetector {
    constructor(shape: { classes: number; dim: number; sub_centers?: number }, thresholds?: CollapseThresholds);
    /** Once for each report of a `Monitor`; `length`: that of `meanPrototype`, if it was measured. */
    check(report: Pick<MonitorReport, 'rows' | 'targetCosine'>, length?: number): Collapse | undefined;
}
