//! The example `verify`: lists in all three formats to measures and pictures, and what is wrong with a list.
#![cfg(feature = "cpu")]

#[path = "../examples/verify/command.rs"]
mod command;
#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the other examples use the rest
mod common;
#[path = "../examples/verify/drawings.rs"]
mod drawings;
#[path = "../examples/verify/embeddings.rs"]
mod embeddings;
#[path = "../examples/verify/measures.rs"]
mod measures;
#[path = "../examples/verify/scoring.rs"]
mod scoring;
#[path = "../examples/verify/templates.rs"]
mod templates;
#[path = "../examples/verify/trials.rs"]
mod trials;

use std::{fmt::Write, fs, path::Path};

use approx::assert_abs_diff_eq;
use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// Dimensions of the embeddings.
const DIM: usize = 16;

/// A safetensors file with rows around the given centers.
fn write_embeddings(path: &Path, rows: &[Vec<f32>]) {
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![rows.len(), rows[0].len()], &bytes).unwrap();
    fs::write(path, safetensors::serialize([("embeddings", view)], None).unwrap()).unwrap();
}

fn noise(rng: &mut ChaCha8Rng, size: f32) -> Vec<f32> {
    (0..DIM).map(|_| size * rng.random_range(-1.0..1.0)).collect()
}

/// `people` centers with `each` rows around every one of them, and the names of the rows.
fn people(people: usize, each: usize) -> (Vec<Vec<f32>>, Vec<String>) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut rows, mut names) = (vec![], vec![]);
    for person in 0..people {
        let center = noise(&mut rng, 1.0);
        for item in 1..=each {
            rows.push(center.iter().zip(noise(&mut rng, 0.9)).map(|(c, n)| c + n).collect());
            names.push(format!("person{person}_{item:04}"));
        }
    }
    (rows, names)
}

/// A folder with embeddings and their names.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (rows, names) = people(20, 6);
    write_embeddings(&dir.path().join("e.safetensors"), &rows);
    fs::write(dir.path().join("e.txt"), names.join("\n") + "\n").unwrap();
    dir
}

/// Runs the program on a list.
fn run(dir: &TempDir, format: &str, list: &str, more: &[&str]) -> Result<Value, String> {
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("list"), list).unwrap();
    let (trials, embeddings, out) = (at("list"), at("e.safetensors"), at("out"));
    let arguments = ["verify", "--device", "cpu", "--format", format, "--trials", &trials, "--embeddings", &embeddings];
    let arguments = arguments.into_iter().chain(["--out", &out]).chain(more.iter().copied());
    let arguments = command::Args::try_parse_from(arguments).map_err(|e| e.to_string())?;
    command::run(&arguments).map_err(|e| e.to_string())?;
    Ok(serde_json::from_str(&fs::read_to_string(dir.path().join("out/results.json")).unwrap()).unwrap())
}

/// All pairs of the items, as VoxCeleb has them.
fn voxceleb() -> String {
    let (_, names) = people(20, 6);
    let mut list = String::new();
    for (i, a) in names.iter().enumerate() {
        for (j, b) in names.iter().enumerate().skip(i + 1) {
            writeln!(list, "{} {a} {b}", u8::from(i / 6 == j / 6)).unwrap();
        }
    }
    list
}

