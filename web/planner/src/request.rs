//! What JavaScript asks for, read from JSON.

use margin_softmax::{
    Budget, CenterLoss, Error, MarginSoftmax, Options, Regularizer, Result, Shape, State, Target, Want,
    data::GradientFilter,
    plan::{self, Element, Layout, Limits, Plan},
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

/// A plan: a loss, its sizes, the caller's tensors, the device, and how to go about it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    loss: MarginSoftmax,
    shape: Sizes,
    /// Classes of each prototype buffer; as few as the limits allow if absent.
    #[serde(default)]
    shards: Option<Vec<usize>>,
    #[serde(default)]
    elements: Elements,
    pub limits: Limits,
    #[serde(default)]
    want: Want,
    #[serde(default)]
    options: How,
    /// Predictions of rows without labels, in the place of a head.
    #[serde(default)]
    predict: Option<Predict>,
    /// A companion in the place of a head: `reg_ss`, `uniform_face`, `center_loss` or `center_update`. Its weight or rate is the scale
    /// of the loss, and its ignore index that of the loss.
    #[serde(default)]
    auxiliary: Option<String>,
}

/// The nearest classes of each row.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Predict {
    count: usize,
    /// First class and the one after the last, where they are not all.
    range: Option<[usize; 2]>,
}

/// A [`Shape`] that is not checked yet: its errors keep their names.
#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Sizes {
    rows: usize,
    classes: usize,
    dim: usize,
    sub_centers: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Elements {
    embeddings: Element,
    prototypes: Element,
}

/// The fields of [`Options`] beside what is wanted.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct How {
    budget: Option<Budget>,
    preset: Option<String>,
    tile: Option<String>,
    /// The threshold of a gradient filter.
    filter: Option<f64>,
    work_per_submit: Option<u64>,
    /// Nearest classes of each row.
    predictions: Option<usize>,
    /// The most targets of a row.
    soft_labels: Option<usize>,
}

impl Request {
    pub fn plan(&self) -> Result<Plan> {
        let Sizes { rows, classes, dim, sub_centers } = self.shape;
        let sized = |classes| Shape::new(rows, classes, dim)?.with_sub_centers(sub_centers.unwrap_or(1));
        let (shape, options) = (sized(classes)?, self.options()?);
        if let Some(name) = &self.auxiliary {
            return self.auxiliary(name, shape);
        }
        let range = self.predict.as_ref().and_then(|predict| predict.range).map_or(0..classes, |[a, b]| a..b);
        if range.is_empty() || range.end > classes {
            return Err(Error::Shards { found: range.clone(), expected: range.start, classes });
        }
        let Elements { embeddings, prototypes } = self.elements;
        let shards = match &self.shards {
            Some(shards) => shards.clone(),
            None => Plan::shards(sized(range.len())?, prototypes, &self.limits)?,
        };
        let layout = Layout { shards: &shards, embeddings, prototypes };
        match &self.predict {
            Some(Predict { count, .. }) => {
                Plan::predict(&self.loss, shape, range, *count, &layout, &self.limits, &options)
            }
            None => Plan::head(&self.loss, shape, &layout, &self.limits, &options),
        }
    }

    fn auxiliary(&self, name: &str, shape: Shape) -> Result<Plan> {
        let (MarginSoftmax { scale, ignore_index, .. }, limits) = (&self.loss, &self.limits);
        let Elements { embeddings, prototypes } = self.elements;
        let (weight, ignore_index) = (*scale, *ignore_index);
        let center = CenterLoss { ignore_index, ..CenterLoss::default() };
        match name {
            "reg_ss" => Plan::regularizer(&Regularizer::RegSs { weight }, shape, prototypes, limits),
            "uniform_face" => Plan::regularizer(&Regularizer::UniformFace { weight }, shape, prototypes, limits),
            "center_loss" => Plan::center_loss(&CenterLoss { weight, ..center }, shape, embeddings, limits),
            "center_update" => Plan::center_update(&CenterLoss { rate: weight, ..center }, shape, embeddings, limits),
            _ => {
                let known = "reg_ss, uniform_face, center_loss, center_update".into();
                Err(Error::Name { what: "auxiliary", found: name.into(), known })
            }
        }
    }

