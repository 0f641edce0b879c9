// The gradient is stored times the inverse length of its prototype, so that dX needs no lengths.

@group(0) @binding(BINDING) var<storage, read> batch: array<Batch>;

fn pull_balance() -> f32 { return batch[0].balance; }

fn pull_factor(vector: u32) -> f32 { return abs(classes[vector].x) * batch[0].balance; }
