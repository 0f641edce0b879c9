//! The templates of IJB: several images, and frames of videos, of one person.

use std::{collections::HashMap, fs, path::Path};

use crate::{
    common::Result,
    embeddings::{Embeddings, Names},
};

/// An embedding for each template of a file with the lines ITEM TEMPLATE MEDIUM: the mean over its media, of the mean over
/// the directions of a medium's items, so that a long video counts no more than a photograph.
pub fn pooled(path: &Path, embeddings: &Embeddings, names: &Names) -> Result<(Embeddings, Names)> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut media: HashMap<[&str; 2], Vec<u32>> = HashMap::new();
    // templates and media in the order that they first come in: sums do not depend on the map's
    let (mut templates, mut places): (Vec<Vec<[&str; 2]>>, HashMap<&str, usize>) = (vec![], HashMap::new());
    let mut titles = vec![];
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let failed = |why: String| format!("{}:{}: {why}", path.display(), at + 1);
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [item, template, medium] = columns[..] else {
            return Err(failed(format!("{} columns, expected ITEM TEMPLATE MEDIUM", columns.len())).into());
        };
        let row = names.row(item).map_err(failed)?;
        let place = *places.entry(template).or_insert_with(|| {
            titles.push(template.to_owned());
            templates.push(vec![]);
            templates.len() - 1
        });
        let own = media.entry([template, medium]).or_default();
        if own.is_empty() {
            templates[place].push([template, medium]);
        }
        own.push(row);
    }
    if templates.is_empty() {
        return Err(format!("{}: no template in the list", path.display()).into());
    }
    let mut values = Vec::with_capacity(templates.len() * embeddings.dim);
    for own in &templates {
        let mut mean = vec![0.0; embeddings.dim];
        for medium in own {
            let rows = &media[medium];
            for &row in rows {
                add_direction(&mut mean, embeddings.row(row), 1.0 / (rows.len() * own.len()) as f64);
            }
        }
        values.extend(mean.iter().map(|&value| value as f32));
    }
    Ok((Embeddings { dim: embeddings.dim, values }, Names::of(titles.into_iter())))
}

fn add_direction(mean: &mut [f64], row: &[f32], share: f64) {
    let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let factor = share / length.max(1e-12);
    mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += factor * f64::from(x));
}
