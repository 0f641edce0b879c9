//! The list of families that the tests run on: host, CPU, GPU, browser, fuzz and soak tests take their losses from here.
//!
//! A new variant of [`Target`], [`Others`], [`Link`], [`Adaptive`] or [`Similarity`] needs one line in `kinds.rs`: the compiler asks
//! for it, and the example in that line then runs in every suite. Another family of a variant that is there already is a line
//! in [`list`]. A preset needs none: most tests go through `objective::PRESETS`.

#![allow(dead_code, unused_imports)] // every test target uses its own part

mod kinds;

use margin_softmax::{objective::PRESETS, objective::*, *};

pub use self::kinds::*;

/// A group of tests that runs on some of the families.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Suite {
    /// tests/gpu, on every adapter and on the CPU path: every fallback, reduction and element type, on shapes of every kind.
    Grid,
    /// The same tests with the other options in turn, on small shapes.
    Turns(Beside),
    /// tests/gpu/stress; also runs on every preset.
    Stress,
    /// tests/gpu/stress, NaN and infinity at every place: one loss for each way through the kernels, with a number of
    /// prototypes per class.
    BadValues(usize),
    /// The margin as an operation on tensors in tests/gpu/determinism.
    Operation,
    /// tests/cpu, with a number of prototypes per class.
    Cpu(usize),
    /// The laws of tests/host/laws.rs, on the host and on every adapter; also run on every preset.
    Laws,
    /// tests/browser, from the state before the first step, and if that state moves or draws, in training steps too.
    Browser,
    /// The same from a state in the middle of a run.
    BrowserRunning,
    /// tests/soak, with a number of prototypes per class.
    Soak(usize),
}

/// Inputs that a family gets in every case of [`Suite::Turns`]; others get them in some.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beside {
    Nothing,
    /// Margins of classes and rows.
    Margins,
    /// Several prototypes per class.
    Centers,
}

use Suite::*;

const TURNS: Suite = Turns(Beside::Nothing);

/// Where the example of a new variant runs.
const EVERYWHERE: &[Suite] = &[TURNS, Stress, BadValues(1), Operation, Cpu(2), Laws, Browser, Soak(1)];

/// A loss and where it runs.
#[derive(Clone, Debug)]
pub struct Family {
    pub name: &'static str,
    pub loss: MarginSoftmax,
    on: &'static [Suite],
}

/// The families of a suite, in the order of the list.
pub fn on(suite: Suite) -> Vec<Family> {
    all().into_iter().filter(|family| family.on.contains(&suite)).collect()
}

/// The families of [`Suite::Turns`] with their inputs.
pub fn turns() -> Vec<(Family, Beside)> {
    with(|suite| if let Turns(beside) = suite { Some(beside) } else { None })
}

/// The families of a suite, each with the number of prototypes per class; some come with several numbers.
pub fn with_centers(suite: fn(usize) -> Suite) -> Vec<(Family, usize)> {
    with(|own| match own {
        Cpu(k) | BadValues(k) | Soak(k) if suite(k) == own => Some(k),
        _ => None,
    })
}

fn with<T>(of: impl Fn(Suite) -> Option<T>) -> Vec<(Family, T)> {
    let mut found = vec![];
    for family in all() {
        let values: Vec<T> = family.on.iter().filter_map(|&suite| of(suite)).collect();
        found.extend(values.into_iter().map(|value| (family.clone(), value)));
    }
    found
}

/// Every preset.
pub fn presets() -> Vec<(String, MarginSoftmax)> {
    PRESETS.iter().map(|preset| (preset.name.to_owned(), preset.loss())).collect()
}

/// Every family whose loss is no preset's, once.
pub fn beside_presets() -> Vec<(String, MarginSoftmax)> {
    without_presets(all())
}

/// Every preset, then the other families of a suite.
pub fn presets_and(suite: Suite) -> Vec<(String, MarginSoftmax)> {
    [presets(), without_presets(on(suite))].concat()
}

fn without_presets(families: Vec<Family>) -> Vec<(String, MarginSoftmax)> {
    let (known, mut found) = (presets(), Vec::<(String, MarginSoftmax)>::new());
    for Family { name, loss, .. } in families {
        if known.iter().chain(&found).all(|(_, other)| *other != loss) {
            found.push((name.to_owned(), loss));
        }
    }
    found
}

