// Types of margin-softmax.js. GPU types are those of the DOM library, or of @webgpu/types.

import type { Batch, BatchReport, Inputs, Output, Predictions, State, StateInput } from './module/data.js';

export * from './module/data.js';
export * from './module/companions.js';

/** Named after the crate's errors; `message` says in plain words what to do. */
export class MarginSoftmaxError extends Error {
    readonly name: 'MarginSoftmaxError';
    readonly code: ErrorCode;
}

export type ErrorCode =
    | 'Alignment'
    | 'Budget'
    | 'Buffer'
    | 'Combination'
    | 'Device'
    | 'DeviceLost'
    | 'Element'
    | 'Foreign'
    | 'Format'
    | 'Label'
    | 'Length'
    | 'Limit'
    | 'Missing'
    | 'Name'
    | 'NoAdapter'
    | 'OutOfMemory'
    | 'Overlap'
    | 'Parameter'
    | 'Recompile'
    | 'Rows'
    | 'Shape'
    | 'Shards'
    | 'Size'
    | 'Unfinished'
    | 'Cancelled'
    | 'Usage'
    | 'Work'
    | 'Zero';

/** A loss as plain data, spelled as in the crate's JSON; what is left out has its default. Start from `Planner.loss`. */
export interface Loss {
    target?: Target;
    others?: unknown;
    link?: unknown;
    adaptive?: unknown;
    product?: 'cosine' | 'linear';
    /** s; at most 1e6. */
    scale?: number;
    /** Label smoothing, 0 to 1. */
    label_smoothing?: number;
    /** γ of the focal loss, 0 to 16; softmax without label smoothing. */
    focal?: number;
    /** λ of the z-loss, 0 to 1000; softmax. */
    z_loss?: number;
    reduction?: 'mean' | 'sum' | 'none';
    ignore_index?: number | null;
}

/** The curve of the labelled class; `unified` has the margins m0..m3 of most losses. */
export type Target = { unified: Unified } | { angle: unknown } | { power: unknown };

/** φ = m0·cos(m1·θ + m2) − m3. */
export interface Unified {
    m0?: number;
    m1?: number;
    m2?: number;
    m3?: number;
    curve?: 'exact' | { series: { degree?: number; damping?: string; coefficients?: unknown } };
    slope?: 'analytic' | 'detached';
    fallback?: 'continuous' | 'sine' | 'mirror' | 'none' | 'easy' | { clip: number };
}

export type ElementType = 'f32' | 'f16' | 'bf16';

export interface Shape {
    /** The most rows of a batch. */
    rows: number;
    classes: number;
    dim: number;
    /** Prototypes of a class; 1 if absent. */
    sub_centers?: number;
}

export interface Settings {
    /** A name or plain data. */
    loss: string | Loss;
    shape: Shape;
    /** Both gradients if absent. */
    want?: { grad_embeddings?: boolean; grad_prototypes?: boolean; grad_scale?: boolean; grad_bias?: boolean };
    /** How embeddings and prototypes are stored; f32 if absent. Gradients are f32. */
    elements?: { embeddings?: ElementType; prototypes?: ElementType };
    /** Classes of each prototype buffer; as few as the device allows if absent. */
    shards?: number[];
    options?: {
        /** The most bytes of workspace; 256 MiB if absent. */
        budget?: number;
        preset?: 'auto' | 'portable' | 'desktop' | 'intel' | 'apple' | 'mobile' | 'software';
        tile?: 'direct' | 'direct_64' | 'tile_32' | 'tile_64' | 'tile_64_short' | 'tile_128';
        /** The threshold of a gradient filter. */
        filter?: number;
        /** The most multiply-adds of a submit, for devices whose system resets them when one takes too long; no limit if absent. */
        work_per_submit?: number;
        /** k, 1 to 64: the nearest classes of each row come out; none if absent. */
        predictions?: number;
        /**
         * T, 1 to 16: the most targets of a row that `softLabels` may bring; none if absent. Refused with `predictions`, and where
         * the other classes depend on the target (CurricularFace, inter-topk, MV-Softmax, ArcNegFace).
         */
        soft_labels?: number;
    };
}

