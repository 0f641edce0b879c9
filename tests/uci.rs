//! The example `uci`: its data is what it claims to be, and every loss learns in a small run.
#![cfg(feature = "cpu")]

#[path = "../examples/uci/collapse.rs"]
#[allow(dead_code)] // the report uses the rest
mod collapse;
#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the pages use the rest
mod common;
#[path = "../examples/uci/data/mod.rs"]
mod data;
#[path = "../examples/uci/experiments.rs"]
#[allow(dead_code)] // the command line uses the rest
mod experiments;
#[path = "../examples/uci/losses.rs"]
#[allow(dead_code)] // the report uses the rest
mod losses;
#[path = "../examples/uci/report/mod.rs"]
mod report;
#[path = "../examples/uci/scales.rs"]
mod scales;
#[path = "../examples/uci/validation.rs"]
mod validation;

use approx::assert_abs_diff_eq;
use common::{
    digits::Digits,
    learner::{self, Model, Objective, Settings, Sizes},
    runs::mean_deviation,
};
use data::{Problem, balance_scale, embedded, folder, iris};
use experiments::{Cell, DEEPEST, Results, Wanted};
use margin_softmax::Backend;
use ndarray::Axis;
use validation::{Dealing, EPOCHS, Protocol, deal};

const NOTHING: Wanted = Wanted { table: false, depth: false, scales: false, collapse: false };
const PROTOCOL: Protocol = Protocol { folds: 3, dealing: Dealing::Random, repeats: 1, epochs: EPOCHS, seed: 1 };

/// Three folds once: every loss is right on 90 % of the flowers and 80 % of the scales, on every set better than or close to the
/// largest class, and the report has all of it.
#[test]
fn every_loss_learns() {
    let wanted = Wanted { table: true, ..NOTHING };
    let results = Results::measure(&Backend::cpu(), PROTOCOL, &embedded().unwrap(), wanted).unwrap();
    let table = &results.table;
    assert_eq!(table.iter().map(|line| line.name).collect::<Vec<_>>(), losses::EIGHT[..6]);
    for (i, entry) in results.entries.iter().enumerate() {
        for line in table {
            let Some(mean) = line.mean(i) else {
                assert!(entry.title == "AdaCos" && line.classes == 2, "{}: {}", entry.title, line.name);
                continue;
            };
            assert!(entry.title != "AdaCos" || line.classes > 2, "AdaCos with two classes");
            // one of three folds of 150 flowers may be unlucky, chance is a third
            let least = match line.name {
                "Iris" => 90.0,
                "Balance Scale" => 80.0,
                "Teaching Assistant" => 40.0,
                _ => line.majority - 12.0,
            };
            assert!(mean >= least, "{}: {mean} % on {}", entry.title, line.name);
            let Cell::Measured { repeats, folds } = &line.cells[i] else { panic!("measured") };
            assert_eq!((repeats.len(), folds.len()), (1, 3));
            assert_abs_diff_eq!(folds.iter().sum::<f64>() / 3.0, mean, epsilon = 0.7); // folds differ by a row
        }
    }
    assert_eq!(results.wins().len(), results.entries.len());
    assert!(results.wins().iter().sum::<usize>() >= table.len() && results.eight().is_none());
    let (page, json) = (report::html(&results).unwrap(), report::json(&results));
    let tables = report::tables(&results);
    assert!(tables.iter().all(|(_, header, rows)| rows.iter().all(|row| row.len() == header.len())));
    let titles: Vec<_> = tables[2].2.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(titles[..3], ["Iris", "  published", "Balance Scale"]);
    assert_eq!(titles[titles.len() - 2..], ["Average", "Wins"]);
    assert!(tables[2].2[6].contains(&"refused".to_string()), "AdaCos on Haberman: {:?}", tables[2].2[6]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["table"][1]["losses"][0]["published"], 89.65);
    assert!(results.entries.iter().all(|entry| page.contains(entry.title)));
    assert!(report::protocol(&results).contains("1 × 3-fold cross-validation, random folds"));
}

