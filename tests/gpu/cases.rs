//! The table: families x fallbacks x reductions x elements, every other option and shape in turn.

use half::{bf16, f16};
use libtest_mimic::Failed;
use margin_softmax::{
    data::{MarginGradients, SoftLabels},
    objective::*,
    plan::Element,
    *,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::families::{self, Beside, Family, Row, Suite};

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
    /// Weights of the rows, and with the mean a divisor from outside.
    pub row_weights: bool,
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
            row_weights: false,
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
        let want = if self.further { Want::ALL.with_scale().with_bias() } else { Want::ALL };
        match families::learns_margins(&self.loss) {
            true => want.with_margins(MarginGradients::ALL[self.seed as usize % 3]),
            false => want,
        }
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
            "{} {} {} {n}x{c}x{d} K={} {} {} margins={:?}/{:?} running={} training={} s={} eps={} focal={} z={} others={} trained={:?} {} weights={}/{} upstream={} ignored={} chunked={} \
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
            self.loss.focal,
            self.loss.z_loss,
            self.loss.others.name(),
            self.trained,
            self.element(),
            self.weights,
            self.row_weights,
            self.upstream,
            self.ignored,
            self.chunked,
            self.shards,
            self.seed,
        )
    }
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

/// The cases of a tile: the whole table for the two that are chosen for large products, and for matrix units. Of the others the first of each
/// shape with its elements, chunks, shards and sub-centers: a product knows nothing else of a loss, direct adds up like
/// direct_64 and the others like tile_64, and with 128×128 outputs for so few rows and classes the whole table took four
/// minutes on two software drivers, twice as long as with tile_64.
pub fn table_for(tile: Tile) -> Vec<Case> {
    let mut cases = table();
    if !matches!(tile, Tile::Direct64 | Tile::Tile64) && tile.geometry().units.is_none() {
        // of the large shapes the one with the longest sum: loops of more than 65,535 iterations would be cut short
        cases.retain(|c| c.family != "large" || (c.shape.0 > 4 && !c.chunked));
        let mut seen = std::collections::HashSet::new();
        // chunks, shards and elements reach a product by the same loads in every tile: two tiles of a kind share them
        let same = matches!(tile, Tile::Tile32 | Tile::Tile64Short);
        cases.retain(|c| {
            let rest = (c.element(), c.chunked, c.shards);
            seen.insert((c.shape, c.centers, (!same).then_some(rest)))
        });
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
    for Family { name: family, loss, .. } in families::on(Suite::Grid) {
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
                        .with_others([Others::Identity, Others::Rectified][usize::from(i % 7 == 3)].clone())
                        .with_z_loss([0.0, 0.0, 0.0, 1e-3][i % 4]);
                    let loss = with_focal(loss, i);
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
                        row_weights: i % 5 == 3,
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

/// Every family of [`Suite::Turns`] with every other option in turn, on tiny shapes; no case lies near a kink, see `Data::clear`.
fn further() -> Vec<Case> {
    let shapes = [(5, 7, 3), (17, 40, 16), (9, 70, 5), (33, 130, 8), (70, 12, 7)];
    let mut cases = vec![];
    for (f, (Family { name: family, loss, .. }, beside)) in families::turns().into_iter().enumerate() {
        for j in 0..9 {
            let i = f * 5 + j * 7 + j / 2;
            let (n, c, d) = shapes[(f + j) % shapes.len()];
            let smoothing = if families::link(&loss.link).per_class { 0.0 } else { [0.0, 0.0, 0.1][(i + j) % 3] };
            let mut loss = loss.clone().with_reduction(REDUCTIONS[(f + j) % 3]).with_label_smoothing(smoothing);
            if !families::link(&loss.link).per_class {
                loss = with_focal(loss.with_z_loss([0.0, 1e-3, 0.0][(i + j / 3) % 3]), i + j);
            }
            let ignored = [0, 0, 4][(f + j / 2) % 3];
            if ignored > 0 {
                loss = loss.with_ignore_index([-100, 0][j % 2]);
            }
            let linear = families::is_linear(&loss);
            let differs = beside == Beside::Margins;
            let row = |k: usize| differs && (j + k).is_multiple_of(2);
            let class = |k: usize| differs && j != 2 && (j / 2 + k).is_multiple_of(2);
            // no series follows m1 but the closed one; the sine fallback, and a linear head, know none
            let fits = |k: usize| k != 1 || !is_fit(&loss);
            let mut case = Case {
                family,
                shape: (n, c, d),
                trained: [None, Some(0.6), None, Some(0.85), Some(-0.2), None][j % 6]
                    .filter(|_| d > 4 && !linear && !families::is_sorted(&loss)),
                elements: if j < 3 { ELEMENTS[0] } else { ELEMENTS[(f + j) % 4] },
                weights: (f + j) % 3 == 1,
                row_weights: (f + j) % 4 == 1,
                upstream: (f + j) % 4 == 2,
                ignored,
                chunked: j % 2 == 1,
                shards: 1 + usize::from((f + j) % 3 == 0 && c >= 64),
                centers: if linear {
                    1
                } else if beside == Beside::Centers {
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

/// Focal loss in some cases, where nothing excludes it.
fn with_focal(loss: MarginSoftmax, case: usize) -> MarginSoftmax {
    let gamma = if loss.label_smoothing > 0.0 { 0.0 } else { [0.0, 2.0, 0.0, 0.5][case / 2 % 4] };
    loss.with_focal(gamma)
}

/// Whether the coefficients of a series were fitted for one m1.
fn is_fit(loss: &MarginSoftmax) -> bool {
    let Target::Unified(margin) = &loss.target else { return false };
    matches!(&margin.curve, Curve::Series(series) if series.coefficients == Coefficients::Fit)
}

/// Every pair of family, fallback, reduction and element occurs, as far as the loss allows it; tiles all.
pub fn covers_every_pair() -> Result<(), Failed> {
    let (table, grid) = (table(), families::on(Suite::Grid));
    type Axis = fn(&Case) -> String;
    let axes: [(&str, Axis); 4] = [
        ("family", |c| c.family.into()),
        ("fallback", |c| c.fallback().into()),
        ("reduction", |c| c.loss.reduction.name().into()),
        ("element", Case::element),
    ];
    let values = |axis: Axis| {
        let mut all: Vec<String> =
            table.iter().filter(|c| grid.iter().any(|family| family.name == c.family)).map(axis).collect();
        all.sort();
        all.dedup();
        all
    };
    // sine needs m1 = 1, easy a threshold at or below 0
    let takes = |loss: &MarginSoftmax, fallback: &str| {
        let own = FALLBACKS.into_iter().filter(|f| f.name() == fallback);
        own.map(|f| loss.clone().with_margin(|m| m.fallback = f)).all(|loss| loss.validate().is_ok())
    };
    for (i, (one, a)) in axes.iter().enumerate() {
        for (two, b) in &axes[i + 1..] {
            for x in values(*a) {
                for y in values(*b) {
                    let possible = grid.iter().filter(|family| family.name == x).all(|family| takes(&family.loss, &y));
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
    pub row_weights: Option<Vec<f32>>,
    pub divisor: Option<f32>,
    pub upstream: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    pub class_margins: [Option<Vec<f32>>; 4],
    pub row_margins: [Option<Vec<f32>>; 4],
    pub soft: Option<Soft>,
}

/// Several targets of each row.
#[derive(Clone)]
pub struct Soft {
    pub count: usize,
    /// [N, T] each.
    pub classes: Vec<i32>,
    pub weights: Vec<f32>,
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
            row_weights: case.row_weights.then(|| (0..n).map(|_| rng.random_range(0.2..2.0)).collect()),
            divisor: (case.row_weights && case.loss.reduction == Reduction::Mean).then_some(0.75 * n as f32),
            class_margins,
            row_margins,
            soft: None,
        }
    }

    /// With so many targets of each row, its label among them; some are missing, and some equal.
    pub fn softened(mut self, count: usize, classes: usize) -> Self {
        let class = |row: usize, slot: usize| match (row + slot) % 4 {
            0 => self.labels[row],
            1 if slot % 3 == 2 => -1,
            _ => ((row * 7 + slot / 2 * 5) % classes) as i32,
        };
        let all = || (0..self.labels.len()).flat_map(|row| (0..count).map(move |slot| (row, slot)));
        let classes = all().map(|(row, slot)| class(row, slot)).collect();
        // eighths: their sums are exact
        let weights = all().map(|(row, slot)| (1 + (row + 3 * slot) % 4) as f32 / 8.0).collect();
        self.soft = Some(Soft { count, classes, weights });
        self
    }

    /// Whether an f32 cosine, off by up to 5e-7, can change no formula: nothing lies near a threshold, a bound, the last
    /// chosen class, another sub-center, another row's place in an order.
    pub fn clear(&self, case: &Case) -> bool {
        const NEAR: f64 = 4e-6;
        let ((n, c, d), k) = (case.shape, case.centers);
        if families::is_linear(&case.loss) {
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
        let (angular, transform) = (families::target(&loss.target).angular, families::others(&loss.others));
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
            let mut others: Vec<f64> = cosines.iter().enumerate().filter(|(j, _)| *j != y).map(|(_, c)| *c).collect();
            others.sort_by(|a, b| b.total_cmp(a));
            let near = |at: f64| others.iter().any(|c| (c - at).abs() < NEAR);
            // the kinks of the target's curve for the margins that this row may have
            let mut m = angular.as_ref().map_or([1.0, 1.0, 0.0, 0.0], Unified::margins);
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
            if let Adaptive::Length(family) = loss.adaptive {
                let ends = [family.lower_length, family.upper_length];
                if ends.iter().any(|end| (x[i].1 / end - 1.0).abs() < NEAR) {
                    return false;
                }
            }
            if !matches!(loss.adaptive, Adaptive::None | Adaptive::MagFace(_) | Adaptive::Length(_)) {
                // somewhere within: keep to where the curve has no kink whatever it is
                angles = vec![m[2], -0.4, -0.2, 0.0, 0.2, 0.4];
            }
            for m2 in angles {
                if let Some(own) = &angular {
                    let at = |u: f64| ((u - m2) / m[1]).clamp(0.0, std::f64::consts::PI).cos();
                    let mut kinks: Vec<f64> = (1..4).map(|q| at(f64::from(q) * std::f64::consts::PI)).collect();
                    kinks.push(0.0);
                    if let Fallback::Clip(e) = own.fallback {
                        kinks.extend([at(e), at(std::f64::consts::PI - e)]);
                    }
                    if kinks.iter().any(|t| (t - target).abs() < NEAR) {
                        return false;
                    }
                }
                let value = match &loss.target {
                    Target::Unified(own) => {
                        let [m0, m1, _, m3] = m;
                        Unified { m0, m1, m2, m3, ..own.clone() }.value_slope(target).0
                    }
                    other => other.value_slope(target).0,
                };
                if (transform.kinks)(&Row { target, value, m2, others: &others }).into_iter().any(near) {
                    return false;
                }
            }
            if transform.chosen.is_some() && !apart(others) {
                return false;
            }
        }
        !families::is_sorted(loss) || apart(targets)
    }

    pub fn batch(&self) -> Batch<'_, i32> {
        Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            row_weights: self.row_weights.as_deref(),
            divisor: self.divisor,
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            row_margins: Margins::of(&self.row_margins),
            soft_labels: self.soft.as_ref().map(|Soft { count, classes, weights }| SoftLabels {
                count: *count,
                classes,
                weights,
            }),
        }
    }

    /// The oracle's answer to a case, and the state that it leaves.
    pub fn expected(&self, case: &Case) -> (Output<f64>, State) {
        self.expected_of(case, case.want())
    }

    /// The same with other gradients.
    pub fn expected_of(&self, case: &Case, want: Want) -> (Output<f64>, State) {
        let mut state = case.state();
        let out = self.with_wide(|batch| {
            let (loss, shape) = (&case.loss, case.shape());
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
        let row_weights = some(&self.row_weights);
        let soft_weights = self.soft.as_ref().map(|soft| wide(&soft.weights)).unwrap_or_default();
        let (by_class, by_row) = (self.class_margins.each_ref().map(some), self.row_margins.each_ref().map(some));
        run(&Batch {
            embeddings: &embeddings,
            prototypes: &prototypes,
            labels: &self.labels,
            class_weights: weights.as_deref(),
            row_weights: row_weights.as_deref(),
            divisor: self.divisor.map(f64::from),
            upstream: upstream.as_deref(),
            bias: bias.as_deref(),
            class_margins: Margins::of(&by_class),
            row_margins: Margins::of(&by_row),
            soft_labels: self.soft.as_ref().map(|Soft { count, classes, .. }| SoftLabels {
                count: *count,
                classes,
                weights: &soft_weights,
            }),
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
