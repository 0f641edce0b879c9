//! The losses, and all that stands beside them, as the command line has them: names, JSON, or files with JSON.

use std::{collections::BTreeMap, path::Path};

use margin_softmax::{
    CenterLoss, Regularizer,
    objective::{PRESETS, Ramp, Schedule, Schedules},
};

use crate::{
    common::{Result, json},
    title,
    training::Loss,
};

/// A loss from the command line.
pub fn parse(text: &str) -> Result<Loss, String> {
    read(text).map_err(|why| why.to_string())
}

fn read(text: &str) -> Result<Loss> {
    if PRESETS.iter().any(|preset| preset.name == text) {
        return Loss::named(text);
    }
    let Some(Source { file, content }) = source(text)? else {
        let names = PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
        return Err(format!("neither a loss as JSON, nor a file, nor a name: {names}").into());
    };
    let loss = json::parse(&content)?;
    let title = match file {
        Some(name) => name,
        None => title::of(&loss)?,
    };
    Ok(Loss { name: String::new(), title, loss })
}

/// JSON as it was given, or out of a file of this name.
struct Source {
    file: Option<String>,
    content: String,
}

/// `None` where it is neither.
fn source(text: &str) -> Result<Option<Source>> {
    if text.trim_start().starts_with('{') {
        return Ok(Some(Source { file: None, content: text.into() }));
    }
    let path = Path::new(text);
    if !path.is_file() {
        return Ok(None);
    }
    let name = path.file_stem().map_or_else(|| text.into(), |stem| stem.to_string_lossy().into_owned());
    Ok(Some(Source { file: Some(name), content: std::fs::read_to_string(path)? }))
}

/// Each loss once, and each title once: losses out of files of one name are told apart by their numbers.
pub fn distinct(given: Vec<Loss>) -> Result<Vec<Loss>> {
    let mut all: Vec<Loss> = vec![];
    for loss in given {
        if !all.iter().any(|other| other.loss == loss.loss) {
            all.push(loss);
        }
    }
    let mut count = BTreeMap::new();
    all.iter().for_each(|loss| *count.entry(loss.title.clone()).or_insert(0) += 1);
    for loss in all.iter_mut().filter(|loss| count.get(&loss.title).is_some_and(|&count| count > 1)) {
        loss.title = format!("{}: {}", loss.title, title::of(&loss.loss)?);
    }
    // the coefficients of a series are too long for a title
    let mut seen = BTreeMap::new();
    for loss in &mut all {
        let times = seen.entry(loss.title.clone()).or_insert(0);
        *times += 1;
        if *times > 1 {
            loss.title = format!("{} ({times})", loss.title);
        }
    }
    Ok(all)
}

/// A regulariser: its name, `NAME=WEIGHT`, JSON, or a file.
pub fn regularizer(text: &str) -> Result<Regularizer, String> {
    let read = || -> Result<Regularizer> {
        if let Some(Source { content, .. }) = source(text)? {
            return json::object(&content);
        }
        let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
        let known = [Regularizer::reg_ss(), Regularizer::uniform_face()];
        let Some(found) = known.iter().find(|known| known.name() == name) else {
            return Err("neither a regulariser as JSON, nor a file, nor a name: reg_ss, uniform_face".into());
        };
        Ok(found.with_weight(number("weight", weight)?))
    };
    let checked = read().and_then(|found| Ok(found.validate().map(|()| found)?));
    checked.map_err(|why| why.to_string())
}

/// A center loss: its weight, JSON, or a file.
pub fn center(text: &str) -> Result<CenterLoss, String> {
    let read = || -> Result<CenterLoss> {
        match source(text)? {
            Some(Source { content, .. }) => json::object(&content),
            None => Ok(CenterLoss { weight: number("weight", text)?, ..Default::default() }),
        }
    };
    let checked = read().and_then(|found| Ok(found.validate().map(|()| found)?));
    checked.map_err(|why| why.to_string())
}

/// Schedules: `NAME=START..END@FROM..UNTIL`, with `:linear` behind it or not, `top_k=MARGIN`, JSON, or a file.
pub fn schedules(text: &str) -> Result<Schedules, String> {
    let read = || -> Result<Schedules> {
        match source(text)? {
            Some(Source { content, .. }) => json::object(&content),
            None => short(text),
        }
    };
    let checked = read().and_then(|found| Ok(found.validate().map(|()| found)?));
    checked.map_err(|why| why.to_string())
}

fn short(text: &str) -> Result<Schedules> {
    let form = "expected NAME=START..END@FROM..UNTIL, such as m2=0..0.3@100..500, with NAME out of: m0, m1, m2, m3, \
                margin, scale; or top_k=MARGIN, JSON, or a file";
    let (name, rest) = text.split_once('=').ok_or(form)?;
    let mut all = Schedules::default();
    if name == "top_k" {
        all.top_k = Some(number(name, rest)?);
        return Ok(all);
    }
    let place = match name {
        "m0" => &mut all.m0,
        "m1" => &mut all.m1,
        "m2" => &mut all.m2,
        "m3" => &mut all.m3,
        "margin" => &mut all.margin,
        "scale" => &mut all.scale,
        _ => return Err(form.into()),
    };
    let (rest, ramp) = match rest.rsplit_once(':') {
        None => (rest, Ramp::default()),
        Some((rest, "linear")) => (rest, Ramp::Linear),
        Some((rest, "exponential")) => (rest, Ramp::Exponential),
        Some((_, other)) => return Err(format!("`{other}` is no ramp; known are: linear, exponential").into()),
    };
    let (values, steps) = rest.split_once('@').ok_or(form)?;
    let ((start, end), (from, until)) = (values.split_once("..").ok_or(form)?, steps.split_once("..").ok_or(form)?);
    let step = |what: &str, text: &str| {
        text.parse::<u64>().map_err(|_| format!("{what}: `{text}` is no number of a training step"))
    };
    let (start, end) = (number("start", start)?, number("end", end)?);
    *place = Some(Schedule { start, end, from: step("from", from)?, until: step("until", until)?, ramp });
    Ok(all)
}

fn number(what: &str, text: &str) -> Result<f64> {
    text.parse().map_err(|_| format!("{what}: `{text}` is no number").into())
}

/// Schedules that were given one by one, as one; each number may have only one.
pub fn merged(given: &[Schedules]) -> Result<Option<Schedules>> {
    fn join<T>(name: &str, own: &mut Option<T>, other: Option<T>) -> Result {
        if own.is_some() && other.is_some() {
            return Err(format!("--schedule: `{name}` has two schedules").into());
        }
        *own = own.take().or(other);
        Ok(())
    }
    let mut all: Option<Schedules> = None;
    for &one in given {
        let own = all.get_or_insert_default();
        join("m0", &mut own.m0, one.m0)?;
        join("m1", &mut own.m1, one.m1)?;
        join("m2", &mut own.m2, one.m2)?;
        join("m3", &mut own.m3, one.m3)?;
        join("margin", &mut own.margin, one.margin)?;
        join("scale", &mut own.scale, one.scale)?;
        join("top_k", &mut own.top_k, one.top_k)?;
    }
    Ok(all)
}
