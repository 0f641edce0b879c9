//! The example `images`: it reads IDX files and refuses broken ones, and its quick form learns and repeats.
#![cfg(feature = "cpu")]

#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // other examples use the rest
mod common;
#[path = "../examples/images/data.rs"]
mod data;
#[path = "../examples/images/idx.rs"]
mod idx;
#[path = "../examples/images/report.rs"]
mod report;
#[path = "../examples/images/training.rs"]
#[allow(dead_code)] // the command line uses the rest
mod training;

use std::{fs, io::Write, path::Path};

use data::Images;
use flate2::{Compression, write::GzEncoder};
use idx::{Idx, parse};
use margin_softmax::Backend;
use training::{Protocol, Results};

/// An IDX file of bytes.
fn idx_file(lengths: &[u32], values: &[u8]) -> Vec<u8> {
    let header = [0, 0, 8, lengths.len() as u8];
    let lengths = lengths.iter().flat_map(|length| length.to_be_bytes());
    header.into_iter().chain(lengths).chain(values.iter().copied()).collect()
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    if name.ends_with(".gz") {
        let mut packed = GzEncoder::new(fs::File::create(folder.join(name)).unwrap(), Compression::default());
        packed.write_all(content).unwrap();
        packed.finish().unwrap();
    } else {
        fs::write(folder.join(name), content).unwrap();
    }
}

/// Two images of 1×2 pixels to train on, packed, and one to test, not packed.
fn small_set(folder: &Path) {
    write(folder, "train-images-idx3-ubyte.gz", &idx_file(&[2, 1, 2], &[0, 255, 51, 102]));
    write(folder, "train-labels-idx1-ubyte.gz", &idx_file(&[2], &[1, 0]));
    write(folder, "t10k-images-idx3-ubyte", &idx_file(&[1, 1, 2], &[255, 0]));
    write(folder, "t10k-labels-idx1-ubyte", &idx_file(&[1], &[1]));
}

#[test]
fn idx_files_are_read() {
    let read = parse(&idx_file(&[2, 3], &[1, 2, 3, 4, 5, 6])[..]).unwrap();
    assert_eq!(read, Idx { lengths: vec![2, 3], values: vec![1, 2, 3, 4, 5, 6] });
    let folder = tempfile::tempdir().unwrap();
    small_set(folder.path());
    let images = Images::folder(Some(folder.path()), 100).unwrap();
    assert_eq!((images.classes, images.train.labels.len(), images.test.labels.clone()), (2, 2, vec![1]));
    assert_eq!(images.test.inputs.row(0).to_vec(), [1.0, 0.0]);
    // in either order, each image with its label
    let first = images.train.labels.iter().position(|&label| label == 1).unwrap();
    assert_eq!(images.train.inputs.row(first).to_vec(), [0.0, 1.0]);
    assert_eq!(images.train.inputs.row(1 - first).to_vec(), [0.2, 0.4]);
    assert_eq!(Images::folder(Some(folder.path()), 1).unwrap().train.labels.len(), 1);
}

