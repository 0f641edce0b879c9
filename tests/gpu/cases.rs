//! The table: families x fallbacks x reductions x elements, every other option and shape in turn.

use half::{bf16, f16};
use libtest_mimic::Failed;
use margin_softmax::{plan::Element, *};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One row of the table.
#[derive(Clone)]
pub struct Case {
    pub family: &'static str,
    pub loss: MarginSoftmax,
    pub shape: (usize, usize, usize),
    /// Target cosine of trained-like data; random data without.
    pub trained: Option<f64>,
    pub elements: [Element; 2],
    pub weights: bool,
    pub upstream: bool,
    /// Rows per ignored row; 0: none.
    pub ignored: usize,
    /// Classes per chunk, forced by the budget; `None` keeps all.
    pub chunked: bool,
    pub shards: usize,
    /// Prototypes of a class.
    pub centers: usize,
    /// A bias per class, for a linear head.
    pub bias: bool,
    /// Which of m0..m3 differ by class and by row.
    pub class_margins: [bool; 4],
    pub row_margins: [bool; 4],
    /// A state in the middle of a run, instead of the first one.
    pub running: bool,
    pub training: bool,
    /// The gradients of scale and bias too.
    pub further: bool,
    pub seed: u64,
}

impl Case {
    /// Random f32 data, every option off.
    pub fn random(shape: Shape, seed: u64) -> Self {
        Self {
            family: "random",
            loss: MarginSoftmax::default(),
            shape: (shape.rows(), shape.classes(), shape.dim()),
            trained: None,
            elements: [Element::F32; 2],
            weights: false,
            upstream: false,
            ignored: 0,
            chunked: false,
            shards: 1,
            centers: 1,
            bias: false,
            class_margins: [false; 4],
            row_margins: [false; 4],
            running: false,
            training: false,
            further: false,
            seed,
        }
    }

    pub fn shape(&self) -> Shape {
        let (n, c, d) = self.shape;
        Shape::new(n, c, d).unwrap().with_sub_centers(self.centers).unwrap()
    }

    pub fn want(&self) -> Want {
        if self.further { Want::ALL.with_scale().with_bias() } else { Want::ALL }
    }

    /// The state that the batch meets; its numbers are exact in f32.
    pub fn state(&self) -> State {
        let mut state = State::new(&self.loss, self.shape()).unwrap();
        if self.running {
            (state.seed, state.step) = (7, 3);
            (state.hardness, state.norm_mean, state.norm_deviation) = (0.25, 3.5, 1.5);
            if self.loss.adaptive == Adaptive::AdaCos {
                state.scale = 9.0;
            }
        }
        state
    }

    pub fn fallback(&self) -> &'static str {
        let Target::Unified(margin) = &self.loss.target else { return "-" };
        margin.fallback.name()
    }

    pub fn element(&self) -> String {
        format!("{}/{}", self.elements[0].name(), self.elements[1].name())
    }

    pub fn describe(&self) -> String {
        let (n, c, d) = self.shape;
        format!(
            "{} {} {} {n}x{c}x{d} K={} {} {} margins={:?}/{:?} running={} training={} s={} eps={} others={} trained={:?} {} weights={} upstream={} ignored={} chunked={} \
             shards={} seed={}",
            self.family,
            self.fallback(),
            self.loss.reduction.name(),
            self.centers,
            self.loss.link.name(),
            self.loss.adaptive.name(),
            self.class_margins,
            self.row_margins,
            self.running,
            self.training,
            self.loss.scale,
            self.loss.label_smoothing,
            self.loss.others.name(),
            self.trained,
            self.element(),
            self.weights,
            self.upstream,
            self.ignored,
            self.chunked,
            self.shards,
            self.seed,
        )
    }
}

