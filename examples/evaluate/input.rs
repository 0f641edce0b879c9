//! A batch from a safetensors file.

#[path = "../common/floats.rs"]
mod floats;

use std::path::Path;

use floats::{FLOATS, widened as floats};
use margin_softmax::{Batch, Error, Margins, Reduction, Shape, data::SoftLabels, predict::Inputs};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{command::Result, files};

/// The largest file that is read.
pub const MAX_BYTES: u64 = 8 << 30;
/// The longest header that is read: all tensors there are take three kilobytes.
const LONGEST_HEADER: u64 = 1 << 20;

/// A batch that owns its data.
pub struct Input<T = f32> {
    pub shape: Shape,
    /// The element types of embeddings and prototypes in the file.
    pub elements: [Dtype; 2],
    pub embeddings: Vec<T>,
    pub prototypes: Vec<T>,
    pub labels: Vec<i64>,
    pub class_weights: Option<Vec<T>>,
    pub row_weights: Option<Vec<T>>,
    pub divisor: Option<T>,
    pub upstream: Option<Vec<T>>,
    pub bias: Option<Vec<T>>,
    /// m0..m3 of classes and of rows.
    pub class_margins: [Option<Vec<T>>; 4],
    pub row_margins: [Option<Vec<T>>; 4],
    pub soft: Option<Soft<T>>,
}

/// Several targets of each row.
pub struct Soft<T> {
    /// T.
    pub count: usize,
    /// \[N, T\].
    pub classes: Vec<i32>,
    pub weights: Vec<T>,
}

/// What a tensor may be.
struct Kind {
    name: &'static str,
    elements: &'static [Dtype],
    axes: &'static [&'static [&'static str]],
}

const INTEGERS: &[Dtype] =
    &[Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8, Dtype::U64, Dtype::U32, Dtype::U16, Dtype::U8];
const EMBEDDINGS: Kind = Kind { name: "embeddings", elements: FLOATS, axes: &[&["N", "D"]] };
const PROTOTYPES: Kind = Kind { name: "prototypes", elements: FLOATS, axes: &[&["C", "D"], &["C", "K", "D"]] };
const LABELS: Kind = Kind { name: "labels", elements: INTEGERS, axes: &[&["N"]] };
const CLASS_WEIGHTS: Kind = per_class("class_weights");
const ROW_WEIGHTS: Kind = per_row("row_weights");
const DIVISOR: Kind = Kind { name: "divisor", elements: &[Dtype::F32], axes: &[&["1"]] };
const UPSTREAM: Kind = Kind { name: "upstream", elements: &[Dtype::F32], axes: &[&["1 or N"]] };
const BIAS: Kind = per_class("bias");
const SOFT_CLASSES: Kind = Kind { name: "soft_classes", elements: &[Dtype::I64, Dtype::I32], axes: &[&["N", "T"]] };
const SOFT_WEIGHTS: Kind = Kind { name: "soft_weights", elements: &[Dtype::F32], axes: &[&["N", "T"]] };
const CLASS_MARGINS: [Kind; 4] =
    [per_class("class_m0"), per_class("class_m1"), per_class("class_m2"), per_class("class_m3")];
const ROW_MARGINS: [Kind; 4] = [per_row("row_m0"), per_row("row_m1"), per_row("row_m2"), per_row("row_m3")];

const fn per_class(name: &'static str) -> Kind {
    Kind { name, elements: &[Dtype::F32], axes: &[&["C"]] }
}

const fn per_row(name: &'static str) -> Kind {
    Kind { name, elements: &[Dtype::F32], axes: &[&["N"]] }
}

fn known() -> impl Iterator<Item = &'static str> {
    let single = [EMBEDDINGS, PROTOTYPES, LABELS, CLASS_WEIGHTS, ROW_WEIGHTS, DIVISOR, UPSTREAM, BIAS];
    let soft = [SOFT_CLASSES, SOFT_WEIGHTS];
    single.into_iter().chain(CLASS_MARGINS).chain(ROW_MARGINS).chain(soft).map(|kind| kind.name)
}

/// Every tensor by its name, type and shape; the labels' values are checked by the library.
pub fn read(path: &Path, reduction: Reduction) -> Result<Input> {
    let bytes = files::read(path, MAX_BYTES)?;
    parse(&bytes, reduction).map_err(|why| format!("{}: {why}", path.display()).into())
}

