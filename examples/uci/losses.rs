//! The losses of the table, with the figures published for them.

use margin_softmax::{CenterLoss, MarginSoftmax};

use crate::common::learner::Objective;

/// A line of the table.
pub struct Entry {
    pub title: &'static str,
    /// Margin and scale, for people.
    pub numbers: &'static str,
    pub objective: Objective,
    /// Mean accuracy on Iris and on Balance Scale in Table I of "ArcGrad: Angular Gradient Margin Loss for
    /// Classification", %.
    pub published: Option<[f64; 2]>,
}

/// All of them in the order of that table, then ChebyAAM. Where the paper names no number, it is the library's preset.
pub fn entries() -> Vec<Entry> {
    let entry = |title, numbers, loss: MarginSoftmax, published| {
        let objective = Objective::from(loss);
        Entry { title, numbers, objective, published }
    };
    let center = Objective { center: Some(CenterLoss::default()), ..MarginSoftmax::softmax().into() };
    vec![
        entry("Softmax", "w·x + b", MarginSoftmax::softmax(), Some([96.80, 89.65])),
        Entry {
            objective: center,
            ..entry("center loss", "λ = 0.02, α = 0.5", MarginSoftmax::softmax(), Some([96.75, 88.75]))
        },
        entry("M-Softmax", "m = 0.5", MarginSoftmax::m_softmax(), Some([97.53, 90.05])),
        entry("ArcFace", "m = 0.5, s = 64", MarginSoftmax::arcface(), Some([97.53, 91.98])),
        entry("AdaCos", "dynamic s", MarginSoftmax::adacos(), Some([95.73, 88.08])),
        entry("ArcGrad 30", "s = 30", MarginSoftmax::arcgrad(), Some([97.00, 91.87])),
        entry("ArcGrad 5", "s = 5", MarginSoftmax::arcgrad().with_scale(5.0), Some([96.93, 92.35])),
        entry("ChebyAAM", "m = 0.2, s = 30", MarginSoftmax::cheby_aam(), None),
    ]
}