/** What a predictor is made for. Of the loss scale, link and product are used. */
export interface PredictorSettings {
    /** A name or plain data. */
    loss: string | Loss;
    shape: Shape;
    /** k, 1 to 64 and no more than there are classes: the nearest classes of each row. */
    count: number;
    /** First class and the one after the last among those of `shape`, whose prototypes and biases are given; all if absent. */
    range?: readonly [number, number];
    elements?: Settings['elements'];
    /** Classes of each prototype buffer; as few as the device allows if absent. */
    shards?: number[];
    options?: Pick<NonNullable<Settings['options']>, 'budget' | 'preset' | 'tile' | 'work_per_submit'>;
}

/** What a device allows, as the planner reads it. */
export interface Limits {
    max_buffer: number;
    max_binding: number;
    max_groups: number;
    storage_buffers: number;
    invocations: number;
    size_x: number;
    workgroup_bytes: number;
    alignment: number;
    f16: boolean;
    software: boolean;
    vendor?: 'unknown' | 'amd' | 'apple' | 'intel' | 'nvidia' | 'qualcomm';
}

/** What the planner decided. */
export interface Plan {
    readonly uniforms: [number, number];
    readonly part_stride: number;
    /** Bytes that a bound set allocates beside the caller's buffers. */
    readonly workspace_bytes: number;
    /** First class and the one after the last. */
    readonly range: [number, number];
    readonly shards: number[];
    /** Nearest classes of each row that come out; 0 without. */
    readonly predictions: number;
    /** The most targets of a row; 0 without soft labels. */
    readonly soft_labels: number;
    /** Where rows and batch lie in the workspace, in words of 32 bits. */
    readonly report: { row: Record<string, number>; states: [number, number, number]; batch: Record<string, number> };
    readonly schedule: { tile: string; keep: boolean; chunks: number[]; slots: number; splits: number };
    readonly buffers: { name: string; bytes: number; role: 'workspace' | 'given' | 'optional'; shard: number }[];
    readonly kernels: { name: string; source: string; written: boolean[] }[];
    readonly forward: Step[];
    readonly backward: Step[];
    readonly stages: Record<'targets' | 'follow' | 'statistics' | 'losses', [number, number]>;
}

export interface Step {
    kernel: number;
    part: number;
    buffers: number[];
}

export class Planner {
    private constructor();
    /** Starts the planner; `wasm` is `margin-softmax/planner.wasm` where it is not to come from this package's own text. */
    static load(how?: { wasm?: string | URL | Response | BufferSource | WebAssembly.Module }): Promise<Planner>;
    /** The named losses and where their numbers come from. */
    losses(): { name: string; source: string }[];
    /** A named loss as plain data. */
    loss(loss: string | Loss): Loss;
    /**
     * A loss as it is in a training step: all its numbers, for `evaluate` and `update`, where it compiles nothing. Refused where the
     * loss has no such number, or where a value lies outside its range.
     */
    scheduled(loss: string | Loss, schedules: Schedules, step: number | bigint): Loss;
    /** φ(x) and dφ/dx at target cosines x, without the scale. */
    curve(loss: string | Loss, cosines: ArrayLike<number>): { values: Float64Array; slopes: Float64Array };
}

/** How a number goes from `start` to `end` between two training steps: before `from` it is `start`, from `until` on `end`. */
export interface Schedule {
    start: number;
    end: number;
    from: number | bigint;
    until: number | bigint;
    /** `exponential` if absent: fast first, 0.999 of the way just before `until`. */
    ramp?: 'linear' | 'exponential';
}

/** The numbers of a loss that change in a run; the rest stays as it is. */
export interface Schedules {
    /** Of a unified target; m2 in radians. */
    m0?: Schedule | null;
    m1?: Schedule | null;
    m2?: Schedule | null;
    m3?: Schedule | null;
    /** Of Li-ArcFace, ArcGrad and SphereFace2. */
    margin?: Schedule | null;
    /** Not with dynamic AdaCos, which sets its own. */
    scale?: Schedule | null;
    /** The margin of inter-topk follows m2, as top_k·m2/0.2. */
    top_k?: number | null;
}

