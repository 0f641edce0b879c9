//! Facts that the tests need about a part of a loss beyond its values: one line for each variant.
//!
//! A line has the variant, what differs from the defaults of its facts, and a loss as an example. Every match is exhaustive, so that the
//! compiler refuses a variant without a line.

use margin_softmax::{objective::*, *};

use super::{bent, lean, named};

/// Facts of a target curve.
pub struct TargetFacts {
    /// The curve with its true slope.
    pub analytic: Target,
    /// The curve without its margin.
    pub bare: Target,
    /// The transform of the other classes that is the same curve as [`bare`](Self::bare); `None` where there is none.
    pub same: Option<Others>,
    /// The margin whose angle gives the cosines where the formula changes; `None` for a smooth curve. Margins of classes and rows
    /// take the place of its own.
    pub angular: Option<Unified>,
}

impl From<&Target> for TargetFacts {
    /// A smooth curve whose slope is its derivative, and which keeps its margin.
    fn from(target: &Target) -> Self {
        Self { analytic: target.clone(), bare: target.clone(), same: None, angular: None }
    }
}

/// A row as the transform of its other classes sees it.
pub struct Row<'a> {
    /// The target's cosine.
    pub target: f64,
    /// Its value with the margins of the row, without scale.
    pub value: f64,
    pub m2: f64,
    /// The cosines of the other classes, the largest first.
    pub others: &'a [f64],
}

/// Numbers of a row.
type OfRow = Box<dyn Fn(&Row) -> Vec<f64>>;

/// Value and slope at a cosine.
type ValueSlope = Box<dyn Fn(f64) -> (f64, f64)>;

/// Facts of a transform of the other classes.
pub struct OthersFacts {
    /// The transform with its true slope.
    pub analytic: Others,
    /// The transform without its margin.
    pub bare: Others,
    /// The curve that is left of [`bare`](Self::bare) at each cosine alone.
    pub same: Others,
    /// The cosines where its formula changes, in a row.
    pub kinks: OfRow,
    /// How many of the largest cosines it treats otherwise than the rest.
    pub chosen: Option<usize>,
    /// Of a detached slope that is not 1: the slope at a cosine with this value.
    pub detached: Option<fn(c: f64, value: f64) -> f64>,
    /// Whether it varies with the target of the row, through which no gradient passes.
    pub follows_target: bool,
    /// Whether its slope grows without bound, or its higher derivatives do, next to ±1.
    pub steep: bool,
    /// Whether a number of the state follows the batch for it.
    pub moves: bool,
    /// The largest value and true slope that a cosine may get, where that depends on the row.
    pub largest: Option<ValueSlope>,
}

impl From<&Others> for OthersFacts {
    /// A smooth transform that depends on the cosine alone.
    fn from(others: &Others) -> Self {
        Self {
            analytic: others.clone(),
            bare: others.clone(),
            same: Others::Identity,
            kinks: Box::new(|_| vec![]),
            chosen: None,
            detached: None,
            follows_target: false,
            steep: false,
            moves: false,
            largest: None,
        }
    }
}

/// Facts of margins or a scale that follow the row or the batch.
#[derive(Default)]
pub struct AdaptiveFacts {
    /// Whether a number of the state follows the batch.
    pub moves: bool,
    /// Whether each row draws a margin.
    pub draws: bool,
    /// Whether the margin of a row depends on the order of all target cosines.
    pub sorted: bool,
    /// The fewest classes that it takes, if that is more than one.
    pub classes: usize,
}

impl From<&Adaptive> for AdaptiveFacts {
    fn from(_: &Adaptive) -> Self {
        Self::default()
    }
}

/// Facts of a link.
#[derive(Default)]
pub struct LinkFacts {
    /// Whether it takes no label smoothing, and has a loss where there is one class alone.
    pub per_class: bool,
}

impl From<&Link> for LinkFacts {
    fn from(_: &Link) -> Self {
        Self::default()
    }
}

/// Facts of a similarity.
#[derive(Default)]
pub struct SimilarityFacts {
    /// Whether the lengths of the vectors count, and a class has a bias.
    pub linear: bool,
}

