//! The losses of the table, with the figures published for them.

use margin_softmax::{CenterLoss, MarginSoftmax};

use crate::common::learner::Objective;

/// A column of the table.
pub struct Entry {
    pub title: &'static str,
    /// Margin and scale, for people.
    pub numbers: &'static str,
    /// Who chose them.
    pub source: &'static str,
    pub objective: Objective,
    /// Mean accuracies in Table I of "ArcGrad: Angular Gradient Margin Loss for Classification", %.
    pub published: Published,
}

/// The paper's figures for a loss.
#[derive(Clone, Copy, Default)]
pub struct Published {
    pub iris: Option<f64>,
    pub balance_scale: Option<f64>,
    /// The mean of its figures for the sets in `EIGHT`.
    pub mean_of_eight: Option<f64>,
}

/// The sets of the paper that some package has.
pub const EIGHT: [&str; 8] =
    ["Iris", "Balance Scale", "Hayes-Roth", "Teaching Assistant", "Haberman", "Pima", "Votes", "WPBC"];

impl Published {
    /// On a data set.
    pub fn on(&self, name: &str) -> Option<f64> {
        match name {
            "Iris" => self.iris,
            "Balance Scale" => self.balance_scale,
            _ => None,
        }
    }
}

/// Those of the paper with the paper's margins and scales, then others. The paper's equations of softmax, center loss and
/// M-Softmax have no bias.
pub fn entries() -> Vec<Entry> {
    const PAPER: &str = "the paper";
    const LIBRARY: &str = "the library's preset";
    let entry = |title, numbers, source, loss: MarginSoftmax, published: [Option<f64>; 3]| {
        let [iris, balance_scale, mean_of_eight] = published;
        let published = Published { iris, balance_scale, mean_of_eight };
        let objective = Objective { bias: false, ..loss.into() };
        Entry { title, numbers, source, objective, published }
    };
    let some = |figures: [f64; 3]| figures.map(Some);
    let mut center =
        entry("center loss", "λ = 0.02, α = 0.5", PAPER, MarginSoftmax::softmax(), some([96.75, 88.75, 76.55]));
    center.objective.center = Some(CenterLoss::default());
    let arcface = MarginSoftmax::arcface();
    let papers = arcface.clone().with_margin(|m| m.m2 = 0.1).with_scale(20.0);
    let arcgrad = MarginSoftmax::arcgrad();
    vec![
        entry("Softmax", "w·x", PAPER, MarginSoftmax::softmax(), some([96.80, 89.65, 76.58])),
        center,
        entry("M-Softmax", "m = 0.5", PAPER, MarginSoftmax::m_softmax(), some([97.53, 90.05, 77.04])),
        entry("ArcFace", "m = 0.1, s = 20", PAPER, papers, some([97.53, 91.98, 76.22])),
        entry("AdaCos", "dynamic s", PAPER, MarginSoftmax::adacos(), [Some(95.73), Some(88.08), None]),
        entry("ArcGrad 30", "s = 30", PAPER, arcgrad.clone(), some([97.00, 91.87, 79.48])),
        entry("ArcGrad 5", "s = 5", PAPER, arcgrad.with_scale(5.0), some([96.93, 92.35, 79.70])),
        entry("ArcFace 64", "m = 0.5, s = 64", LIBRARY, arcface, [None; 3]),
        entry("ChebyAAM", "m = 0.2, s = 30", LIBRARY, MarginSoftmax::cheby_aam(), [None; 3]),
    ]
}