/** A device with all that its adapter can hold, for pages without an engine. */
export function requestDevice(options?: {
    adapter?: GPURequestAdapterOptions;
    /** Asks for the shader type f16, where there is one. */
    f16?: boolean;
    /** Asks for timestamps, where there are any. */
    timestamps?: boolean;
    label?: string;
}): Promise<{ adapter: GPUAdapter; device: GPUDevice }>;

export function limitsOf(device: GPUDevice): Limits;

/** A buffer, or a range of one. `size` may be left out; if given it must be that of the tensor. */
export type Binding = GPUBuffer | { buffer: GPUBuffer; offset?: number; size?: number };

/** N rows, C classes of K sub-centers, D values a vector; row-major. What is written must share no buffer with what is read. */
export interface Io {
    /** [N, D]. */
    embeddings: Binding;
    /** [C, D] or [C, K, D]; one buffer per shard of `head.plan.shards`. */
    prototypes: Binding | Binding[];
    /** [N], i32. */
    labels: Binding;
    /** [1], written. */
    loss: Binding;
    /** [N], written. */
    rowLosses?: Binding;
    /** [N], written: log Σ exp over all classes, of the loss' own logits; 0 with a binary link. */
    logSumExps?: Binding;
    /** [N, k], i32, written; needed if planned: the nearest classes of each row, best first; -1 where a row has none. */
    predictedClasses?: Binding;
    /** [N, k], written; needed if planned: their raw cosines, without margin or scale. */
    predictedCosines?: Binding;
    /** [N, k], written; needed if planned: the log-softmax of s·c over all classes; with a binary link log σ(s·c + b). */
    logProbabilities?: Binding;
    /** [N, k], i32, written: which prototype of the class has that cosine. */
    predictedSubCenters?: Binding;
    /** [N, D], written; needed if planned. */
    gradEmbeddings?: Binding;
    /** Like the prototypes, written; needed if planned. */
    gradPrototypes?: Binding | Binding[];
    /** [1], written; needed if planned. */
    gradScale?: Binding;
    /** [C] of a linear head, [1] of a binary link, written; needed if planned. */
    gradBias?: Binding;
    /** [N] with the reduction `none`, else [1]. */
    upstream?: Binding;
    /** [C]. */
    classWeights?: Binding;
    /** [N]. */
    rowWeights?: Binding;
    /** [N, T], i32, with the T of `options.soft_labels`; a negative one is no target. Comes with `softWeights`. */
    softClasses?: Binding;
    /** [N, T]: the weight of each of these, 0 or 1e-30 to 1e24; any other makes its row invalid. */
    softWeights?: Binding;
    /** [C, 4]: m0..m3, NaN for the loss' own. */
    classMargins?: Binding;
    /** [N, 4]. */
    rowMargins?: Binding;
    /** [C], of a linear head. */
    bias?: Binding;
    /** [4]: hardness, mean and deviation of the lengths, scale; moved by training steps. */
    state?: Binding;
}

/** The tensors of a prediction, as in `Io`; `bias` and sub-centers are optional. */
export type PredictIo = Required<Pick<Io, 'embeddings' | 'prototypes' | 'predictedClasses' | 'predictedCosines' | 'logProbabilities'>> &
    Pick<Io, 'bias' | 'predictedSubCenters'>;

/**
 * The nearest classes among those of all parts, and their log-probabilities among all classes. The parts are predictions of the
 * same rows, each of a `range`; together they must be all of so many classes, each once (`Shards`), with the same `count` (`Length`).
 */
export function mergePredictions(parts: readonly Predictions[], classes: number): Predictions;