pub fn families() -> Vec<(&'static str, MarginSoftmax)> {
    let series = |degree, damping, coefficients| Curve::Series(Series { degree, damping, coefficients });
    vec![
        ("normface", MarginSoftmax::normface()),
        ("cosface", MarginSoftmax::cosface()),
        ("arcface", MarginSoftmax::arcface()),
        ("arcface_detached", MarginSoftmax::arcface().with_margin(|m| m.slope = Slope::Detached)),
        ("sphereface", MarginSoftmax::sphereface()),
        ("ampface", MarginSoftmax::ampface()),
        ("unified", MarginSoftmax::unified(0.7, 1.35, 0.3, 0.1)),
        ("unified_flat", MarginSoftmax::unified(1.2, 0.6, 0.4, -0.2)),
        ("chebyaam", MarginSoftmax::cheby_aam()),
        ("chebyaam_fit", MarginSoftmax::named("chebyaam_fit").unwrap()),
        (
            "series_jackson",
            MarginSoftmax::unified(0.9, 1.35, 0.3, 0.05)
                .with_margin(|m| m.curve = series(24, Damping::Jackson, Coefficients::Closed)),
        ),
        (
            "series_lanczos",
            MarginSoftmax::arcface().with_margin(|m| m.curve = series(15, Damping::Lanczos, Coefficients::Closed)),
        ),
    ]
}

pub const FALLBACKS: [Fallback; 6] =
    [Fallback::Continuous, Fallback::Sine, Fallback::Mirror, Fallback::None, Fallback::Clip(1e-3), Fallback::Easy];
pub const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];
const ELEMENTS: [[Element; 2]; 4] = [
    [Element::F32, Element::F32],
    [Element::F16, Element::F16],
    [Element::Bf16, Element::Bf16],
    [Element::F16, Element::F32],
];

/// The whole table: every case runs on `direct_64` and `tile_64` of every adapter.
pub fn table() -> Vec<Case> {
    static TABLE: std::sync::OnceLock<Vec<Case>> = std::sync::OnceLock::new();
    TABLE.get_or_init(make).clone()
}

/// The cases of a tile: the whole table for the two that are chosen for large products. Of the others the first of each
/// shape with its elements, chunks, shards and sub-centres: a product knows nothing else of a loss, direct adds up like
/// direct_64 and tile_128 like tile_64, and with 128×128 outputs for so few rows and classes the whole table took four
/// minutes on two software drivers, twice as long as with tile_64.
pub fn table_for(tile: Tile) -> Vec<Case> {
    let mut cases = table();
    if matches!(tile, Tile::Direct | Tile::Tile128) {
        // of the large shapes the one with the longest sum: loops of more than 65,535 turns would be cut short
        cases.retain(|c| c.family != "large" || (c.shape.0 > 4 && !c.chunked));
        let mut seen = std::collections::HashSet::new();
        cases.retain(|c| seen.insert((c.shape, c.element(), c.chunked, c.shards, c.centers)));
    }
    cases
}

fn make() -> Vec<Case> {
    // 1x1, no multiple of a tile, several tiles, D that is no multiple of 4
    let shapes = [
        (3, 5, 3),
        (17, 1000, 16),
        (1, 1, 4),
        (33, 130, 64),
        (70, 65, 63),
        (5, 300, 65),
        (2, 64, 2),
        (40, 40, 8),
        (9, 513, 32),
        (66, 70, 1),
    ];
    let trained = [None, Some(0.7), None, Some(0.9), Some(0.99), None, Some(0.3), Some(-0.4)];
    let scales = [64.0, 30.0, 16.0, 64.0];
    let mut cases: Vec<Case> = vec![];
    for (family, loss) in families() {
        for fallback in FALLBACKS {
            for reduction in REDUCTIONS {
                for elements in ELEMENTS {
                    let i = cases.len();
                    let loss = loss
                        .clone()
                        .with_margin(|m| m.fallback = fallback)
                        .with_reduction(reduction)
                        .with_scale(scales[i % 4])
                        .with_label_smoothing([0.0, 0.0, 0.1, 0.0, 0.3][i % 5])
                        .with_others([Others::Identity, Others::Rectified][usize::from(i % 7 == 3)].clone());
                    if loss.validate().is_err() {
                        continue; // sine with m1 != 1, easy with a threshold above 0
                    }
                    let ignored = [0, 0, 3, 0, 0, 2][i % 6];
                    let loss = if ignored > 0 { loss.with_ignore_index([-100, 0][i % 2]) } else { loss };
                    let shape = shapes[(i * 7 + i / 12) % shapes.len()];
                    let narrow = shape.2 < 8;
                    cases.push(Case {
                        family,
                        loss,
                        shape,
                        trained: if narrow { None } else { trained[(i + i / 8) % trained.len()] },
                        elements,
                        weights: i % 4 == 1,
                        upstream: i % 3 == 1,
                        ignored,
                        chunked: !i.is_multiple_of(3),
                        shards: 1 + usize::from(i % 5 == 4 && shape.1 >= 64) * 2,
                        ..Case::random(Shape::new(shape.0, shape.1, shape.2).unwrap(), i as u64)
                    });
                }
            }
        }
    }
    // a fold of the grid, a long row, and the chunks of a real size
    for (shape, loss) in [
        ((70_001, 3, 4), MarginSoftmax::arcface().with_scale(16.0)),
        ((4, 100_003, 16), MarginSoftmax::cheby_aam()),
        ((2, 70_001, 3), MarginSoftmax::cosface()),
    ] {
        for chunked in [false, true] {
            let (n, c, d) = shape;
            let shape = Shape::new(n, c, d).unwrap();
            cases.push(Case { family: "large", loss: loss.clone(), chunked, ..Case::random(shape, 1) });
        }
    }
    cases.extend(further());
    cases
}