/// The paper's equations of softmax, center loss and M-Softmax have no bias: none of the table's losses learns one, and with
/// one a linear head would.
#[test]
fn no_loss_learns_a_bias() {
    let set = iris().unwrap().set;
    let sizes = Sizes { lengths: vec![4, 16], classes: 3, sub_centers: 1 };
    let settings = Settings { epochs: 1, batch: 50, rate: 0.01, seed: 1 };
    let learnt = |objective: &Objective| {
        let mut most = 0;
        let mut model = Model::untrained(&sizes, 1);
        let watch = |step: &learner::Step<'_>| {
            most = most.max(step.out.grad_bias.len());
            Ok(())
        };
        learner::train(&Backend::cpu(), objective, &mut model, &set, &settings, watch).unwrap();
        most
    };
    for entry in losses::entries() {
        assert_eq!(learnt(&entry.objective), 0, "{}", entry.title);
    }
    let softmax = &losses::entries()[0].objective;
    assert_eq!(learnt(&Objective { bias: true, ..softmax.clone() }), 3);
}

/// Few epochs: ten depths of every loss on both sets, with the accuracy of a coin of three sides or better.
#[test]
fn the_sweep_goes_to_ten_layers() {
    let protocol = Protocol { folds: 2, epochs: 4, ..PROTOCOL };
    let wanted = Wanted { depth: true, scales: true, ..NOTHING };
    let results = Results::measure(&Backend::cpu(), protocol, &[], wanted).unwrap();
    assert_eq!((results.depth.len(), DEEPEST), (2, 10));
    for (_, sweep) in &results.depth {
        assert_eq!(sweep.len(), results.entries.len());
        for depths in sweep {
            assert_eq!(depths.len(), DEEPEST);
            assert!(
                depths.iter().all(|runs| runs.as_ref().is_some_and(|v| v.len() == 1 && (0.0..=100.0).contains(&v[0])))
            );
        }
    }
    // the gap falls as the scale grows, in the formula; for three classes it is 84° and 2° in the paper
    let predicted: Vec<f64> = results.scales.iter().map(|gaps| gaps.predicted.round()).collect();
    assert_eq!((predicted[0], *predicted.last().unwrap()), (84.0, 2.0));
    for gaps in &results.scales {
        assert!(gaps.measured.len() == 150 && gaps.measured.iter().all(|gap| (-180.0..=180.0).contains(gap)));
    }
    assert_eq!(report::tables(&results).len(), 3);
    assert!(report::html(&results).unwrap().contains("soft margin"));
}

/// Alone the images flee their prototypes, and the detector warns; with either remedy of the paper they do not, and it is
/// silent, unless the remedy is so weak that they come back only after the warm-up.
#[test]
fn polar_collapse_has_remedies() {
    let (backend, digits) = (Backend::cpu(), Digits::load().unwrap());
    for (i, run) in collapse::variants().iter().enumerate() {
        let trace = collapse::watch(&backend, &digits, run, 1).unwrap();
        let [cosine, length] = trace.steps().last().unwrap();
        if i == 0 {
            assert!(cosine < -0.2 && trace.accuracy < 0.6, "{cosine}, {}", trace.accuracy);
            assert!(trace.warned.is_some(), "no warning");
        } else {
            assert!(cosine > 0.0 && trace.accuracy > 0.9, "{}: {cosine}, {}", trace.title, trace.accuracy);
            assert!(trace.warned.is_none() || trace.title == "Reg_ss, λ = 1", "{}: {:?}", trace.title, trace.warned);
        }
        assert!((0.0..=1.0).contains(&length));
    }
}

/// Counts and means as published with the data.
#[test]
fn the_data_is_complete() {
    let count = |labels: &[u32]| [0, 1, 2].map(|class| labels.iter().filter(|&&label| label == class).count());
    let iris = iris().unwrap();
    assert_eq!((iris.set.inputs.dim(), count(&iris.set.labels)), ((150, 4), [50; 3]));
    let means = iris.set.inputs.mapv(f64::from).mean_axis(Axis(0)).unwrap();
    for (found, known) in means.iter().zip([5.843, 3.057, 3.758, 1.199]) {
        assert_abs_diff_eq!(*found, known, epsilon = 5e-4); // known to three digits
    }
    let scales = balance_scale();
    assert_eq!((scales.set.inputs.dim(), count(&scales.set.labels)), ((625, 4), [288, 49, 288]));
    assert_eq!(scales.set.inputs.row(1).to_vec(), [1.0, 1.0, 1.0, 2.0]);
    assert_eq!(scales.set.labels[..2], [1, 2]); // in balance, to the right
}

