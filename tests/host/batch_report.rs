//! Reports of a batch: values by hand, and margins that give the head's own losses.

use margin_softmax::{
    Adaptive, Backend, Batch, Error, MarginSoftmax, Margins, Output, Reduction, Shape, State,
    monitor::{BatchReport, QUANTILES},
    objective::{Elastic, Fallback, MagFace},
};

use crate::common::*;

/// Lengths 5 and √5; cosines to the labelled prototypes are 7/√50 and 1/√2.
const X: [f32; 4] = [3.0, 4.0, -1.0, 2.0];
const W: [f32; 6] = [1.0, 1.0, 0.0, 2.0, -3.0, 1.0];
const Y: [i64; 2] = [0, 2];

fn batch() -> Batch<'static> {
    Batch { embeddings: &X, prototypes: &W, labels: &Y, ..Default::default() }
}

fn backends() -> Vec<Backend> {
    vec![
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ]
}

fn evaluate(backend: &Backend, loss: &MarginSoftmax, batch: &Batch<'_>) -> (BatchReport, Output) {
    let mut head = backend.head(loss, Shape::new(batch.labels.len(), 3, 2).unwrap()).unwrap();
    let out = head.evaluate(batch).unwrap();
    (BatchReport::evaluated(loss, head.state(), batch, &out).unwrap(), out)
}

/// From 1 to 10 and from 0.45 to 0.8.
fn magface() -> MarginSoftmax {
    let bounds = MagFace { lower_length: 1.0, upper_length: 10.0, lower_margin: 0.45, upper_margin: 0.8, weight: 0.5 };
    let loss = MarginSoftmax::magface().with_margin(|m| m.fallback = Fallback::None).with_scale(8.0);
    loss.with_adaptive(Adaptive::MagFace(bounds))
}

/// The loss is the golden 3.1299216; its rows' terms of the length are ½(5/100 + 1/5) and ½(√5/100 + 1/√5).
#[test]
fn magface_by_hand() {
    for backend in backends() {
        let (report, out) = evaluate(&backend, &magface(), &batch());
        let root = 5.0_f64.sqrt();
        let terms = [0.5 * (0.05 + 0.2), 0.5 * (root / 100.0 + 1.0 / root)];
        assert_eq!((report.rows, report.length_min, report.length_max), (2, root, 5.0));
        close("mean length", report.length_mean, (5.0 + root) / 2.0, 1e-15);
        assert_eq!(report.lengths_outside, Some(0.0));
        let margins = [5.0, root].map(|length| 0.45 + 0.35 * (length - 1.0) / 9.0);
        all_close("margins", &report.margins.unwrap(), &[1.0, 1.0, (margins[0] + margins[1]) / 2.0, 0.0], 1e-15);
        close("length", report.length_loss.unwrap(), (terms[0] + terms[1]) / 2.0, 1e-15);
        // of f32 row losses around 3, each rounded a few times
        close("softmax", report.margin_loss, 3.1299216 - (terms[0] + terms[1]) / 2.0, 2e-6);
        assert_eq!(report.scale, 8.0);
        let cosines = [0.5_f64.sqrt(), 7.0 / 50.0_f64.sqrt()];
        let at = |share: f64| cosines[0] + share * (cosines[1] - cosines[0]);
        all_close("quantiles", &report.target_cosines, &QUANTILES.map(at), 1e-6);
        // of the golden gradients
        let golden = [-0.4806461_f64, 0.4343981, 2.1960350, 1.2104622];
        close("dX", report.embedding_gradient.unwrap(), length(&golden), 2e-5);
        let golden = [0.8384089_f64, -0.8384089, -0.1231401, 0.0, -0.3807291, -1.1421873];
        close("dW", report.prototype_gradient.unwrap(), length(&golden), 2e-5);
        assert_eq!(out.grad_prototypes.len(), 6);
    }
}

/// Both parts follow weights and reduction, and together they are the loss; only rows that count are in any number.
#[test]
fn parts_add_up_over_the_rows_that_count() {
    let embeddings = [3.0, 4.0, f32::NAN, 1.0, -1.0, 2.0, 60.0, 80.0, 0.1, 0.0];
    let labels = [0, 1, 2, 1, -7];
    let weights = [2.0, 0.5, 3.0];
    let batch = Batch { embeddings: &embeddings, labels: &labels, class_weights: Some(&weights), ..batch() };
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        let loss = magface().with_reduction(reduction).with_ignore_index(-7);
        let (report, out) = evaluate(&Backend::reference(), &loss, &batch);
        assert_eq!((report.rows, report.length_max), (3, 100.0));
        close("outside", report.lengths_outside.unwrap(), 1.0 / 3.0, 1e-15);
        let counting: f64 = [0, 2, 3].iter().map(|&row| f64::from(out.row_losses[row])).sum();
        let z = if reduction == Reduction::Mean { 5.5 } else { 1.0 };
        let term = |length: f64| 0.5 * (length / 100.0 + 1.0 / length);
        let expected = (2.0 * term(5.0) + 3.0 * term(5.0_f64.sqrt()) + 0.5 * term(10.0)) / z;
        close("length", report.length_loss.unwrap(), expected, 1e-14);
        close("both", report.margin_loss + expected, counting / z, 1e-14);
    }
    let all_ignored = Batch { labels: &[-7; 5], ..batch };
    let (report, _) = evaluate(&Backend::reference(), &magface().with_ignore_index(-7), &all_ignored);
    let zeros = [report.length_min, report.length_mean, report.length_max, report.margin_loss];
    assert_eq!((report.rows, zeros, report.length_loss), (0, [0.0; 4], Some(0.0)));
    assert_eq!((report.margins, report.target_cosines), (Some([0.0; 4]), [0.0; 5]));
}