/// A curve from outside: m0 cos(angle) - m3 sin(angle)^2.
#[derive(Debug)]
pub struct Bent {
    pub m0: f64,
    pub m3: f64,
}

impl Margin for Bent {
    fn name(&self) -> &str {
        "bent"
    }
    fn value_slope(&self, x: f64) -> (f64, f64) {
        (self.m0 * x - self.m3 * (1.0 - x * x), self.m0 + 2.0 * self.m3 * x)
    }
    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope {
            let m0 = parameter(0u);
            let m3 = parameter(1u);
            return ValueSlope(m0 * x - m3 * (1.0 - x) * (1.0 + x), m0 + 2.0 * m3 * x);
        }"
    }
    fn parameters(&self) -> Vec<f64> {
        vec![self.m0, self.m3]
    }
}

/// The families beside the unified margins, and what combines with these.
pub fn further_families() -> Vec<(&'static str, MarginSoftmax)> {
    let named = |name| MarginSoftmax::named(name).unwrap();
    let series = |degree, coefficients| Curve::Series(Series { degree, coefficients, damping: Damping::Jackson });
    let lengths = MagFace { lower_length: 1.5, upper_length: 4.5, lower_margin: 0.3, upper_margin: 0.7, weight: 0.5 };
    let magface = || MarginSoftmax::magface().with_adaptive(Adaptive::MagFace(lengths)).with_scale(30.0);
    let binary = Link::Binary(Binary { weight: 0.6, factor: 0.5, bias: -3.0 });
    let angle = |curve| Angle { factor: 0.8, margin: 0.1, offset: 0.3, curve, slope: Slope::Analytic };
    let top = |count| Others::TopK(TopK { count, margin: 0.1 });
    vec![
        ("arcgrad", named("arcgrad")),
        ("arcgrad_series", named("arcgrad_series")),
        ("li_arcface", named("li_arcface")),
        (
            "angle",
            MarginSoftmax {
                target: Target::Angle(angle(series(24, Coefficients::Closed))),
                others: Others::Angle(angle(Curve::Exact)),
                scale: 10.0,
                ..Default::default()
            },
        ),
        (
            "angle_detached",
            MarginSoftmax {
                target: Target::Angle(Angle { slope: Slope::Detached, ..Default::default() }),
                others: Others::Angle(Angle { slope: Slope::Detached, ..angle(series(9, Coefficients::Fit)) }),
                scale: 10.0,
                ..Default::default()
            },
        ),
        ("curricularface", named("curricularface").with_scale(30.0)),
        ("curricular", MarginSoftmax::cosface().with_others(Others::Curricular).with_scale(16.0)),
        ("adaface", named("adaface")),
        ("adaface_continuous", named("adaface").with_margin(|m| m.fallback = Fallback::Continuous)),
        ("adaface_series", named("adaface").with_margin(|m| m.curve = series(20, Coefficients::Closed))),
        ("magface", magface()),
        ("magface_sine", magface().with_margin(|m| m.fallback = Fallback::Sine)),
        ("magface_continuous", magface().with_margin(|m| m.fallback = Fallback::Continuous)),
        ("magface_mirror", magface().with_margin(|m| (m.fallback, m.m1) = (Fallback::Mirror, 1.3))),
        ("magface_detached", magface().with_margin(|m| (m.fallback, m.slope) = (Fallback::None, Slope::Detached))),
        (
            "magface_series",
            magface().with_margin(|m| (m.fallback, m.curve) = (Fallback::Clip(0.1), series(30, Coefficients::Fit))),
        ),
        ("elasticface_arc", named("elasticface_arc").with_scale(30.0)),
        ("elasticface_arc_plus", named("elasticface_arc_plus")),
        ("elasticface_cos", named("elasticface_cos")),
        ("elasticface_cos_plus", named("elasticface_cos_plus").with_scale(20.0)),
        ("elastic_series", MarginSoftmax::cheby_aam().with_adaptive(Adaptive::Elastic(Elastic::default()))),
        ("sphereface2", named("sphereface2")),
        ("sphereface2_angular", named("sphereface2_angular")),
        ("sphereface2_opensphere", named("sphereface2_opensphere")),
        ("binary_arcface", MarginSoftmax { link: binary, ..named("arcface_speaker") }),
        ("binary_top", MarginSoftmax { link: binary, others: top(3), ..MarginSoftmax::cosface() }),
        ("power_softmax", MarginSoftmax { link: Link::Softmax, ..named("sphereface2_angular") }),
        ("adacos", named("adacos")),
        ("adacos_margin", MarginSoftmax::cosface().with_adaptive(Adaptive::AdaCos)),
        ("top", named("arcface_topk")),
        ("top_two", MarginSoftmax::cheby_aam().with_others(top(2))),
        ("filter", named("arcface_filter").with_scale(30.0)),
        ("softmax", named("softmax")),
        ("m_softmax", named("m_softmax")),
        (
            "custom",
            MarginSoftmax { target: Target::Custom(Custom::new(Bent { m0: 0.9, m3: 0.2 })), ..Default::default() },
        ),
        ("margins", MarginSoftmax::arcface()),
        ("margins_unified", MarginSoftmax::unified(0.7, 1.35, 0.3, 0.1).with_scale(30.0)),
        ("margins_mirror", MarginSoftmax::sphereface()),
        ("margins_series", MarginSoftmax::cheby_aam()),
        (
            "margins_jackson",
            MarginSoftmax::unified(1.0, 1.35, 0.2, 0.0).with_margin(|m| m.curve = series(24, Coefficients::Closed)),
        ),
        ("margins_fit", named("chebyaam_fit")),
        ("margins_clip", MarginSoftmax::arcface().with_margin(|m| m.fallback = Fallback::Clip(0.3))),
        ("margins_none", named("arcface_insightface")),
        ("centers", MarginSoftmax::arcface()),
        ("centers_cheby", MarginSoftmax::cheby_aam().with_others(Others::Rectified)),
    ]
}