fn parse(bytes: &[u8], reduction: Reduction) -> Result<Input> {
    if let Some(length) = bytes.first_chunk().map(|length| u64::from_le_bytes(*length))
        && length > LONGEST_HEADER
    {
        let why = format!("a header of {length} bytes, at most {LONGEST_HEADER} are allowed");
        return Err(format!("not a safetensors file: {why}").into());
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not a safetensors file: {e}"))?;
    let unknown = |name: &&str| known().all(|known| known != *name);
    if let Some(name) = file.names().into_iter().filter(unknown).min() {
        let known = known().collect::<Vec<_>>().join(", ");
        return Err(format!("unknown tensor `{name}`; known are: {known}").into());
    }
    let embeddings = EMBEDDINGS.required(&file)?;
    let (n, d) = (embeddings.shape()[0], embeddings.shape()[1]);
    let prototypes = PROTOTYPES.required(&file)?;
    let (c, k) = match *prototypes.shape() {
        [c, k, _] => (c, Some(k)),
        _ => (prototypes.shape()[0], None),
    };
    let expected: Vec<usize> = [Some(c), k, Some(d)].into_iter().flatten().collect();
    PROTOTYPES.sized(&prototypes, &expected, "D is that of `embeddings`")?;
    let labels = LABELS.required(&file)?;
    LABELS.sized(&labels, &[n], "N is that of `embeddings`")?;
    let vector = |kind: Kind, expected: usize, why: &str| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = kind.optional(&file)? else { return Ok(None) };
        kind.sized(&tensor, &[expected], why)?;
        Ok(Some(floats(&tensor)))
    };
    let of_classes = |kind| vector(kind, c, "C is that of `prototypes`");
    let of_rows = |kind| vector(kind, n, "N is that of `embeddings`");
    let class_weights = of_classes(CLASS_WEIGHTS)?;
    let row_weights = of_rows(ROW_WEIGHTS)?;
    let divisor = vector(DIVISOR, 1, "it is one number")?.and_then(|one| one.first().copied());
    let bias = of_classes(BIAS)?;
    let [a, b, e, f] = CLASS_MARGINS.map(of_classes);
    let class_margins = [a?, b?, e?, f?];
    let [a, b, e, f] = ROW_MARGINS.map(of_rows);
    let row_margins = [a?, b?, e?, f?];
    let upstream = UPSTREAM.optional(&file)?;
    if let Some(upstream) = &upstream {
        let (expected, why) = match reduction {
            Reduction::None => (n, "N with the reduction `none`"),
            _ => (1, "N only with the reduction `none`"),
        };
        UPSTREAM.sized(upstream, &[expected], why)?;
    }
    Ok(Input {
        shape: Shape::new(n, c, d)?.with_sub_centers(k.unwrap_or(1))?,
        elements: [embeddings.dtype(), prototypes.dtype()],
        embeddings: floats(&embeddings),
        prototypes: floats(&prototypes),
        labels: integers(&labels, c)?,
        class_weights,
        row_weights,
        divisor,
        upstream: upstream.as_ref().map(floats),
        bias,
        class_margins,
        row_margins,
        soft: soft(&file, n, c)?,
    })
}

/// The targets of the rows, if there are any. A negative class is no target, as the library has it.
fn soft(file: &SafeTensors<'_>, n: usize, c: usize) -> Result<Option<Soft<f32>>> {
    let (classes, weights) = match (SOFT_CLASSES.optional(file)?, SOFT_WEIGHTS.optional(file)?) {
        (Some(classes), Some(weights)) => (classes, weights),
        (None, None) => return Ok(None),
        (None, _) => return Err("tensor `soft_classes` is missing: `soft_weights` is there".into()),
        (_, None) => return Err("tensor `soft_weights` is missing: `soft_classes` is there".into()),
    };
    let count = classes.shape()[1];
    SOFT_CLASSES.sized(&classes, &[n, count], "N is that of `embeddings`")?;
    SOFT_WEIGHTS.sized(&weights, &[n, count], "N is that of `embeddings`, T that of `soft_classes`")?;
    let class = |(at, class): (usize, i64)| {
        // beyond i32 it is no class either
        let error = Error::Label { row: at / count.max(1), label: class.into(), classes: c };
        i32::try_from(class.max(-1)).map_err(|_| error)
    };
    let classes = integers(&classes, c)?.into_iter().enumerate().map(class).collect::<Result<_, _>>()?;
    Ok(Some(Soft { count, classes, weights: floats(&weights) }))
}