/// The list, and the examples of variants that no family of the list has.
pub fn all() -> Vec<Family> {
    let mut all = list();
    let mut add = |examples: Vec<MarginSoftmax>, name: fn(&MarginSoftmax) -> &'static str| {
        for loss in examples {
            if all.iter().all(|family| name(&family.loss) != name(&loss)) {
                all.push(Family { name: name(&loss), loss, on: EVERYWHERE });
            }
        }
    };
    add(targets(), |loss| loss.target.name());
    add(transforms(), |loss| loss.others.name());
    add(links(), |loss| loss.link.name());
    add(adaptives(), |loss| loss.adaptive.name());
    add(similarities(), |loss| loss.similarity.name());
    all
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

/// A loss with that curve.
pub fn bent(m0: f64, m3: f64) -> MarginSoftmax {
    MarginSoftmax { target: Target::Custom(Custom::new(Bent { m0, m3 })), ..Default::default() }
}

/// Other classes from outside: c + a c (1 - x) + b c² φ.
#[derive(Debug)]
pub struct Lean {
    pub a: f64,
    pub b: f64,
}

impl OtherCurve for Lean {
    fn name(&self) -> &str {
        "lean"
    }
    fn value_slope(&self, c: f64, target: RowTarget) -> (f64, f64) {
        let (a, b) = (self.a * (1.0 - target.cosine), self.b * target.value);
        (c + a * c + b * c * c, 1.0 + a + 2.0 * b * c)
    }
    fn wgsl(&self) -> &str {
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope {
            let a = other_parameter(0u) * (1.0 - row.cosine);
            let b = other_parameter(1u) * row.value;
            return ValueSlope(c + a * c + b * c * c, 1.0 + a + 2.0 * b * c);
        }"
    }
    fn parameters(&self) -> Vec<f64> {
        vec![self.a, self.b]
    }
}

/// A loss with those other classes.
pub fn lean(a: f64, b: f64) -> MarginSoftmax {
    MarginSoftmax::cosface().with_scale(16.0).with_others(Others::Custom(CustomOthers::new(Lean { a, b })))
}

fn named(name: &str) -> MarginSoftmax {
    MarginSoftmax::named(name).expect("a preset")
}

fn top(count: usize) -> Others {
    Others::TopK(TopK { count, margin: 0.1 })
}

fn with_series(loss: MarginSoftmax, degree: usize, damping: Damping, coefficients: Coefficients) -> MarginSoftmax {
    loss.with_margin(|m| m.curve = Curve::Series(Series { degree, damping, coefficients }))
}

fn with_fallback(loss: MarginSoftmax, fallback: Fallback) -> MarginSoftmax {
    loss.with_margin(|m| m.fallback = fallback)
}