#[test]
fn voxceleb_with_a_cohort() {
    let dir = folder();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let cohort: Vec<Vec<f32>> = (0..200).map(|_| noise(&mut rng, 1.0)).collect();
    let path = dir.path().join("cohort.safetensors");
    write_embeddings(&path, &cohort);
    let found = run(&dir, "voxceleb", &voxceleb(), &["--cohort", path.to_str().unwrap(), "--top", "100"]).unwrap();
    let [cosine, normalised] = [0, 1].map(|at| &found["measures"][at]);
    assert_eq!((&cosine["scores"], &normalised["scores"]), (&"cosine".into(), &"as-norm".into()));
    // every pair's cosine in f64, and the rate by trying all thresholds
    let (rows, _) = people(20, 6);
    let unit: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|&x| f64::from(x) / length).collect()
        })
        .collect();
    let mut pairs = vec![];
    for i in 0..rows.len() {
        for j in i + 1..rows.len() {
            pairs.push((unit[i].iter().zip(&unit[j]).map(|(a, b)| a * b).sum::<f64>(), i / 6 == j / 6));
        }
    }
    let share = |same: bool, at: f64| {
        let own = pairs.iter().filter(|pair| pair.1 == same);
        own.clone().filter(|pair| pair.0 >= at).count() as f64 / own.count() as f64
    };
    let gaps = pairs.iter().map(|pair| (share(false, pair.0), 1.0 - share(true, pair.0)));
    let (far, frr) = gaps.min_by(|a, b| (a.0 - a.1).abs().total_cmp(&(b.0 - b.1).abs())).unwrap();
    let eer = cosine["equal_error_rate"].as_f64().unwrap();
    // between the two rates where they are nearest, but for one pair of 300
    assert!((0.02..0.4).contains(&eer) && (eer - (far + frr) / 2.0).abs() < 1.0 / 300.0, "{eer}, {far}, {frr}");
    assert!(normalised["equal_error_rate"].as_f64().unwrap() < 0.4);
    assert!(cosine["true_accept_rates"][0]["tar"].is_null(), "too few pairs for one in a million");
    assert!(cosine["true_accept_rates"][5]["tar"].as_f64().unwrap() > 0.3);
    let page = fs::read_to_string(dir.path().join("out/report.html")).unwrap();
    assert!(page.contains("7140 pairs, 300 of the same"), "the page names its trials");
    for name in ["roc.svg", "det.svg"] {
        let svg = fs::read_to_string(dir.path().join("out").join(name)).unwrap();
        assert!(svg.starts_with("<svg xmlns") && svg.contains("polyline") && svg.contains("as-norm"), "{name}");
    }
}