/// The margin of a row, given as a row margin to the same loss without its family, gives the row's loss: so it is the margin that
/// was in force, in an evaluation and in a training step, whose state moves before and whose draws come before.
#[test]
fn margins_in_force_give_the_losses_of_the_head() {
    let sorted = Adaptive::Elastic(Elastic { sorted: true, ..Default::default() });
    let losses = [
        MarginSoftmax::adaface(),
        MarginSoftmax::magface(),
        MarginSoftmax::elasticface_arc(),
        MarginSoftmax::elasticface_arc().with_adaptive(sorted),
        MarginSoftmax::elasticface_cos(),
        MarginSoftmax::cosface(),
    ];
    for backend in backends() {
        for loss in &losses {
            let loss = loss.clone().with_scale(8.0);
            let batch = Batch { embeddings: &X[..2], labels: &Y[..1], ..batch() };
            let mut head = backend.head(&loss, Shape::new(1, 3, 2).unwrap()).unwrap();
            head.set_state(&State { step: 4, seed: 3, norm_mean: 4.0, norm_deviation: 2.0, ..*head.state() }).unwrap();
            let mut plain = backend.head(&loss.clone().with_adaptive(Adaptive::None), head.shape()).unwrap();
            for train in [false, true, true] {
                let out = if train { head.train(&batch) } else { head.evaluate(&batch) }.unwrap();
                let of = if train { BatchReport::trained } else { BatchReport::evaluated };
                let report = of(&loss, head.state(), &batch, &out).unwrap();
                let [m2, m3] = [2, 3].map(|m| [report.margins.unwrap()[m] as f32]);
                let row_margins = Margins { m2: Some(&m2), m3: Some(&m3), ..Margins::NONE };
                let expected = plain.evaluate(&Batch { row_margins, ..batch }).unwrap().loss;
                // margins rounded to f32: 8 · 2 margins · 3e-8, and the rounding of a loss below 10
                let what = format!("{} {} {train}", backend.name(), loss.adaptive.name());
                close(what, report.margin_loss, expected.into(), 4e-6);
            }
        }
    }
}

#[test]
fn margins_of_classes_and_rows_are_in_force() {
    let (of_class, of_row) = ([0.1, 0.2, 0.3], [0.5, 0.25]);
    let class_margins = Margins { m2: Some(&of_class), ..Margins::NONE };
    let row_margins = Margins { m3: Some(&of_row), ..Margins::NONE };
    let (report, _) =
        evaluate(&Backend::reference(), &MarginSoftmax::arcface(), &Batch { class_margins, row_margins, ..batch() });
    all_close("margins", &report.margins.unwrap(), &[1.0, 1.0, 0.2, 0.375], 1e-8);
    // a curve without margins, a linear head, and a scale that follows
    let (report, _) = evaluate(&Backend::reference(), &MarginSoftmax::arcgrad(), &batch());
    assert_eq!((report.margins, report.lengths_outside, report.length_loss), (None, None, None));
    let (report, out) = evaluate(&Backend::reference(), &MarginSoftmax::softmax(), &batch());
    assert_eq!(
        (report.target_cosines[2], report.margin_loss),
        (6.0, (f64::from(out.row_losses[0]) + f64::from(out.row_losses[1])) / 2.0)
    );
    let (report, _) = evaluate(&Backend::reference(), &MarginSoftmax::adacos(), &batch());
    printed("s0 of 3 classes", report.scale, ".980258");
}

#[test]
fn reports_of_another_batch_are_refused() {
    let loss = MarginSoftmax::arcface();
    let mut head = Backend::reference().head(&loss, Shape::new(2, 3, 2).unwrap()).unwrap();
    let out = head.evaluate(&batch()).unwrap();
    let of = |batch: &Batch<'_>, out: &Output| BatchReport::evaluated(&loss, head.state(), batch, out);
    let fresh = BatchReport::trained(&loss, head.state(), &batch(), &out);
    assert!(matches!(fresh, Err(Error::Combination { what: "state", .. })));
    let short = Batch { embeddings: &X[..3], ..batch() };
    assert_eq!(of(&short, &out), Err(Error::Length { what: "embeddings", found: 3, expected: 2 }));
    let one = Batch { embeddings: &X[..2], labels: &Y[..1], ..batch() };
    assert!(matches!(of(&one, &out), Err(Error::Length { what: "row_losses", found: 2, expected: 1 })));
    let unknown = Batch { labels: &[0, 3], ..batch() };
    assert_eq!(of(&unknown, &out), Err(Error::Label { row: 1, label: 3, classes: 3 }));
    let weights = Batch { class_weights: Some(&[1.0; 2]), ..batch() };
    assert!(matches!(of(&weights, &out), Err(Error::Length { what: "class_weights", .. })));
    // prototypes and gradients may be left away
    let lean = Output { grad_embeddings: vec![], grad_prototypes: vec![], ..out.clone() };
    let report = of(&Batch { prototypes: &[], ..batch() }, &lean).unwrap();
    assert_eq!((report.rows, report.embedding_gradient, report.prototype_gradient), (2, None, None));
}