/// Labels of any integer type. The element type was checked: what is none of the others is i64.
fn integers(tensor: &TensorView, classes: usize) -> Result<Vec<i64>> {
    fn widened<const N: usize, T: Into<i64>>(data: &[u8], read: fn([u8; N]) -> T) -> Vec<i64> {
        data.as_chunks().0.iter().map(|b| read(*b).into()).collect()
    }
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::I8 => widened(data, i8::from_le_bytes),
        Dtype::I16 => widened(data, i16::from_le_bytes),
        Dtype::I32 => widened(data, i32::from_le_bytes),
        Dtype::U8 => widened(data, u8::from_le_bytes),
        Dtype::U16 => widened(data, u16::from_le_bytes),
        Dtype::U32 => widened(data, u32::from_le_bytes),
        Dtype::U64 => {
            let labels = data.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).enumerate();
            // beyond i64 it is no class
            let number = |(row, y): (usize, u64)| i64::try_from(y).map_err(|_| (row, i128::from(y)));
            let labels = labels.map(number).collect::<Result<_, _>>();
            labels.map_err(|(row, label)| Error::Label { row, label, classes })?
        }
        _ => widened(data, i64::from_le_bytes),
    })
}

impl Kind {
    fn optional<'a>(&self, file: &SafeTensors<'a>) -> Result<Option<TensorView<'a>>> {
        let Ok(tensor) = file.tensor(self.name) else { return Ok(None) };
        let (element, shape) = (tensor.dtype(), tensor.shape());
        if !self.elements.contains(&element) || self.axes.iter().all(|axes| shape.len() != axes.len()) {
            let allowed = self.elements.iter().map(Dtype::to_string).collect::<Vec<_>>().join(" or ");
            let axes = self.axes.iter().map(|axes| format!("[{}]", axes.join(", "))).collect::<Vec<_>>().join(" or ");
            let name = self.name;
            return Err(format!("tensor `{name}` is {element} {shape:?}, allowed is {allowed} {axes}").into());
        }
        Ok(Some(tensor))
    }

    fn required<'a>(&self, file: &SafeTensors<'a>) -> Result<TensorView<'a>> {
        self.optional(file)?.ok_or_else(|| format!("tensor `{}` is missing", self.name).into())
    }

    fn sized(&self, tensor: &TensorView, expected: &[usize], why: &str) -> Result {
        let (name, found) = (self.name, tensor.shape());
        if found == expected {
            return Ok(());
        }
        Err(format!("tensor `{name}` has shape {found:?}, expected {expected:?}: {why}").into())
    }
}

impl<T: Copy> Input<T> {
    /// Without labels.
    pub fn inputs(&self) -> Inputs<'_, T> {
        Inputs { embeddings: &self.embeddings, prototypes: &self.prototypes, bias: self.bias.as_deref() }
    }

    pub fn batch(&self) -> Batch<'_, i64, T> {
        Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: self.class_weights.as_deref(),
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
}

impl Input {
    /// For the reference.
    pub fn wide(&self) -> Input<f64> {
        let wide = |v: &Vec<f32>| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        Input {
            shape: self.shape,
            elements: self.elements,
            embeddings: wide(&self.embeddings),
            prototypes: wide(&self.prototypes),
            labels: self.labels.clone(),
            class_weights: self.class_weights.as_ref().map(wide),
            row_weights: self.row_weights.as_ref().map(wide),
            divisor: self.divisor.map(f64::from),
            upstream: self.upstream.as_ref().map(wide),
            bias: self.bias.as_ref().map(wide),
            class_margins: self.class_margins.each_ref().map(|m| m.as_ref().map(wide)),
            row_margins: self.row_margins.each_ref().map(|m| m.as_ref().map(wide)),
            soft: self.soft.as_ref().map(|Soft { count, classes, weights }| Soft {
                count: *count,
                classes: classes.clone(),
                weights: wide(weights),
            }),
        }
    }
}