#[test]
fn lfw_in_folds() {
    let dir = folder();
    let mut list = String::from("2\t3\n");
    for fold in 0..2 {
        (0..3).for_each(|i| writeln!(list, "person{}\t1\t{}", 3 * fold + i, i + 2).unwrap());
        (0..3).for_each(|i| writeln!(list, "person{}\t1\tperson{}\t2", 3 * fold + i, 10 + i).unwrap());
    }
    let found = run(&dir, "lfw", &list, &[]).unwrap();
    assert_eq!(found["measures"][0]["fold_accuracy"]["folds"].as_array().unwrap().len(), 2);
    assert!(found["measures"][0]["fold_accuracy"]["mean"].as_f64().unwrap() > 0.5);
    // one number: a list without folds
    let single = list.replacen("2\t3", "3", 1).lines().take(7).collect::<Vec<_>>().join("\n");
    assert!(run(&dir, "lfw", &single, &[]).unwrap()["measures"][0]["fold_accuracy"].is_null());

    let lines: Vec<&str> = list.lines().collect();
    let without_last = lines[..12].join("\n");
    let exchanged = list.replacen("person0\t1\t2", "person0\t1\tperson1\t2", 1);
    for (wrong, expected) in [
        (String::new(), "list: an empty list"),
        (list.replacen("2\t3", "two 3", 1), "list:1: `two 3`, expected FOLDS PAIRS"),
        (list.replacen("2\t3", "0 3", 1), "list:1: `0 3`"),
        (without_last, "list:12: the list ends after 11 of 12 pairs"),
        (list.clone() + "person0 1 2\n", "list:14: more pairs than the 2 · 2 · 3"),
        (exchanged, "list:2: 4 columns, expected NAME N1 N2 for a same pair of fold 1"),
        (list.replacen("person0\t1\t2", "person0\t1\t9", 1), "list:2: `person0_0009` has no embedding"),
        (list.replacen("person0\t1\t2", "person0\t1\tx", 1), "list:2: `x` is no number of an image"),
    ] {
        let found = run(&dir, "lfw", &wrong, &[]).unwrap_err();
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
}

#[test]
fn ijb_templates_are_pooled() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    // template 1 has one photograph and a video of two frames, 2 another photograph of the same person
    write_embeddings(
        &at("e.safetensors"),
        &[vec![2.0, 0.0], vec![0.0, 3.0], vec![0.0, 1.0], vec![1.0, 1.0], vec![-1.0, 0.1]],
    );
    fs::write(at("e.txt"), "a\nb\nc\nd\ne\n").unwrap();
    fs::write(at("meta"), "a 1 10\nb 1 11\nc 1 11\nd 2 12\ne 3 13\n").unwrap();
    let meta = at("meta");
    let names = embeddings::Names::read(&at("e.txt"), 5).unwrap();
    let (pooled, names) =
        templates::pooled(&meta, &embeddings::Embeddings::read(&at("e.safetensors")).unwrap(), &names).unwrap();
    let own = pooled.row(names.row("1").unwrap());
    assert_abs_diff_eq!(own[0], 0.5);
    assert_abs_diff_eq!(own[1], 0.5);
    let templates = ["--templates", meta.to_str().unwrap()];
    let found = run(&dir, "ijb", "1 2 1\n1 3 0\n", &templates).unwrap();
    assert_eq!(found["measures"][0]["equal_error_rate"], 0.0);
    for (list, expected) in [
        ("1 2 1\n1 4 0\n", "list:2: `4` has no embedding"),
        ("1 2 yes\n", "list:1: the label is `yes`, expected 0 or 1"),
        ("1 2\n", "list:1: 2 columns, expected TEMPLATE1 TEMPLATE2 LABEL"),
    ] {
        let found = run(&dir, "ijb", list, &templates).unwrap_err();
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
    assert!(run(&dir, "ijb", "1 2 1\n", &[]).unwrap_err().contains("needs --templates"));
    assert!(run(&dir, "voxceleb", "1 a b\n", &templates).unwrap_err().contains("--format ijb only"));
    for (text, expected) in
        [("a 1\n", "meta:1: 2 columns"), ("a 1 1\nz 1 1\n", "meta:2: `z` has no"), ("\n", "no template")]
    {
        fs::write(&meta, text).unwrap();
        assert!(run(&dir, "ijb", "1 2 1\n", &templates).unwrap_err().contains(expected), "{expected}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let dir = folder();
    let check = |list: &str, expected: &str| {
        let found = run(&dir, "voxceleb", list, &[]).unwrap_err();
        assert!(found.contains(expected), "{found}, expected {expected}");
    };
    let good = "1 person0_0001 person0_0002\n0 person0_0001 person1_0001\n";
    check("", "list: no pair in the list");
    check("1\n", "list:1: 1 columns, expected LABEL ENROLLED TESTED");
    check(&format!("{good}\n2 person0_0001 person1_0001\n"), "list:4: the label is `2`");
    check("1 person0_0001 nobody\n", "list:1: `nobody` has no embedding");
    check("1 person0_0001 person0_0002\n", "of 1 pairs 1 are of the same identity");
    check("0 person0_0001 person1_0002\n", "of 1 pairs 0 are of the same identity");
    let at = |name: &str| dir.path().join(name);
    let names = |text: &str, expected: &str| {
        fs::write(at("names"), text).unwrap();
        let found = run(&dir, "voxceleb", good, &["--names", at("names").to_str().unwrap()]).unwrap_err();
        assert!(found.contains(expected), "{found}, expected {expected}");
    };
    names("a\nb\na\n", "names:3: `a` is on line 1 already");
    names("a\n\nb\n", "names:2: a line without a name");
    names("a\nb\n", "2 names, but there are 120 embeddings");
    let cohort = |rows: &[Vec<f32>], more: &[&str]| {
        write_embeddings(&at("c.safetensors"), rows);
        let path = at("c.safetensors");
        let arguments: Vec<&str> =
            ["--cohort", path.to_str().unwrap()].into_iter().chain(more.iter().copied()).collect();
        run(&dir, "voxceleb", good, &arguments).unwrap_err()
    };
    assert!(cohort(&[vec![1.0; 3]], &[]).contains("the cohort has 3 dimensions, the embeddings 16"));
    assert!(cohort(&[vec![1.0; DIM], vec![-1.0; DIM]], &["--top", "3"]).contains("`count` is 3"));
    assert!(cohort(&[vec![1.0; DIM], vec![1.0; DIM]], &[]).contains("all equal"));
    assert!(run(&dir, "voxceleb", good, &["--top", "3"]).unwrap_err().contains("--cohort"));
    // the embeddings come last: the file is overwritten
    for (rows, expected) in
        [(vec![vec![f32::NAN; 2]], "row 0 of `embeddings` has NaN"), (vec![vec![]], "has shape [1, 0]")]
    {
        write_embeddings(&at("e.safetensors"), &rows);
        let found = run(&dir, "voxceleb", good, &[]).unwrap_err();
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
    fs::write(at("e.safetensors"), "no tensors").unwrap();
    assert!(run(&dir, "voxceleb", good, &[]).unwrap_err().contains("not a safetensors file"));
    fs::remove_file(at("e.safetensors")).unwrap();
    assert!(run(&dir, "voxceleb", good, &[]).is_err());
}

/// Known to these digits.
#[test]
fn normal_deviates() {
    for (p, expected) in [(0.5, 0.0), (0.975, 1.959_963_985), (0.01, -2.326_347_874), (1e-6, -4.753_424_309)] {
        assert_abs_diff_eq!(drawings::probit(p), expected, epsilon = 1e-8);
    }
}