#[test]
fn malformed_idx_files_are_refused() {
    let whole = idx_file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    let refused = |bytes: &[u8], part: &str| {
        let error = parse(bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not contain {part:?}");
    };
    refused(&[], "its header is missing");
    refused(&whole[..3], "its header is missing");
    refused(&whole[..7], "dimension 1 of 2 is missing");
    refused(&whole[..11], "dimension 2 of 2 is missing");
    refused(&whole[..whole.len() - 1], "ends after 5 of 6 values");
    refused(&[&whole[..], &[7]].concat(), "more than its 6 values");
    refused(b"\x00\x01\x08\x01\x00\x00\x00\x00", "two zero bytes");
    refused(&[0, 0, 8, 0], "number of dimensions");
    refused(&[0, 0, 0x0d, 1, 0, 0, 0, 1, 0, 0, 0, 0], "kind 0x0d");
    // 2^96 values, and 2^32: no room is made for them
    refused(&idx_file(&[u32::MAX; 3], &[]), "more than can be read");
    refused(&idx_file(&[65_536, 65_536], &[]), "more than can be read");
    assert!(parse(&idx_file(&[0], &[])[..]).unwrap().values.is_empty());
}

/// Each with the name of the file that is wrong.
#[test]
fn sets_that_do_not_fit_are_refused() {
    let refused = |change: &dyn Fn(&Path), part: &str| {
        let folder = tempfile::tempdir().unwrap();
        small_set(folder.path());
        change(folder.path());
        let error = Images::folder(Some(folder.path()), 100).err().expect(part).to_string();
        assert!(error.contains(part), "{error:?} does not contain {part:?}");
    };
    refused(&|f| fs::remove_file(f.join("t10k-labels-idx1-ubyte")).unwrap(), "no file t10k-labels-idx1-ubyte.gz or");
    refused(&|f| write(f, "train-labels-idx1-ubyte.gz", &idx_file(&[1], &[1])), "[1] labels for the 2 images");
    refused(&|f| write(f, "train-images-idx3-ubyte.gz", &idx_file(&[4], &[0; 4])), "1 dimensions, images have 3");
    refused(&|f| write(f, "t10k-images-idx3-ubyte", &idx_file(&[1, 1, 1], &[0])), "but test images of 1 pixels in 2");
    refused(
        &|f| write(f, "t10k-labels-idx1-ubyte", &idx_file(&[1], &[2])),
        "in 2 classes, but test images of 2 pixels in 3",
    );
    refused(&|f| write(f, "t10k-images-idx3-ubyte", &idx_file(&[1, 0, 2], &[])), "[1] labels for the 1 images of 0×2");
    refused(&|f| fs::write(f.join("train-images-idx3-ubyte.gz"), b"no gzip").unwrap(), "train-images-idx3-ubyte.gz: ");
    let nowhere = Images::folder(Some(Path::new("nowhere")), 100).err().expect("no such folder").to_string();
    assert!(nowhere.contains("nowhere: no file train-images-idx3-ubyte.gz"), "{nowhere}");
}

/// Debian's package, where it is installed; elsewhere the error says how to get it, and what to do without.
#[test]
fn the_package_is_read_or_named() {
    match Images::folder(None, 1000) {
        Ok(images) => {
            assert_eq!(
                (images.classes, images.train.inputs.dim(), images.test.labels.len()),
                (10, (1000, 784), 10_000)
            );
            assert_eq!(images.title, "Fashion-MNIST, 1000 of its 60000 training images");
            // a thousand for each class
            assert!((0..10).all(|class| images.test.labels.iter().filter(|&&label| label == class).count() == 1000));
        }
        Err(why) => {
            let why = why.to_string();
            let told = ["apt-get install dataset-fashion-mnist", "--data DIR", "--quick"];
            assert!(told.iter().all(|part| why.contains(part)), "{why}");
        }
    }
}

/// The quick form: every loss learns, the numbers fit together, and the report has all of it.
#[test]
fn every_loss_learns() {
    let images = Images::digits().unwrap();
    let protocol = Protocol { marks: vec![1, 10], shares: vec![0.3, 1.0], timing: (1, 64), ..Protocol::quick(1, 1) };
    let measure = || Results::measure(&Backend::cpu(), &images, protocol.clone()).unwrap();
    let results = measure();
    for (i, loss) in results.losses.iter().enumerate() {
        let [first, last] = &results.runs[i][0].marks[..] else { panic!("two marks") };
        assert!(last.top[0] >= 0.9 && last.top[0] >= first.top[0], "{}: {:?}", loss.title, last.top);
        assert!(last.top[1] >= last.top[0] && last.top[1] <= 1.0, "{}: {:?}", loss.title, last.top);
        // more images, as many epochs
        let [part, whole] = &results.shares[i][..] else { panic!("two shares") };
        assert!(whole[0] > part[0] && whole[0] == last.top[0], "{}: {part:?} {whole:?}", loss.title);
        let [train, test] = &results.runs[i][0].spread;
        assert!(train.w_inter == test.w_inter && train.wc_intra < train.c_inter, "{}", loss.title);
        // of eight prototypes, at most that of the corners of a simplex: arccos(-1/7), 1.714
        assert!((0.5..1.7145).contains(&train.w_inter), "{}: {}", loss.title, train.w_inter);
        assert!((report::bins(&last.own).iter().sum::<f64>() - 100.0).abs() < 1e-6);
    }
    let (page, tables) = (report::html(&results).unwrap(), report::tables(&results));
    assert!(tables.iter().all(|(title, header, rows)| {
        page.contains(title) && rows.len() == results.losses.len() && rows.iter().all(|row| row.len() == header.len())
    }));
    let json: serde_json::Value = serde_json::from_str(&report::json(&results)).unwrap();
    assert_eq!(json["losses"][2]["loss"], "ArcGrad");
    // everything but the times repeats bit for bit
    let again = measure();
    for (one, other) in results.runs.iter().flatten().zip(again.runs.iter().flatten()) {
        assert_eq!(one.marks[1].own, other.marks[1].own);
    }
    assert_eq!(results.shares, again.shares);
}

/// A share is the beginning of the images, and never empty.
#[test]
fn shares_are_prefixes() {
    let images = Images::digits().unwrap();
    let (all, tenth) = (images.share(1.0), images.share(0.1));
    assert_eq!(all.labels, images.train.labels);
    assert_eq!(tenth.labels, images.train.labels[..(images.train.labels.len() as f64 / 10.0).round() as usize]);
    assert_eq!(images.share(0.0).labels.len(), 1);
}