fn list() -> Vec<Family> {
    use Coefficients::{Closed, Fit};
    use Damping::{Jackson, Lanczos};

    const MARGINS: Suite = Turns(Beside::Margins);
    const CENTERS: Suite = Turns(Beside::Centers);
    let family = |name, loss, on| Family { name, loss, on };
    let preset = |name, on| family(name, named(name), on);

    let angle = |curve| Angle { factor: 0.8, margin: 0.1, offset: 0.3, curve, slope: Slope::Analytic };
    let angles = |degree, damping, coefficients| angle(Curve::Series(Series { degree, damping, coefficients }));
    let angle_of = |target, others| MarginSoftmax {
        target: Target::Angle(target),
        others: Others::Angle(others),
        scale: 10.0,
        ..Default::default()
    };
    let detached = |angle| Angle { slope: Slope::Detached, ..angle };
    // between the lengths of the vectors that those tests draw
    let lengths = MagFace { lower_length: 1.5, upper_length: 4.5, lower_margin: 0.3, upper_margin: 0.7, weight: 0.5 };
    let magface = || MarginSoftmax::magface().with_adaptive(Adaptive::MagFace(lengths)).with_scale(30.0);
    let short = Length { lower_length: 1.5, upper_length: 4.5 };
    let binary = Link::Binary(Binary { weight: 0.6, factor: 0.5, bias: -3.0 });
    let arcface = MarginSoftmax::arcface;
    let cheby = MarginSoftmax::cheby_aam;
    let unified = MarginSoftmax::unified;

    vec![
        // m0..m3 with an exact curve or a series
        preset("normface", &[Grid]),
        preset("arcface_insightface", &[Browser]),
        preset("cosface", &[Grid, Cpu(1), Browser]),
        preset("arcface", &[Grid, BadValues(1)]),
        family("arcface_detached", arcface().with_margin(|m| m.slope = Slope::Detached), &[Grid]),
        preset("sphereface", &[Grid, Operation, Browser]),
        preset("ampface", &[Grid]),
        preset("ampface_rectified", &[Cpu(1), BadValues(1), Browser]),
        family("unified", unified(0.7, 1.35, 0.3, 0.1), &[Grid]),
        family("unified_flat", unified(1.2, 0.6, 0.4, -0.2), &[Grid]),
        preset("chebyaam", &[Grid, Cpu(2), BadValues(2), Browser]),
        preset("chebyaam_fit", &[Grid, Browser]),
        family("series_jackson", with_series(unified(0.9, 1.35, 0.3, 0.05), 24, Jackson, Closed), &[Grid]),
        family("series_lanczos", with_series(arcface(), 15, Lanczos, Closed), &[Grid]),
        family("chebyaam_rectified", cheby().with_others(Others::Rectified), &[Operation]),
        // linear in the angle
        preset("arcgrad", &[TURNS, Operation, Cpu(2), BadValues(1), Browser]),
        preset("arcgrad_series", &[TURNS, Cpu(1), Browser]),
        preset("li_arcface", &[TURNS, Cpu(1), Browser]),
        family("angle", angle_of(angles(24, Jackson, Closed), angle(Curve::Exact)), &[TURNS]),
        family("angle_detached", angle_of(detached(Angle::default()), detached(angles(9, Jackson, Fit))), &[TURNS]),
        // others and margins that follow the batch or the row
        preset("curricularface", &[Cpu(1), BadValues(1), BrowserRunning, Soak(1)]),
        family("curricularface_30", named("curricularface").with_scale(30.0), &[TURNS]),
        family("curricular", MarginSoftmax::cosface().with_others(Others::Curricular).with_scale(16.0), &[TURNS]),
        preset("adaface", &[TURNS, Cpu(2), BadValues(1), BrowserRunning, Soak(1)]),
        family("adaface_continuous", with_fallback(named("adaface"), Fallback::Continuous), &[TURNS]),
        family("adaface_series", with_series(named("adaface"), 20, Jackson, Closed), &[TURNS]),
        preset("magface", &[Cpu(1), BadValues(1), BrowserRunning]),
        family("magface_short", magface(), &[TURNS]),
        family("magface_sine", with_fallback(magface(), Fallback::Sine), &[TURNS]),
        family("magface_continuous", with_fallback(magface(), Fallback::Continuous), &[TURNS]),
        family("magface_mirror", with_fallback(magface(), Fallback::Mirror).with_margin(|m| m.m1 = 1.3), &[TURNS]),
        family(
            "magface_detached",
            magface().with_margin(|m| (m.fallback, m.slope) = (Fallback::None, Slope::Detached)),
            &[TURNS],
        ),
        family(
            "magface_series",
            with_series(with_fallback(magface(), Fallback::Clip(0.1)), 30, Jackson, Fit),
            &[TURNS],
        ),
        preset("elasticface_arc", &[Cpu(1), BadValues(1), Browser, Soak(1)]),
        family("elasticface_arc_30", named("elasticface_arc").with_scale(30.0), &[TURNS]),
        preset("elasticface_arc_plus", &[TURNS, Cpu(3)]),
        preset("elasticface_cos", &[TURNS]),
        preset("elasticface_cos_plus", &[Cpu(1)]),
        family("elasticface_cos_plus_20", named("elasticface_cos_plus").with_scale(20.0), &[TURNS]),
        family("elastic_series", cheby().with_adaptive(Adaptive::Elastic(Elastic::default())), &[TURNS]),
        // a scale of the row
        preset("modified_softmax", &[TURNS, Cpu(1), BadValues(1), Browser, Soak(1)]),
        preset("a_softmax", &[Cpu(2), Browser]),
        family("length", arcface().with_scale(6.0).with_adaptive(Adaptive::Length(short)), &[TURNS, Laws]),
        family(
            "length_margins",
            unified(0.7, 1.35, 0.3, 0.1).with_scale(4.0).with_adaptive(Adaptive::Length(short)),
            &[MARGINS],
        ),
        family("length_mv", named("mv_am").with_scale(5.0).with_adaptive(Adaptive::Length(short)), &[TURNS, Cpu(1)]),
        family(
            "length_binary",
            named("sphereface2").with_scale(4.0).with_adaptive(Adaptive::Length(short)),
            &[TURNS, Cpu(1)],
        ),
        // SphereFace2's curve and the binary link, together and alone
        preset("sphereface2", &[TURNS, Cpu(1), BadValues(1), Browser, Soak(1)]),
        preset("sphereface2_angular", &[TURNS, Operation, Cpu(2), Browser]),
        preset("sphereface2_opensphere", &[TURNS, Cpu(1)]),
        family("binary_arcface", MarginSoftmax { link: binary, ..named("arcface_speaker") }, &[TURNS]),
        family("binary_top", MarginSoftmax { link: binary, others: top(3), ..MarginSoftmax::cosface() }, &[TURNS]),
        family("power_softmax", MarginSoftmax { link: Link::Softmax, ..named("sphereface2_angular") }, &[TURNS]),
        // a scale that follows the batch
        preset("adacos", &[TURNS, Cpu(1), Cpu(3), BadValues(1), Browser, Soak(2)]),
        family("adacos_margin", MarginSoftmax::cosface().with_adaptive(Adaptive::AdaCos), &[TURNS]),
        // others that are chosen or left out
        preset("arcface_topk", &[TURNS, Cpu(1), Cpu(2), BadValues(1), Browser]),
        family("cosface_top", MarginSoftmax::cosface().with_others(top(3)), &[Soak(2)]),
        family("chebyaam_top", cheby().with_others(top(2)), &[TURNS]),
        preset("arcface_filter", &[Cpu(3), Browser]),
        family("arcface_filter_30", named("arcface_filter").with_scale(30.0), &[TURNS]),
        preset("mv_am", &[TURNS, Cpu(1), BadValues(1), Browser]),
        preset("mv_arc", &[TURNS, Cpu(2), Browser, Soak(1)]),
        family(
            "mv_fixed",
            named("mv_am").with_others(Others::MvSoftmax(MvSoftmax { fixed: true, weight: 0.3 })),
            &[TURNS, Cpu(1)],
        ),
        family("mv_margins", named("mv_am").with_scale(16.0), &[MARGINS]),
        preset("arcnegface", &[Cpu(1), BadValues(1), Browser]),
        family("arcnegface_30", named("arcnegface").with_scale(30.0), &[TURNS, CENTERS]),
        family("arcneg_adaface", named("adaface").with_scale(16.0).with_others(named("arcnegface").others), &[TURNS]),
        // plain products
        preset("softmax", &[TURNS, Cpu(1), BadValues(1)]),
        preset("m_softmax", &[TURNS, Cpu(1)]),
        // a curve from outside, which has no JSON form and so is in no browser
        family("custom", bent(0.9, 0.2), &[TURNS, Operation]),
        family("custom_others", lean(0.3, -0.2), &[TURNS, BadValues(1), Cpu(1), Cpu(2), Laws]),
        family("custom_both", bent(0.9, 0.2).with_scale(16.0).with_others(lean(-0.2, 0.3).others), &[TURNS, Cpu(1)]),
        // several parts at once
        family("adacos_top", named("adacos").with_others(top(3)).with_label_smoothing(0.1), &[Cpu(2)]),
        family(
            "adaface_curricular",
            named("adaface").with_others(Others::Curricular).with_label_smoothing(0.05),
            &[Cpu(1)],
        ),
        // margins of classes and rows
        family("margins", arcface(), &[MARGINS]),
        family("margins_unified", unified(0.7, 1.35, 0.3, 0.1).with_scale(30.0), &[MARGINS]),
        family("margins_mirror", MarginSoftmax::sphereface(), &[MARGINS]),
        family("margins_series", cheby(), &[MARGINS]),
        family("margins_jackson", with_series(unified(1.0, 1.35, 0.2, 0.0), 24, Jackson, Closed), &[MARGINS]),
        family("margins_fit", named("chebyaam_fit"), &[MARGINS]),
        family("margins_clip", with_fallback(arcface(), Fallback::Clip(0.3)), &[MARGINS]),
        family("margins_none", named("arcface_insightface"), &[MARGINS]),
        // several prototypes per class
        family("centers", arcface(), &[CENTERS]),
        family("centers_cheby", cheby().with_others(Others::Rectified), &[CENTERS]),
    ]
}
