//! The images: Fashion-MNIST, or another set in its four files, or the embedded digits.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{
        Result,
        digits::{Digits, SEEN},
        learner::Set,
    },
    idx::{self, Idx},
};

/// Where Debian's package `dataset-fashion-mnist` puts its files.
const PACKAGE: &str = "/usr/share/datasets/fashion-mnist";

/// The choice of the training images does not follow `--seed`: runs with other seeds have the same images.
const CHOICE_SEED: u64 = 0;

/// A data set.
pub struct Images {
    /// For people.
    pub title: String,
    pub classes: usize,
    /// In a random order: each share of it is its beginning.
    pub train: Set,
    pub test: Set,
}

impl Images {
    /// The embedded digits: eight classes of 8×8 pixels.
    pub fn digits() -> Result<Self> {
        let Digits { train, test, .. } = Digits::load()?;
        let title = format!(
            "the embedded digits in the place of Fashion-MNIST: 8×8 pixels, {} images to train on",
            train.labels.len()
        );
        let train = train.select(&order(train.labels.len()));
        Ok(Self { title, classes: SEEN.len(), train, test })
    }

    /// Some of the training images and all of the test images of a folder with the four files; without one, of the package.
    pub fn folder(folder: Option<&Path>, count: usize) -> Result<Self> {
        let path = folder.map_or_else(|| PathBuf::from(PACKAGE), Path::to_path_buf);
        if folder.is_none() && !path.is_dir() {
            return Err(format!(
                "Fashion-MNIST is not at {PACKAGE}: install Debian's package (apt-get install dataset-fashion-mnist), name a \
                 folder with its four IDX files with --data DIR, or take the embedded digits with --quick"
            )
            .into());
        }
        let (train, classes) = part(&path, "train")?;
        let (test, test_classes) = part(&path, "t10k")?;
        if train.inputs.ncols() != test.inputs.ncols() || test_classes > classes {
            return Err(format!(
                "{}: training images of {} pixels in {classes} classes, but test images of {} pixels in {test_classes}",
                path.display(),
                train.inputs.ncols(),
                test.inputs.ncols()
            )
            .into());
        }
        let all = train.labels.len();
        let mut order = order(all);
        order.truncate(count);
        let name = folder.map_or("Fashion-MNIST".into(), |path| path.display().to_string());
        let title = format!("{name}, {} of its {all} training images", order.len());
        Ok(Self { title, classes, train: train.select(&order), test })
    }

    /// The first of the training images, at least one: a share of them.
    pub fn share(&self, share: f64) -> Set {
        let count = (self.train.labels.len() as f64 * share).round().max(1.0) as usize;
        self.train.select(&(0..count.min(self.train.labels.len())).collect::<Vec<_>>())
    }
}

fn order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(CHOICE_SEED));
    order
}

/// Images and labels of one part, and the number of its classes.
fn part(folder: &Path, part: &str) -> Result<(Set, usize)> {
    let [(images_path, images), (labels_path, labels)] =
        [file(folder, &format!("{part}-images-idx3-ubyte"))?, file(folder, &format!("{part}-labels-idx1-ubyte"))?];
    let [rows, height, width] = images.lengths[..] else {
        let lengths = &images.lengths;
        return Err(format!("{}: {} dimensions, images have 3", images_path.display(), lengths.len()).into());
    };
    if labels.lengths != [rows] || rows == 0 || height * width == 0 {
        return Err(format!(
            "{}: {:?} labels for the {rows} images of {height}×{width} pixels in {}",
            labels_path.display(),
            labels.lengths,
            images_path.display()
        )
        .into());
    }
    let pixels = images.values.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let inputs = Array2::from_shape_vec((rows, height * width), pixels)?;
    let labels: Vec<u32> = labels.values.iter().map(|&label| label.into()).collect();
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    Ok((Set { inputs, labels }, classes))
}

/// A file under its name with .gz, or without.
fn file(folder: &Path, name: &str) -> Result<(PathBuf, Idx)> {
    let both = [format!("{name}.gz"), name.to_string()].map(|name| folder.join(name));
    let Some(path) = both.into_iter().find(|path| path.is_file()) else {
        return Err(format!("{}: no file {name}.gz or {name}", folder.display()).into());
    };
    let content = idx::read(&path)?;
    Ok((path, content))
}