impl From<&Similarity> for SimilarityFacts {
    fn from(_: &Similarity) -> Self {
        Self::default()
    }
}

macro_rules! kinds {
    ($facts:ident: $of:ty => $type:ident, $examples:ident; $($pattern:pat => { $($field:tt)* }, $example:expr;)*) => {
        /// The facts of a variant.
        #[allow(clippy::needless_update)] // a line may name every fact
        pub fn $facts(this: &$of) -> $type {
            match this {
                $($pattern => $type { $($field)* ..$type::from(this) },)*
            }
        }

        /// A loss for each variant.
        pub fn $examples() -> Vec<MarginSoftmax> {
            vec![$($example),*]
        }
    };
}

kinds! { target: Target => TargetFacts, targets;
    Target::Unified(m) => {
        analytic: Target::Unified(Unified { slope: Slope::Analytic, ..m.clone() }),
        bare: Target::Unified(Unified { m0: 1.0, m1: 1.0, m2: 0.0, m3: 0.0, ..m.clone() }),
        same: Some(Others::Identity),
        angular: Some(m.clone()),
    }, named("arcface");
    Target::Angle(a) => {
        analytic: Target::Angle(Angle { slope: Slope::Analytic, ..a.clone() }),
        bare: Target::Angle(Angle { margin: 0.0, ..a.clone() }),
        same: Some(Others::Angle(Angle { margin: 0.0, slope: Slope::Analytic, ..a.clone() })),
    }, named("arcgrad");
    Target::SimilarityAdjustment(p) => {
        analytic: Target::SimilarityAdjustment(SimilarityAdjustment { slope: Slope::Analytic, ..*p }),
        bare: Target::SimilarityAdjustment(SimilarityAdjustment { margin: 0.0, ..*p }),
        same: Some(Others::SimilarityAdjustment(SimilarityAdjustment { margin: 0.0, slope: Slope::Analytic, angular: false, ..*p })),
        angular: p.angular.then(|| Unified { m2: p.margin, ..Default::default() }),
    }, named("sphereface2");
    Target::Custom(_) => {}, bent(0.9, 0.2);
}

kinds! { others: Others => OthersFacts, transforms;
    Others::Identity => {}, named("arcface");
    Others::Rectified => { kinks: Box::new(|_| vec![0.0]), }, named("ampface_rectified");
    Others::Angle(a) => {
        analytic: Others::Angle(Angle { slope: Slope::Analytic, ..a.clone() }),
        bare: Others::Angle(Angle { margin: 0.0, ..a.clone() }),
        same: Others::Angle(Angle { margin: 0.0, slope: Slope::Analytic, ..a.clone() }),
        steep: true,
    }, named("arcgrad");
    Others::Curricular => {
        kinks: Box::new(|row| vec![(row.target.acos() + row.m2).cos()]),
        moves: true,
        largest: Some(Box::new(|c| (3.0 * c, 3.0))),
    }, named("curricularface");
    Others::TopK(top) => {
        bare: Others::TopK(TopK { margin: 0.0, ..*top }),
        kinks: { let edge = top.margin.cos(); Box::new(move |_| vec![edge]) },
        chosen: Some(top.count),
        steep: true,
        // at a chosen class the curve turns by the margin, elsewhere it is the cosine
        largest: {
            let turn = top.margin.sin();
            Some(Box::new(move |c| {
                let sine = (1.0 - c * c).max(0.0).sqrt();
                (c + turn * sine, 1.0 + turn * c.abs() / sine.max(1e-4))
            }))
        },
    }, named("arcface_topk");
    Others::InterclassFilter(filter) => { kinks: { let at = filter.threshold; Box::new(move |_| vec![at]) }, }, named("arcface_filter");
    Others::SimilarityAdjustment(p) => {
        analytic: Others::SimilarityAdjustment(SimilarityAdjustment { slope: Slope::Analytic, ..*p }),
        bare: Others::SimilarityAdjustment(SimilarityAdjustment { margin: 0.0, ..*p }),
        same: Others::SimilarityAdjustment(SimilarityAdjustment { margin: 0.0, slope: Slope::Analytic, angular: false, ..*p }),
        steep: true,
    }, named("sphereface2");
    Others::MvSoftmax(mv) => {
        bare: Others::MvSoftmax(MvSoftmax { weight: 0.0, ..*mv }),
        kinks: Box::new(|row| vec![row.value]),
        // (1 + t)·c + t is at most 1 + 2t
        largest: { let most = 1.0 + 2.0 * mv.weight; Some(Box::new(move |c| (most * c, most))) },
    }, named("mv_arc");
    Others::ArcNeg(arcneg) => {
        bare: Others::ArcNeg(ArcNeg { factor: 1.0, mean: 0.0, deviation: 1e9 }),
        // t, of the value t·(c + 1) − 1
        detached: Some(|c, value| (value + 1.0) / (c + 1.0)),
        follows_target: true,
        // t <= α, and its slope times c + 1 at most 2·α·e^(−1/2)/σ, by c and by φ
        largest: { let most = arcneg.factor * (1.0 + 2.5 / arcneg.deviation); Some(Box::new(move |c| (most * c, most))) },
    }, named("arcnegface");
    Others::Custom(_) => {
        bare: lean(0.0, 0.0).others,
        follows_target: true,
        largest: Some(Box::new(|c| (2.5 * c, 2.5))),
    }, lean(0.3, -0.2);
}

