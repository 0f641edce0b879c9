// The weight of a class as label smoothing uses it.
@group(0) @binding(BINDING) var<storage, read> weights: array<f32>;

fn class_weight(label: u32) -> f32 {
    return select(1.0, smoothing_weight(weights[min(label, arrayLength(&weights) - 1u)]), has(CLASS_WEIGHTS));
}