export class Head {
    private constructor();
    /** Plans and compiles; `onProgress` is called once before and once after every kernel. */
    static create(
        device: GPUDevice,
        planner: Planner,
        settings: Settings,
        hooks?: { onProgress?(done: number, total: number, name: string): void },
    ): Promise<Head>;
    readonly device: GPUDevice;
    readonly planner: Planner;
    readonly plan: Plan;
    readonly loss: Loss;
    readonly shape: Required<Shape>;
    /** Bytes of the tensors that `bind` takes. */
    bytes(): Partial<Record<keyof Io, number | number[]>>;
    /** Buffers for all that `bind` must be given, and for the optional ones that `also` names. */
    createBuffers(also?: (keyof Io)[], usage?: GPUBufferUsageFlags): Promise<Record<keyof Io, GPUBuffer> & { prototypes: GPUBuffer[]; gradPrototypes: GPUBuffer[] }>;
    /** Allocates a workspace and binds the buffers; rejects with what the device refuses. */
    bind(io: Io): Promise<Bound>;
    /**
     * Uploads, records, submits, reads back. A training step moves `state`; an error leaves it as it was. `onProgress` is
     * called after each part of the work, of which there are several with `work_per_submit`, parts of much the same work. Where it
     * returns `false`, the call rejects with the code `Cancelled`, and the rest is not submitted.
     */
    evaluate(
        batch: Batch,
        options?: { loss?: string | Loss; training?: boolean; onProgress?(done: number, total: number): boolean | void },
    ): Promise<Output>;
    /**
     * Lengths, margins, parts of the loss and gradients of a batch, from what `evaluate` returned for it: numbers for a log now and
     * then, computed on the host. `loss` and `training` as they were there; `state`: that after the call, by default the head's.
     */
    report(batch: Batch, out: Output, options?: { loss?: string | Loss; training?: boolean; state?: StateInput }): BatchReport;
    /** A copy of what a run must keep. Can be set while no call of `evaluate` is under way. */
    get state(): State;
    set state(state: StateInput);
    destroy(): void;
}

/** The nearest classes of rows without labels, in memory for one chunk of cosines and the classes of `range`. */
export class Predictor {
    private constructor();
    /** Plans and compiles; `onProgress` is called once before and once after every kernel. */
    static create(
        device: GPUDevice,
        planner: Planner,
        settings: PredictorSettings,
        hooks?: { onProgress?(done: number, total: number, name: string): void },
    ): Promise<Predictor>;
    readonly device: GPUDevice;
    readonly planner: Planner;
    readonly plan: Plan;
    readonly loss: Loss;
    readonly shape: Required<Shape>;
    /** Bytes of the tensors that `bind` takes. */
    bytes(): Partial<Record<keyof PredictIo, number | number[]>>;
    /** Buffers for all that `bind` must be given, and for the optional ones that `also` names. */
    createBuffers(
        also?: (keyof PredictIo)[],
        usage?: GPUBufferUsageFlags,
    ): Promise<Record<keyof PredictIo, GPUBuffer> & { prototypes: GPUBuffer[] }>;
    /** Allocates a workspace and binds the buffers. Its forward pass writes the predictions; there is no backward pass. */
    bind(io: PredictIo): Promise<Bound>;
    /**
     * Uploads, records, submits, reads back; the number of rows follows from the embeddings. `loss` is the predictor's with other
     * numbers: where the scale follows the batch (dynamic AdaCos) give it that of `head.state`. `onProgress` is called after
     * each part of the work, of which there are several with `work_per_submit`.
     */
    predict(inputs: Inputs, options?: { loss?: string | Loss; onProgress?(done: number, total: number): boolean | void }): Promise<Predictions>;
    destroy(): void;
}

export class Bound {
    private constructor();
    /** One queue write, which holds for every later submit. Record again after `rows` or `training` changed. */
    update(
        loss?: string | Loss,
        call?: {
            rows?: number;
            /** Gradients that are added to what their buffers hold: all, none, or some. */
            accumulate?: boolean | { embeddings?: boolean; prototypes?: boolean };
            /** What a mean is divided by, in the place of the weights of its rows; null for those. */
            divisor?: number | null;
            training?: boolean;
            step?: number | bigint;
            seed?: number | bigint;
        },
    ): void;
    /** Goes on from a state like `head.state`; without one from the state before the first step. */
    setState(state?: StateInput): void;
    recordForward(encoder: GPUCommandEncoder): void;
    /** One follows each forward pass. */
    recordBackward(encoder: GPUCommandEncoder): void;
    /**
     * What `recordForward` records, in parts for a submit of their own each, to be called in this order; one where the head was
     * made without `work_per_submit`. The results are there, with the bits of one submit, after the last.
     */
    forwardParts(): ((encoder: GPUCommandEncoder) => void)[];
    /** What `recordBackward` records, in such parts. */
    backwardParts(): ((encoder: GPUCommandEncoder) => void)[];
    /** Frees the workspace. */
    destroy(): void;
}
