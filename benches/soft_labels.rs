//! Soft labels: the time of a whole step with several targets for each row, over that with the label alone.
//!
//! Forward and backward over slices on the CPU, best of alternating rounds. Two targets are mixup, 16 the most. Every head is
//! checked first: one target that is the label has the bits of the label alone.

use std::time::Instant;

use margin_softmax::{Backend, Batch, MarginSoftmax, Options, Output, Shape, data::SoftLabels};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Rows, classes, dim; rounds.
const SHAPES: [([usize; 3], usize); 3] = [([256, 5994, 192], 40), ([512, 20_000, 512], 6), ([256, 96_000, 128], 6)];

/// Numbers of (−1, 1) that look random.
fn numbers(count: usize, mut state: u64) -> Vec<f32> {
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

fn main() -> Result<()> {
    let presets = [("arcface", MarginSoftmax::arcface()), ("sphereface2", MarginSoftmax::sphereface2())];
    for ([n, c, d], rounds) in SHAPES {
        let shape = Shape::new(n, c, d)?;
        let (x, w) = (numbers(n * d, 1), numbers(c * d, 2));
        let labels: Vec<i64> = (0..n).map(|i| (i * 2_654_435_761 % c) as i64).collect();
        let plain = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        for (name, loss) in &presets {
            let mut line = format!("{name} {n}x{c}x{d}:");
            for count in [1, 2, 16] {
                let class = |i: usize, t: usize| ((labels[i] as usize + t * 7919) % c) as i32;
                let classes: Vec<i32> = (0..n * count).map(|at| class(at / count, at % count)).collect();
                let weights = vec![1.0 / count as f32; n * count];
                let soft = Some(SoftLabels { count, classes: &classes, weights: &weights });
                let several = Batch { soft_labels: soft, ..plain };
                let options = Options { soft_labels: Some(count), ..Options::default() };
                let (mut one, mut many) =
                    (Backend::cpu().head(loss, shape)?, Backend::cpu().head_with(loss, shape, &options)?);
                let (mut a, mut b) = (Output::default(), Output::default());
                let mut best = [f64::INFINITY; 2];
                for _ in 0..rounds {
                    let start = Instant::now();
                    one.evaluate_into(&plain, &mut a)?;
                    best[0] = best[0].min(start.elapsed().as_secs_f64());
                    let start = Instant::now();
                    many.evaluate_into(&several, &mut b)?;
                    best[1] = best[1].min(start.elapsed().as_secs_f64());
                }
                assert!(count > 1 || a == b, "one target has other bits than the label");
                line += &format!("  {count} targets {:.3} of {:.1} ms", best[1] / best[0], best[0] * 1e3);
            }
            println!("{line}");
        }
    }
    Ok(())
}