/// Sizes as the paper has them; class counts as counted in the packages.
#[test]
fn the_other_sets_are_complete() {
    let counts = |problem: &Problem| {
        let count = |class| problem.set.labels.iter().filter(|&&label| label == class).count();
        (0..problem.classes as u32).map(count).collect::<Vec<_>>()
    };
    let all = embedded().unwrap();
    let found: Vec<_> = all[2..].iter().map(|p| (p.name, p.set.inputs.ncols(), counts(p))).collect();
    let expected = [
        ("Hayes-Roth", 3, vec![65, 64, 31]),
        ("Teaching Assistant", 5, vec![49, 50, 52]),
        ("Haberman", 3, vec![225, 81]),
        ("Pima", 8, vec![262, 130]),
    ];
    assert_eq!(found, expected);
    assert_abs_diff_eq!(all[4].majority(), 225.0 / 306.0);
    // the first line of each
    let first = |i: usize| all[i].set.inputs.row(0).to_vec();
    assert_eq!((first(2), first(3)), (vec![1.0, 1.0, 2.0], vec![1.0, 23.0, 3.0, 1.0, 19.0]));
    assert_eq!((first(4), first(5)), (vec![38.0, 59.0, 2.0], vec![1.0, 89.0, 66.0, 23.0, 94.0, 28.1, 0.167, 21.0]));
}

/// A line of the votes: the class, then 16 votes.
fn votes(class: &str, vote: &str) -> String {
    format!("{class}{}\n", format!(",{vote}").repeat(16))
}

/// Files as UCI has them are read, rows with a "?" are left out, and sets whose files are not there are named.
#[test]
fn a_folder_is_read() {
    let path = tempfile::tempdir().unwrap();
    let write = |name: &str, content: String| std::fs::write(path.path().join(name), content).unwrap();
    let complete = votes("republican", "n").repeat(108) + &votes("democrat", "y").repeat(124);
    write("house-votes-84.data", votes("democrat", "?") + &complete);
    let patients: String =
        (0..194).map(|i| format!("{i},{},{}\n", if i < 46 { "R" } else { "N" }, ["7.5"; 33].join(","))).collect();
    write("wpbc.data", format!("1000,N,{},?\n{patients}", ["7.5"; 32].join(",")));
    let spine = |class: &str, count: usize| format!("1 2 3 4 5 -6.5 {class}\n").repeat(count);
    write("column_3C.dat", spine("DH", 60) + &spine("SL", 150) + &spine("NO", 100));
    let site = |class: &str, count: usize| format!("1,-1,0,1,1,1,1,1,1,{class}\n").repeat(count);
    let header = "@relation phishing\n@attribute SFH {1,-1,0}\n@DATA\n% a comment\n";
    write("PhishingData.arff", format!("{header}{}{}{}", site("-1", 702), site("0", 103), site("1", 548)));
    let plot = |class: &str, count: usize| format!("{class} {}\n", ",3".repeat(27)).repeat(count);
    let (trained, tested) = (plot("d", 100) + &plot("h", 98), plot("s", 200) + &plot("o", 125));
    write("training.csv", format!("class{}\n{trained}", ",b".repeat(27)));
    write("testing.csv", format!("class{}\n{tested}", ",b".repeat(27)));
    write("BreastTissue.xls", String::new());

    let (problems, missing) = folder(path.path()).unwrap();
    let sizes: Vec<_> = problems.iter().map(|p| (p.name, p.set.inputs.dim(), p.classes)).collect();
    let expected = [
        ("Votes", (232, 16), 2),
        ("WPBC", (194, 33), 2),
        ("Vertebral", (310, 6), 3),
        ("Phishing", (1353, 9), 3),
        ("Forest", (523, 27), 4),
    ];
    assert_eq!(sizes, expected);
    assert_eq!(missing.len(), 9 - expected.len());
    assert!(
        missing.iter().any(|why| why.contains("Banknote: no file data_banknote_authentication.txt")),
        "{missing:?}"
    );
    assert!(missing.iter().any(|why| why.contains("BreastTissue.xls is a spreadsheet")), "{missing:?}");
    // classes in the order of their names: democrat, republican
    assert_eq!((problems[0].set.labels[0], problems[0].set.inputs[[0, 0]]), (1, 0.0));
    assert_eq!(problems[2].set.inputs[[0, 5]], -6.5);
}

