//! The example `train` learns with every loss.
#![cfg(feature = "cpu")]

#[path = "../examples/train/choice.rs"]
mod choice;
#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the pages use the rest
mod common;
#[path = "../examples/train/metrics.rs"]
#[allow(dead_code)] // the page uses the rest
mod metrics;
#[path = "../examples/train/title.rs"]
mod title;
#[path = "../examples/train/training.rs"]
#[allow(dead_code)] // the page uses the rest
mod training;

use common::digits::{Digits, SEEN, UNSEEN};
use margin_softmax::{
    Backend, CenterLoss, MarginSoftmax, Regularizer,
    objective::{PRESETS, Ramp, Schedule, Schedules},
};
use metrics::score;
use training::{Loss, SETTINGS, Settings, train};

/// Every loss reaches 95 % on the test images and verifies unseen digits better than the untrained network.
#[test]
fn every_loss_learns() {
    let digits = Digits::load().unwrap();
    let backend = Backend::cpu();
    let untrained = SETTINGS.untrained();
    for Loss { name, loss, .. } in Loss::all() {
        let before = score(&backend, &loss, &untrained, &digits).unwrap();
        let run = train(&backend, &loss, &digits, &SETTINGS, |_| {}).unwrap();
        let after = score(&backend, &loss, &run.model, &digits).unwrap();
        assert!(after.accuracy >= 0.95, "{name}: accuracy {}", after.accuracy);
        assert!(after.eer < before.eer, "{name}: EER {}, untrained {}", after.eer, before.eer);
        assert!(after.m_intra() < after.m_inter(), "{name}: {} and {}", after.m_intra(), after.m_inter());
    }
}

/// Each image is in one part; no unseen digit is trained.
#[test]
fn the_parts_are_the_whole_file() {
    let digits = Digits::load().unwrap();
    let sizes = [&digits.train, &digits.test, &digits.unseen].map(|set| (set.inputs.nrows(), set.labels.len()));
    assert!(sizes.iter().all(|(images, labels)| images == labels));
    assert_eq!(sizes.iter().map(|(images, _)| images).sum::<usize>(), 1797);
    assert_eq!(sizes[2].0, 181 + 180); // fours and nines, counted in the file
    assert!(SEEN.iter().all(|digit| !UNSEEN.contains(digit)));
}

/// What no setting of the example makes learn as it is, and why; with its remedy it does.
const CANNOT: [(&str, &str); 1] =
    [("ampface", "an amplitude alone pushes the other classes harder than it pulls the own one: polar collapse")];