/// Every further family with every other option in turn, on tiny shapes; no case lies near a kink, see `Data::clear`.
fn further() -> Vec<Case> {
    let shapes = [(5, 7, 3), (17, 40, 16), (9, 70, 5), (33, 130, 8), (70, 12, 7)];
    let mut cases = vec![];
    for (f, (family, loss)) in further_families().into_iter().enumerate() {
        for j in 0..9 {
            let i = f * 5 + j * 7 + j / 2;
            let (n, c, d) = shapes[(f + j) % shapes.len()];
            let smoothing = if loss.link == Link::Softmax { [0.0, 0.0, 0.1][(i + j) % 3] } else { 0.0 };
            let mut loss = loss.clone().with_reduction(REDUCTIONS[(f + j) % 3]).with_label_smoothing(smoothing);
            let ignored = [0, 0, 4][(f + j / 2) % 3];
            if ignored > 0 {
                loss = loss.with_ignore_index([-100, 0][j % 2]);
            }
            let linear = loss.product == Product::Linear;
            let differs = family.starts_with("margins");
            let row = |k: usize| differs && (j + k).is_multiple_of(2);
            let class = |k: usize| differs && j != 2 && (j / 2 + k).is_multiple_of(2);
            // no series follows m1 but the closed one; the sine fallback, and a linear head, know none
            let fits = |k: usize| k != 1 || !family.ends_with("fit");
            let mut case = Case {
                family,
                shape: (n, c, d),
                trained: [None, Some(0.6), None, Some(0.85), Some(-0.2), None][j % 6]
                    .filter(|_| d > 4 && !linear && !family.ends_with("plus")),
                elements: if j < 3 { ELEMENTS[0] } else { ELEMENTS[(f + j) % 4] },
                weights: (f + j) % 3 == 1,
                upstream: (f + j) % 4 == 2,
                ignored,
                chunked: j % 2 == 1,
                shards: 1 + usize::from((f + j) % 3 == 0 && c >= 64),
                centers: if linear {
                    1
                } else if family.starts_with("centers") {
                    2 + j % 3
                } else {
                    [1, 2, 1, 3, 1, 1][j % 6]
                },
                bias: linear && j != 1,
                class_margins: std::array::from_fn(|k| class(k) && fits(k)),
                row_margins: std::array::from_fn(|k| row(k) && fits(k)),
                running: j % 2 == 0,
                training: j % 3 != 0,
                further: j != 5,
                loss,
                seed: 0,
            };
            if linear && j > 3 {
                (case.class_margins, case.row_margins) = ([true, false, false, true], [false, false, false, true]);
            }
            let first = 1000 + 1000 * i as u64;
            let clear = |seed: &u64| Data::new(&Case { seed: *seed, ..case.clone() }).clear(&case);
            let seed = (first..first + 300).find(clear);
            case.seed = seed.unwrap_or_else(|| panic!("no seed is clear of kinks: {}", case.describe()));
            cases.push(case);
        }
    }
    cases
}