#[test]
fn a_folder_that_does_not_fit_is_refused() {
    let refused = |files: &[(&str, String)], part: &str| {
        let path = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| std::fs::write(path.path().join(name), content).unwrap());
        let error = folder(path.path()).err().expect(part).to_string();
        assert!(error.contains(part), "{error:?} does not contain {part:?}");
    };
    refused(&[], "none of the data sets is there. Votes: no file house-votes-84.data");
    refused(&[("training.csv", String::new())], "Forest: no file testing.csv");
    let votes_file = |content: String| [("house-votes-84.data", content)];
    refused(&votes_file(votes("democrat", "y") + "democrat,y\n"), "house-votes-84.data, line 2: 2 values, expected 17");
    refused(&votes_file(votes("democrat", "maybe")), "line 1: \"maybe\" is no number");
    refused(&votes_file(votes("democrat", "inf")), "line 1: \"inf\" is no number");
    refused(&votes_file(votes("", "y")), "line 1: the class is empty");
    refused(
        &votes_file(votes("democrat", "y").repeat(232)),
        "232 complete rows of 1 classes, but Votes has 232 complete",
    );
    let nowhere = folder(std::path::Path::new("nowhere")).err().expect("no such folder").to_string();
    assert_eq!(nowhere, "--data nowhere: no such folder");
}

/// Every row is in one fold, and each fold has its share of every class.
#[test]
fn folds_are_stratified() {
    let labels = balance_scale().set.labels;
    let deal = |seed| deal(Dealing::Stratified, &labels, 3, 10, seed);
    let folds = deal(1);
    assert_ne!(folds, deal(2));
    for (class, size) in [288, 49, 288].into_iter().enumerate() {
        for fold in 0..10 {
            let own = (0..625).filter(|&row| folds[row] == fold && labels[row] as usize == class).count();
            assert!(own == size / 10 || own == size / 10 + 1, "class {class}, fold {fold}: {own}");
        }
    }
}

/// Folds of one size, not of one mixture: with 49 scales in balance some fold has more than its tenth, or fewer.
#[test]
fn folds_are_random() {
    let labels = balance_scale().set.labels;
    let deal = |seed| deal(Dealing::Random, &labels, 3, 10, seed);
    let folds = deal(1);
    assert_ne!(folds, deal(2));
    assert_eq!(folds, deal(1));
    let sizes = (0..10).map(|fold| folds.iter().filter(|&&own| own == fold).count());
    assert!(sizes.clone().sum::<usize>() == 625 && sizes.clone().all(|size| size == 62 || size == 63));
    let balanced = |fold: usize| (0..625).filter(|&row| folds[row] == fold && labels[row] == 1).count();
    assert!((0..10).any(|fold| !(4..=5).contains(&balanced(fold))), "a random deal is uneven");
}

/// The test part is measured with the mean and the deviation of the training part.
#[test]
fn inputs_are_standardised_on_the_training_part() {
    let all = iris().unwrap().set;
    let [train, test] = all.select(&(0..100).collect::<Vec<_>>()).standardised(all.select(&[120]));
    for column in train.inputs.columns() {
        assert_abs_diff_eq!(column.mean().unwrap(), 0.0, epsilon = 1e-4); // 100 roundings of f32
        assert_abs_diff_eq!(column.std(0.0), 1.0, epsilon = 1e-4);
    }
    assert!(test.inputs[[0, 2]] > 1.0, "the third species has the longest petals");
}

/// Worked by hand.
#[test]
fn mean_and_deviation() {
    assert_eq!(mean_deviation(&[90.0]), (90.0, None));
    assert_eq!(mean_deviation(&[1.0, 3.0]), (2.0, Some(2_f64.sqrt())));
}