kinds! { link: Link => LinkFacts, links;
    Link::Softmax => {}, named("arcface");
    Link::Binary(_) => { per_class: true, }, named("sphereface2");
}

kinds! { adaptive: Adaptive => AdaptiveFacts, adaptives;
    Adaptive::None => {}, named("arcface");
    Adaptive::AdaFace(_) => { moves: true, }, named("adaface");
    Adaptive::MagFace(_) => {}, named("magface");
    Adaptive::Elastic(elastic) => { draws: true, sorted: elastic.sorted, }, named("elasticface_arc");
    Adaptive::Length(_) => {}, named("modified_softmax");
    Adaptive::AdaCos => { moves: true, classes: 3, }, named("adacos");
}

kinds! { similarity: Similarity => SimilarityFacts, similarities;
    Similarity::Cosine => {}, named("arcface");
    Similarity::Dot => { linear: true, }, named("softmax");
}

/// The loss with every true slope.
pub fn analytic(loss: &MarginSoftmax) -> MarginSoftmax {
    MarginSoftmax { target: target(&loss.target).analytic, others: others(&loss.others).analytic, ..loss.clone() }
}

/// Whether a training step moves a number of the state.
pub fn moves_state(loss: &MarginSoftmax) -> bool {
    adaptive(&loss.adaptive).moves || others(&loss.others).moves
}

/// Whether each row draws a margin.
pub fn draws(loss: &MarginSoftmax) -> bool {
    adaptive(&loss.adaptive).draws
}

/// Whether rows trade margins where their target cosines change places.
pub fn is_sorted(loss: &MarginSoftmax) -> bool {
    adaptive(&loss.adaptive).sorted
}

/// The fewest classes that the loss takes.
pub fn least_classes(loss: &MarginSoftmax) -> usize {
    others(&loss.others).chosen.map_or(1, |count| count + 1).max(adaptive(&loss.adaptive).classes)
}

/// Whether the lengths of the vectors count, a class has a bias, and one prototype.
pub fn is_linear(loss: &MarginSoftmax) -> bool {
    similarity(&loss.similarity).linear
}

/// Whether a batch may bring margins of classes and rows.
pub fn takes_margins(loss: &MarginSoftmax) -> bool {
    matches!(loss.target, Target::Unified(_))
}

/// Whether m0..m3 have gradients: nothing but the caller moves them.
pub fn learns_margins(loss: &MarginSoftmax) -> bool {
    let given = |series: &Series| matches!(series.coefficients, Coefficients::Given(_));
    let own = matches!(loss.adaptive, Adaptive::None | Adaptive::AdaCos | Adaptive::Length(_));
    matches!(&loss.target, Target::Unified(m) if !matches!(&m.curve, Curve::Series(s) if given(s))) && own
}