/// Every pair of family, fallback, reduction and element occurs, as far as the loss allows it; tiles all.
pub fn covers_every_pair() -> Result<(), Failed> {
    let table = table();
    type Axis = fn(&Case) -> String;
    let axes: [(&str, Axis); 4] = [
        ("family", |c| c.family.into()),
        ("fallback", |c| c.fallback().into()),
        ("reduction", |c| c.loss.reduction.name().into()),
        ("element", Case::element),
    ];
    let values = |axis: Axis| {
        let mut all: Vec<String> =
            table.iter().filter(|c| families().iter().any(|(name, _)| *name == c.family)).map(axis).collect();
        all.sort();
        all.dedup();
        all
    };
    for (i, (one, a)) in axes.iter().enumerate() {
        for (two, b) in &axes[i + 1..] {
            for x in values(*a) {
                for y in values(*b) {
                    // sine needs m1 = 1, easy a threshold at or below 0
                    let general = ["sphereface", "unified", "unified_flat", "series_jackson"].contains(&x.as_str());
                    let possible = !(general && y == "sine" || x == "sphereface" && y == "easy");
                    let found = table.iter().any(|c| a(c) == x && b(c) == y);
                    if possible && !found {
                        return Err(format!("{one} {x} never meets {two} {y}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// The data of a case: the values as the device sees them, already rounded to their element type.
#[derive(Clone, Default)]
pub struct Data {
    pub embeddings: Vec<f32>,
    pub prototypes: Vec<f32>,
    pub labels: Vec<i32>,
    pub weights: Option<Vec<f32>>,
    pub upstream: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    pub class_margins: [Option<Vec<f32>>; 4],
    pub row_margins: [Option<Vec<f32>>; 4],
}

/// A standard normal number.
pub fn normal(rng: &mut impl Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random_range(1e-12..1.0), rng.random());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

pub fn random(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| normal(rng) as f32).collect()
}

fn rounded(values: Vec<f32>, element: Element) -> Vec<f32> {
    match element {
        Element::F16 => values.into_iter().map(|v| f16::from_f32(v).to_f32()).collect(),
        Element::Bf16 => values.into_iter().map(|v| bf16::from_f32(v).to_f32()).collect(),
        _ => values,
    }
}

impl Data {
    /// Random f32 data of a shape.
    pub fn random(shape: Shape, seed: u64) -> Self {
        Self::new(&Case::random(shape, seed))
    }

    pub fn new(case: &Case) -> Self {
        let (n, c, d) = case.shape;
        let rng = &mut ChaCha8Rng::seed_from_u64(case.seed);
        let prototypes = rounded(random(rng, c * case.centers * d), case.elements[1]);
        let mut labels: Vec<i32> = (0..n).map(|_| rng.random_range(0..c) as i32).collect();
        let mut embeddings = random(rng, n * d);
        if let Some(cosine) = case.trained {
            for (x, &y) in embeddings.chunks_exact_mut(d).zip(&labels) {
                towards(x, &prototypes[y as usize * case.centers * d..][..d], cosine);
            }
        }
        let embeddings = rounded(embeddings, case.elements[0]);
        if let (Some(index), true) = (case.loss.ignore_index, case.ignored > 0) {
            labels.iter_mut().step_by(case.ignored).for_each(|y| *y = index as i32);
        }
        let upstream = if case.loss.reduction == Reduction::None { n } else { 1 };
        let ranges = [0.8..1.2, 0.9..1.3, -0.3..0.6, -0.1..0.2];
        let mut margins = |some: [bool; 4], count: usize| {
            std::array::from_fn(|k| {
                let draw = |_| rng.random_range(ranges[k].clone());
                some[k].then(|| (0..count).map(draw).collect::<Vec<f32>>())
            })
        };
        let (class_margins, row_margins) = (margins(case.class_margins, c), margins(case.row_margins, n));
        Self {
            embeddings,
            prototypes,
            labels,
            weights: case.weights.then(|| (0..c).map(|_| rng.random_range(0.2..2.0)).collect()),
            upstream: case.upstream.then(|| (0..upstream).map(|_| rng.random_range(-1.5..1.5)).collect()),
            bias: case.bias.then(|| random(rng, c)),
            class_margins,
            row_margins,
        }
    }

    /// Whether an f32 cosine, off by up to 5e-7, can change no formula: nothing lies near a threshold, a bound, the last
    /// chosen class, another sub-centre, another row's place in an order.
    pub fn clear(&self, case: &Case) -> bool {
        const NEAR: f64 = 4e-6;
        let ((n, c, d), k) = (case.shape, case.centers);
        if case.loss.product == Product::Linear {
            return true;
        }
        let loss = &case.loss;
        let unit = |v: &[f32]| {
            let length = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            (v.iter().map(|&x| f64::from(x) / length).collect::<Vec<f64>>(), length)
        };
        let x: Vec<_> = self.embeddings.chunks_exact(d).map(unit).collect();
        let w: Vec<_> = self.prototypes.chunks_exact(d).map(unit).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let apart = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.windows(2).all(|pair| pair[1] - pair[0] > NEAR)
        };
        let mut targets = vec![];
        for i in 0..n {
            if Some(i64::from(self.labels[i])) == loss.ignore_index {
                continue;
            }
            let y = self.labels[i] as usize;
            let all: Vec<Vec<f64>> =
                (0..c).map(|j| (j * k..(j + 1) * k).map(|v| dot(&x[i].0, &w[v].0)).collect()).collect();
            if k > 1 && !all.iter().all(|one| apart(one.clone())) {
                return false;
            }
            let cosines: Vec<f64> = all.iter().map(|one| one.iter().copied().fold(f64::MIN, f64::max)).collect();
            let target = cosines[y];
            targets.push(target);
            let others = || cosines.iter().enumerate().filter(|(j, _)| *j != y).map(|(_, c)| *c);
            // the kinks of the target's curve for the margins that this row may have
            let Some(own) = (match &loss.target {
                Target::Unified(margin) => Some(margin.clone()),
                Target::Power(power) if power.angular => Some(Unified { m2: power.margin, ..Default::default() }),
                _ => None,
            }) else {
                continue;
            };
            let mut m = own.margins();
            for (q, m) in m.iter_mut().enumerate() {
                let class = self.class_margins[q].as_ref().map(|v| v[y]);
                if let Some(given) = self.row_margins[q].as_ref().map(|v| v[i]).or(class) {
                    *m = given.into();
                }
            }
            let mut angles = vec![m[2]];
            if let Adaptive::MagFace(family) = loss.adaptive {
                let (low, high) = (family.lower_length, family.upper_length);
                let length = x[i].1;
                if (length / low - 1.0).abs() < NEAR || (length / high - 1.0).abs() < NEAR {
                    return false;
                }
                let rise = (family.upper_margin - family.lower_margin) / (high - low);
                angles = vec![family.lower_margin + rise * (length.clamp(low, high) - low)];
            }
            if loss.adaptive != Adaptive::None && !matches!(loss.adaptive, Adaptive::MagFace(_)) {
                // somewhere within: keep to where the curve has no kink whatever it is
                angles = vec![m[2], -0.4, -0.2, 0.0, 0.2, 0.4];
            }
            for m2 in angles {
                let at = |u: f64| ((u - m2) / m[1]).clamp(0.0, std::f64::consts::PI).cos();
                let mut kinks: Vec<f64> = (1..4).map(|q| at(f64::from(q) * std::f64::consts::PI)).collect();
                kinks.push(0.0);
                if let Fallback::Clip(e) = own.fallback {
                    kinks.extend([at(e), at(std::f64::consts::PI - e)]);
                }
                if kinks.iter().any(|t| (t - target).abs() < NEAR) {
                    return false;
                }
                if loss.others == Others::Curricular {
                    let bound = (target.acos() + m2).cos();
                    if others().any(|c| (c - bound).abs() < NEAR) {
                        return false;
                    }
                }
            }
            let bends = match &loss.others {
                Others::Rectified => others().all(|c| c.abs() > NEAR),
                Others::Filter(filter) => others().all(|c| (c - filter.threshold).abs() > NEAR),
                Others::TopK(top) => {
                    let edge = top.margin.cos();
                    apart(others().collect()) && others().all(|c| (c - edge).abs() > NEAR)
                }
                _ => true,
            };
            if !bends {
                return false;
            }
        }
        !matches!(loss.adaptive, Adaptive::Elastic(Elastic { sorted: true, .. })) || apart(targets)
    }

    pub fn batch(&self) -> Batch<'_, i32> {
        Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            row_margins: Margins::of(&self.row_margins),
        }
    }

    /// The oracle's answer to a case, and the state that it leaves.
    pub fn expected(&self, case: &Case) -> (Output<f64>, State) {
        let mut state = case.state();
        let out = self.with_wide(|batch| {
            let (loss, shape, want) = (&case.loss, case.shape(), case.want());
            if case.training {
                reference::train(loss, shape, want, batch, &mut state)
            } else {
                reference::evaluate_with(loss, shape, want, batch, &state)
            }
        });
        (out.unwrap(), state)
    }

    /// The oracle's answer.
    pub fn reference(&self, loss: &MarginSoftmax, shape: Shape) -> Output<f64> {
        self.with_wide(|batch| reference::evaluate(loss, shape, Want::ALL, batch)).unwrap()
    }

    /// The same in f64.
    pub fn with_wide<T>(&self, run: impl FnOnce(&Batch<'_, i32, f64>) -> T) -> T {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (embeddings, prototypes) = (wide(&self.embeddings), wide(&self.prototypes));
        let some = |v: &Option<Vec<f32>>| v.as_deref().map(wide);
        let (weights, upstream, bias) = (some(&self.weights), some(&self.upstream), some(&self.bias));
        let (by_class, by_row) = (self.class_margins.each_ref().map(some), self.row_margins.each_ref().map(some));
        run(&Batch {
            embeddings: &embeddings,
            prototypes: &prototypes,
            labels: &self.labels,
            class_weights: weights.as_deref(),
            upstream: upstream.as_deref(),
            bias: bias.as_deref(),
            class_margins: Margins::of(&by_class),
            row_margins: Margins::of(&by_row),
        })
    }
}

/// Turns x to a given cosine with w, keeping its length.
fn towards(x: &mut [f32], w: &[f32], cosine: f64) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let own: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let axis: Vec<f64> = w.iter().map(|&v| v.into()).collect();
    let (length, axis_length) = (dot(&own, &own).sqrt(), dot(&axis, &axis).sqrt());
    let along = dot(&own, &axis) / (axis_length * axis_length);
    let across: Vec<f64> = own.iter().zip(&axis).map(|(x, a)| x - along * a).collect();
    let across_length = dot(&across, &across).sqrt();
    let sine = (1.0 - cosine * cosine).sqrt();
    for (i, x) in x.iter_mut().enumerate() {
        *x = (length * (cosine * axis[i] / axis_length + sine * across[i] / across_length)) as f32;
    }
}