    fn options(&self) -> Result<Options> {
        let How { budget, preset, tile, filter, work_per_submit, predictions, soft_labels } = &self.options;
        Ok(Options {
            want: self.want,
            budget: budget.unwrap_or_default(),
            preset: preset.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
            tile: tile.as_deref().map(str::parse).transpose()?,
            filter: filter.map(GradientFilter::new).transpose()?,
            work_per_submit: *work_per_submit,
            predictions: *predictions,
            soft_labels: *soft_labels,
        })
    }
}

/// [`plan::Call`] as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    rows: usize,
    #[serde(default)]
    class_weights: bool,
    #[serde(default)]
    row_weights: bool,
    #[serde(default)]
    divisor: Option<f32>,
    #[serde(default)]
    upstream: bool,
    #[serde(default)]
    accumulate_embeddings: bool,
    #[serde(default)]
    accumulate_prototypes: bool,
    #[serde(default)]
    class_margins: bool,
    #[serde(default)]
    row_margins: bool,
    #[serde(default)]
    soft_labels: bool,
}

impl From<Call> for plan::Call {
    fn from(call: Call) -> Self {
        let Call {
            rows, class_weights, row_weights, divisor, upstream, class_margins, row_margins, soft_labels, ..
        } = call;
        let accumulate =
            plan::Accumulate { embeddings: call.accumulate_embeddings, prototypes: call.accumulate_prototypes };
        Self {
            rows,
            class_weights,
            row_weights,
            divisor,
            upstream,
            accumulate,
            class_margins,
            row_margins,
            soft_labels,
        }
    }
}

/// Margins as a device takes them: m0..m3 of every class or row, NaN where there are none.
struct Quads(Option<Vec<f32>>);

impl Quads {
    /// m0..m3 of one class or row; `own` where there are none.
    fn get(&self, index: usize, own: [f32; 4]) -> [f32; 4] {
        let quad = self.0.as_ref().and_then(|all| all.as_chunks::<4>().0.get(index));
        let Some(quad) = quad else { return own };
        std::array::from_fn(|k| if quad[k].is_nan() { own[k] } else { quad[k] })
    }

    /// m0..m3 as slices have them: each of all, or none where nothing is given.
    fn columns(&self, own: impl Fn(usize) -> [f32; 4]) -> [Option<Vec<f32>>; 4] {
        let quads = self.0.as_ref().map_or(&[][..], |all| all.as_chunks::<4>().0);
        std::array::from_fn(|k| {
            let given = quads.iter().any(|quad| !quad[k].is_nan());
            given.then(|| (0..quads.len()).map(|i| self.get(i, own(i))[k]).collect())
        })
    }
}

/// m0..m3 of the classes and of the rows with these labels, as slices have them.
pub fn columns(loss: &MarginSoftmax, labels: &[i32], quads: [Option<Vec<f32>>; 2]) -> [[Option<Vec<f32>>; 4]; 2] {
    let [by_class, by_row] = quads.map(Quads);
    let own = margins(loss);
    // a row without a class is refused for its label
    let class_of = |row: usize| labels.get(row).and_then(|&label| usize::try_from(label).ok());
    let of_class = |row| class_of(row).map_or(own, |class| by_class.get(class, own));
    [by_class.columns(|_| own), by_row.columns(of_class)]
}

/// m0..m3 of the loss itself, where it has them.
fn margins(loss: &MarginSoftmax) -> [f32; 4] {
    match &loss.target {
        Target::Unified(margin) => margin.margins().map(|m| m as f32),
        _ => [0.0; 4],
    }
}

/// A [`State`] as JSON whose broken numbers are read elsewhere: JavaScript reads them as precisely as Rust does, and a second
/// reader is a table of 10 kB.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // they must be there
struct Whole {
    classes: usize,
    step: u64,
    seed: u64,
    hardness: IgnoredAny,
    norm_mean: IgnoredAny,
    norm_deviation: IgnoredAny,
    scale: IgnoredAny,
}

/// A state from its JSON, and from hardness, mean and deviation of the lengths, and scale.
pub fn state(text: &str, numbers: &[f64]) -> Result<State> {
    let [hardness, norm_mean, norm_deviation, scale] = std::array::from_fn(|i| numbers.get(i).map_or(f64::NAN, |&n| n));
    let Whole { classes, step, seed, .. } = json("state", text)?;
    Ok(State { classes, step, seed, hardness, norm_mean, norm_deviation, scale })
}

/// Reads JSON; [`Error::Format`] says what is wrong with it.
pub fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| refuse(what, &error))
}

pub fn refuse(what: &'static str, error: &serde_json::Error) -> Error {
    Error::Format { what, why: error.to_string() }
}