/// Every named loss as it is, with the scale and the margins of its paper, reaches 90 % in half the time.
#[test]
fn every_preset_learns() {
    let digits = Digits::load().unwrap();
    let backend = Backend::cpu();
    let settings = Settings { epochs: 30, ..SETTINGS };
    for preset in PRESETS {
        let (name, loss) = (preset.name, preset.loss());
        let run = train(&backend, &loss, &digits, &settings, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = score(&backend, &loss, &run.model, &digits).unwrap();
        assert!(run.course.losses.iter().all(|loss| loss.is_finite()), "{name}");
        match CANNOT.iter().find(|(cannot, _)| *cannot == name) {
            Some((_, why)) => {
                assert!(after.collapse.is_some() && after.accuracy < 0.9, "{name} learns after all: {why}")
            }
            None => assert!(after.accuracy >= 0.9 && after.collapse.is_none(), "{name}: accuracy {}", after.accuracy),
        }
    }
}

#[test]
fn sub_centers_learn() {
    let digits = Digits::load().unwrap();
    let (backend, loss) = (Backend::cpu(), MarginSoftmax::named("arcface_speaker").unwrap());
    let settings = Settings { epochs: 30, sub_centers: 3, ..SETTINGS };
    let run = train(&backend, &loss, &digits, &settings, |_| {}).unwrap();
    assert_eq!(run.model.prototypes.value.dim(), (3 * SEEN.len(), SETTINGS.dim));
    let after = score(&backend, &loss, &run.model, &digits).unwrap();
    assert!(after.accuracy >= 0.9, "accuracy {}", after.accuracy);
}

/// A name is a loss of this example or a preset as it is; anything else is JSON, in a file or not.
#[test]
fn a_loss_is_chosen_by_name_or_as_json() {
    assert_eq!(choice::parse("arcface").unwrap().loss.scale, 16.0);
    assert_eq!(choice::parse("magface").unwrap().loss, MarginSoftmax::magface());
    let unknown = choice::parse("arkface").unwrap_err();
    assert!(unknown.contains("neither") && unknown.contains("sphereface2"), "{unknown}");
    let json = r#"{"target": {"unified": {"m2": 0.4}}, "scale": 20}"#;
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), r#"{"preset": "arcface"}"#).unwrap();
    let [given, named] = [json, file.path().to_str().unwrap()].map(|text| choice::parse(text).unwrap().loss);
    assert_eq!(given, MarginSoftmax::unified(1.0, 1.0, 0.4, 0.0).with_scale(20.0));
    assert_eq!(named, MarginSoftmax::arcface());
    assert!(choice::parse(r#"{"preset": "arkface"}"#).unwrap_err().contains("arkface"));
}

/// A loss as JSON is called by what differs from the nearest preset, so that no two share a title.
#[test]
fn titles_tell_losses_apart() {
    let title = |text: &str| choice::parse(text).unwrap().title;
    let unified = |margins: &str| format!(r#"{{"target": {{"unified": {{{margins}}}}}}}"#);
    assert_eq!(title(&unified(r#""m2": 0.4"#)), "m2 0.4");
    // the fallback was hidden behind "JSON" and "JSON 2"
    let power = [r#""m1": 1.85"#, r#""m1": 1.85, "fallback": "mirror""#].map(unified);
    assert_eq!(title(&power[0]), "m1 1.85");
    assert_eq!(title(&power[1]), "fallback mirror, m1 1.85");
    let curricular = r#"{"target": {"unified": {"m2": 0.4, "fallback": "sine"}}, "others": "curricular"}"#;
    assert_eq!(title(curricular), "curricularface, m2 0.4");
    let series = r#"{"series": {"degree": 2, "coefficients": {"given": [1, 2, 3]}}}"#;
    let given = title(&unified(&format!(r#""m2": 0.2, "curve": {series}"#)));
    assert!(given.contains("given 3 values"), "{given}");
    for preset in PRESETS {
        assert_eq!(title::of(&preset.loss()).unwrap(), preset.name);
        assert_eq!(title(&serde_json::to_string(&preset.loss()).unwrap()), preset.name);
    }

    let folder = tempfile::tempdir().unwrap();
    let file = |part: &str, content: &str| {
        let path = folder.path().join(part).join("loss.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        choice::parse(path.to_str().unwrap()).unwrap()
    };
    let given =
        vec![file("a", &power[0]), file("b", &power[1]), file("c", &power[0]), choice::parse("arcface").unwrap()];
    let titles: Vec<String> = choice::distinct(given).unwrap().into_iter().map(|loss| loss.title).collect();
    let expected = ["loss: m1 1.85", "loss: fallback mirror, m1 1.85", "ArcFace"];
    assert_eq!(titles, expected);
}

#[test]
fn regularizers_centers_and_schedules_are_chosen_by_name_or_as_json() {
    assert_eq!(choice::regularizer("reg_ss"), Ok(Regularizer::reg_ss()));
    assert_eq!(choice::regularizer("uniform_face=100"), Ok(Regularizer::uniform_face().with_weight(100.0)));
    assert_eq!(choice::regularizer(r#"{"reg_ss": {"weight": 3}}"#), Ok(Regularizer::reg_ss().with_weight(3.0)));
    assert_eq!(choice::center("{}"), Ok(CenterLoss::default()));
    assert_eq!(choice::center("0.5"), Ok(CenterLoss { weight: 0.5, ..CenterLoss::default() }));
    assert_eq!(choice::center(r#"{"rate": 0.1}"#), Ok(CenterLoss { rate: 0.1, ..CenterLoss::default() }));
    let m2 = Schedule { start: 0.0, end: 0.3, from: 100, until: 500, ramp: Ramp::Exponential };
    let scale = Schedule { start: 8.0, end: 16.0, from: 0, until: 9, ramp: Ramp::Linear };
    let one = choice::schedules("m2=0..0.3@100..500").unwrap();
    let two =
        choice::schedules(r#"{"scale": {"start": 8, "end": 16, "from": 0, "until": 9, "ramp": "linear"}}"#).unwrap();
    assert_eq!(one, Schedules { m2: Some(m2), ..Schedules::default() });
    assert_eq!(choice::schedules("scale=8.0..16@0..9:linear"), Ok(two));
    let both = Schedules { m2: Some(m2), scale: Some(scale), ..Schedules::default() };
    assert_eq!(choice::merged(&[one, two]).unwrap(), Some(both));
    assert_eq!(choice::merged(&[]).unwrap(), None);
}

/// Each is refused with its reason before anything is trained.
#[test]
fn wrong_companions_are_refused() {
    let refused = [
        (choice::regularizer("reg_s").unwrap_err(), "reg_ss, uniform_face"),
        (choice::regularizer("reg_ss=much").unwrap_err(), "`much` is no number"),
        (choice::regularizer("reg_ss=-1").unwrap_err(), "`weight` is -1"),
        (choice::regularizer(r#"{"reg_ss": []}"#).unwrap_err(), "`reg_ss` is a list"),
        (choice::center("0").unwrap_err(), "`weight` is 0"),
        (choice::center(r#"{"alpha": 1}"#).unwrap_err(), "alpha"),
        (choice::schedules("m2").unwrap_err(), "NAME=START..END@FROM..UNTIL"),
        (choice::schedules("m5=0..1@0..1").unwrap_err(), "m0, m1, m2, m3, margin, scale"),
        (choice::schedules("m2=0..1@0..1:cubic").unwrap_err(), "linear, exponential"),
        (choice::schedules("m2=0..1@0.5..1").unwrap_err(), "`0.5` is no number of a training step"),
        (choice::schedules("m2=0..1@2..1").unwrap_err(), "until >= from"),
    ];
    for (found, expected) in refused {
        assert!(found.contains(expected), "{found}");
    }
    let m2 = choice::schedules("m2=0..0.3@1..5").unwrap();
    let twice = choice::merged(&[m2, m2]).unwrap_err().to_string();
    assert!(twice.contains("`m2` has two schedules"), "{twice}");
    let check = |settings: Settings, name: &str| settings.check(&Loss::named(name).unwrap()).unwrap_err().to_string();
    let of_arcgrad = check(Settings { schedules: Some(m2), ..SETTINGS }, "arcgrad");
    assert!(of_arcgrad.starts_with("arcgrad: ") && of_arcgrad.contains("m0..m3"), "{of_arcgrad}");
    // refused for where it ends, not for where it begins
    let scale = choice::schedules("scale=8..0@1..5").unwrap();
    let below = check(Settings { schedules: Some(scale), ..SETTINGS }, "arcface");
    assert!(below.contains("`scale` is 0"), "{below}");
    let regularizer = Some(Regularizer::reg_ss());
    let centers = check(Settings { regularizer, sub_centers: 2, ..SETTINGS }, "arcface");
    assert!(centers.contains("--sub-centers"), "{centers}");
}

/// A schedule that has ended, a regulariser and a center loss each do in training what they are for.
#[test]
fn companions_take_part_in_training() {
    let (digits, backend) = (Digits::load().unwrap(), Backend::cpu());
    let few = Settings { epochs: 4, ..SETTINGS };
    let run = |loss: &MarginSoftmax, settings: &Settings| train(&backend, loss, &digits, settings, |_| {}).unwrap();
    // a schedule that is over at its first step is the loss itself, one that begins elsewhere is another run
    let (normface, arcface) = (MarginSoftmax::normface().with_scale(16.0), Loss::named("arcface").unwrap().loss);
    let alone = run(&arcface, &few).model.prototypes.value;
    let over = choice::schedules("m2=0..0.3@0..0").unwrap();
    let later = choice::schedules("m2=0..0.3@20..40").unwrap();
    let scheduled = |schedules| run(&normface, &Settings { schedules: Some(schedules), ..few }).model.prototypes.value;
    assert_eq!(scheduled(over), alone);
    assert_ne!(scheduled(later), alone);
    // tables show the loss as it ends, which trains to the same bits
    let settings = Settings { schedules: Some(later), ..few };
    let ended = settings.ended(Loss { name: String::new(), title: String::new(), loss: normface.clone() }).unwrap();
    assert_eq!(ended.loss, normface.clone().with_margin(|m| m.m2 = 0.3));
    assert_eq!(run(&ended.loss, &settings).model.prototypes.value, scheduled(later));

    // Reg_ss balances the prototypes
    let spread = |settings: &Settings| {
        let model = run(&arcface, settings).model;
        backend.mean_prototype(SETTINGS.dim, common::learner::flat(&model.prototypes.value)).unwrap()
    };
    let regularizer = Some(Regularizer::reg_ss().with_weight(10.0));
    let (plain, balanced) = (spread(&few), spread(&Settings { regularizer, ..few }));
    assert!(balanced < 0.9 * plain, "{balanced} and {plain}");

    // the center loss draws embeddings to their centers, and so together
    let softmax = MarginSoftmax::softmax();
    let length = |settings: &Settings| {
        let embeddings = run(&softmax, settings).model.embed(&digits.test);
        embeddings.iter().map(|x| x * x).sum::<f32>()
    };
    let center = Some(CenterLoss { weight: 1.0, ..CenterLoss::default() });
    let (free, drawn) = (length(&few), length(&Settings { center, ..few }));
    assert!(drawn < 0.9 * free, "{drawn} and {free}");
}
