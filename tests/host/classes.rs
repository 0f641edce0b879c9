//! Classes that come and go: values by hand, errors, and training that goes on.

use std::f64::consts::PI;

use margin_softmax::{
    Backend, Batch, Error, MarginSoftmax, Margins, Shape, State,
    checkpoint::Checkpoint,
    classes::{ClassMap, CountMargins, NewPrototypes, OUTLIER_ANGLE, PrototypeLength, SubCenters},
    monitor::ClassCenters,
};

use crate::common::*;

fn thin(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn shape(classes: usize, sub_centers: usize, dim: usize) -> Shape {
    Shape::new(8, classes, dim).and_then(|shape| shape.with_sub_centers(sub_centers)).unwrap()
}

/// Of 41 classes and five values, rows of the classes from `first` on.
fn centers_of(first: usize, count: usize) -> (ClassCenters, Vec<f32>, Vec<usize>) {
    let labels: Vec<usize> = (0..count).map(|i| first + i % (41 - first)).collect();
    let embeddings = thin(&uniform(&mut random(5), count * 5));
    let mut centers = ClassCenters::new(41, 5).unwrap();
    centers.add_directions(&embeddings, &labels, None).unwrap();
    (centers, embeddings, labels)
}

/// Directions, not lengths: 3:4 and 0:1 have the mean (0.3, 0.9), whatever their lengths; one of zeros adds to none.
#[test]
fn directions_count_alike() {
    let mut centers = ClassCenters::new(2, 2).unwrap();
    centers.add_directions(&[300.0, 400.0, 0.0, 1e-3, 0.0, 0.0, f32::NAN, 1.0], &[1, 1, -1, 1], Some(-1)).unwrap();
    assert_eq!((centers.classes(), centers.vectors()), (vec![1], vec![0.3, 0.9]));
    centers.add_directions(&[0.0_f32, 0.0], &[1], None).unwrap();
    all_close("with zeros", &wide(&centers.vectors()), &[0.2, 0.6], 1e-7);
}

#[test]
fn new_prototypes_begin_in_the_mean_direction() {
    // lengths 5 and 1, so the mean is 3; the mean direction of 3:4 and 0:1 is (1, 3)/√10
    let mut centers = ClassCenters::new(3, 2).unwrap();
    centers.add_directions(&[6.0, 8.0, 0.0, 0.1], &[2, 2], None).unwrap();
    let prototypes = [3.0, 4.0, 0.0, -1.0];
    let make = |how: NewPrototypes| how.from_centers(shape(2, 1, 2), &prototypes, &centers).unwrap();
    let expected = [1.0, 3.0].map(|v: f64| v / 10.0_f64.sqrt());
    let unit = NewPrototypes { length: PrototypeLength::Unit, ..Default::default() };
    all_close("unit", &wide(&make(unit)), &expected, 1e-7);
    all_close("mean", &wide(&make(NewPrototypes::default())), &expected.map(|v| 3.0 * v), 2e-7);
}

/// Every sub-centre has the mean length and stands at the angle from the first, two of them differ, and only the seed moves them.
#[test]
fn new_sub_centers_are_turned() {
    let (centers, embeddings, labels) = centers_of(20, 200);
    let prototypes = thin(&uniform(&mut random(6), 25 * 3 * 5));
    let lengths = prototypes.chunks_exact(5).map(|w| length(&wide(w))).sum::<f64>() / 75.0;
    let how = NewPrototypes { spread: 0.3, ..Default::default() };
    let new = how.from_centers(shape(25, 3, 5), &prototypes, &centers).unwrap();
    assert_eq!(new.len(), 16 * 3 * 5);
    for (class, vectors) in (25..).zip(new.chunks_exact(15)) {
        let rows = embeddings.chunks_exact(5).zip(&labels).filter(|row| *row.1 == class).map(|(x, _)| wide(x));
        let mean = rows.fold(vec![0.0; 5], |sum, x| sum.iter().zip(&x).map(|(a, b)| a + b / length(&x)).collect());
        let vectors: Vec<Vec<f64>> = vectors.chunks_exact(5).map(wide).collect();
        vectors.iter().for_each(|w| close("length", length(w), lengths, 1e-6));
        let cosine = |a: &[f64], b: &[f64]| dot(a, b) / length(a) / length(b);
        close("the first", cosine(&vectors[0], &mean), 1.0, 1e-12);
        vectors[1..].iter().for_each(|w| close("turned", cosine(&vectors[0], w), 0.3_f64.cos(), 1e-6));
        assert!(cosine(&vectors[1], &vectors[2]) < 0.9999, "{vectors:?}");
    }
    assert_eq!(how.from_centers(shape(25, 3, 5), &prototypes, &centers).unwrap(), new);
    let other = NewPrototypes { seed: 1, ..how }.from_centers(shape(25, 3, 5), &prototypes, &centers).unwrap();
    assert!(other != new && other[..5] == new[..5]);
    // on a line there is nowhere to turn to
    let mut line = ClassCenters::new(2, 1).unwrap();
    line.add_directions(&[-2.0], &[1], None).unwrap();
    assert_eq!(how.from_centers(shape(1, 2, 1), &[4.0, 2.0], &line), Ok(vec![-3.0, -3.0]));
}

#[test]
fn what_cannot_begin_is_refused() {
    let (prototypes, how) = ([3.0, 4.0, 0.0, -1.0], NewPrototypes::default());
    let mut centers = ClassCenters::new(4, 2).unwrap();
    let from = |how: NewPrototypes, prototypes: &[f32], centers: &ClassCenters| {
        how.from_centers(shape(2, 1, 2), prototypes, centers).unwrap_err()
    };
    centers.add_directions(&[1.0, 1.0], &[3], None).unwrap();
    let absent = from(how, &prototypes, &centers);
    assert_eq!(absent, Error::Class { class: 2, why: "has no embedding to begin from" });
    assert_eq!(absent.to_string(), "class 2 has no embedding to begin from");
    centers.add_directions(&[1.0, 1.0, -2.0, -2.0], &[2, 2], None).unwrap();
    assert!(matches!(from(how, &prototypes, &centers), Error::Class { class: 2, .. }));
    centers.add_directions(&[1.0, 0.0], &[2], None).unwrap();
    assert_eq!(how.from_centers(shape(2, 1, 2), &prototypes, &centers).unwrap().len(), 4);

    assert_eq!(from(how, &[1.0; 3], &centers), Error::Length { what: "prototypes", found: 3, expected: 4 });
    assert!(matches!(from(how, &[0.0; 4], &centers), Error::Combination { what: "length", .. }));
    assert!(matches!(from(how, &[f32::NAN; 4], &centers), Error::Parameter { what: "prototypes", .. }));
    for spread in [f64::NAN, -0.1, 1.6] {
        let how = NewPrototypes { spread, ..how };
        assert!(matches!(from(how, &prototypes, &centers), Error::Parameter { what: "spread", .. }));
    }
    let few = ClassCenters::new(1, 2).unwrap();
    assert_eq!(from(how, &prototypes, &few), Error::Size { what: "classes of the head", needed: 2, allowed: 1 });
    let flat = ClassCenters::new(4, 3).unwrap();
    assert!(matches!(from(how, &prototypes, &flat), Error::Length { found: 3, expected: 2, .. }));
    // as many classes as before: nothing comes
    assert_eq!(how.from_centers(shape(2, 1, 2), &prototypes, &ClassCenters::new(2, 2).unwrap()), Ok(vec![]));
}

#[test]
fn labels_follow_the_classes() {
    let map = ClassMap::without(5, &[3, 0]).unwrap();
    assert_eq!(map, ClassMap::keep(5, &[4, 1, 2]).unwrap());
    assert_eq!((map.old_classes(), map.new_classes()), (5, 3));
    assert_eq!(map.labels(), [None, Some(0), Some(1), None, Some(2)]);
    assert_eq!(map.relabel(&[4_u8, 1, 2, 1], None), Ok(vec![2, 0, 1, 0]));
    assert_eq!(map.relabel(&[4, 0, -100, 3], Some(-100)), Ok(vec![2, -100, -100, -100]));
    // an old class that marks ignored rows, and is none of the new ones
    assert_eq!(map.relabel(&[4, 3, 0], Some(4)), Ok(vec![4, 4, 4]));
    assert_eq!(
        map.values(&[0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0, 3.1, 4.0, 4.1], None),
        Ok(vec![1.0, 1.1, 2.0, 2.1, 4.0, 4.1])
    );

    let grown = ClassMap::grow(2, 4).unwrap();
    assert_eq!(grown.labels(), [Some(0), Some(1)]);
    assert_eq!(grown.values(&[1.0, 2.0], Some(&[3.0, 4.0])), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(grown.values(&[1.0, 2.0], None), Ok(vec![1.0, 2.0, 0.0, 0.0]));
    assert_eq!(grown.values(&[], None), Ok(vec![]));
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    assert_eq!(ClassMap::grow(5, 4), Err(Error::Size { what: "classes that go on", needed: 5, allowed: 4 }));
    assert_eq!(ClassMap::grow(0, 4), Err(Error::Zero { what: "classes" }));
    assert_eq!(ClassMap::keep(5, &[]), Err(Error::Zero { what: "classes" }));
    assert_eq!(ClassMap::without(2, &[0, 1]), Err(Error::Zero { what: "classes" }));
    assert_eq!(ClassMap::keep(5, &[5]), Err(Error::Class { class: 5, why: "is none of the head's" }));
    assert_eq!(ClassMap::without(5, &[1, 2, 1]), Err(Error::Class { class: 1, why: "is listed twice" }));

    let map = ClassMap::without(5, &[3]).unwrap();
    assert!(matches!(map.relabel(&[0, 3], None), Err(Error::Missing { what: "ignore_index", .. })));
    assert_eq!(map.relabel(&[0, 5], None), Err(Error::Label { row: 1, label: 5, classes: 5 }));
    // class 4 becomes 3: its rows would be ignored
    assert!(matches!(map.relabel(&[0, 4], Some(3)), Err(Error::Parameter { what: "ignore_index", found: 3.0, .. })));
    assert_eq!(map.values(&[0.0; 12], None), Err(Error::Length { what: "values", found: 12, expected: 10 }));
    let grown = ClassMap::grow(2, 4).unwrap();
    assert_eq!(grown.values(&[0.0; 4], Some(&[0.0])), Err(Error::Length { what: "new", found: 1, expected: 4 }));
}

/// 25 classes that have trained for a while under CurricularFace, with momentum and a layer of the network.
fn trained() -> (MarginSoftmax, Checkpoint) {
    let loss = MarginSoftmax::curricularface().with_scale(8.0);
    let state = State { step: 70, seed: 9, hardness: 0.1 + 0.2, ..State::new(&loss, shape(25, 2, 5)).unwrap() };
    let kept = Checkpoint::new(&state)
        .with_tensor("prototypes", &[25, 2, 5], thin(&uniform(&mut random(1), 250)))
        .and_then(|kept| kept.with_tensor("momentum", &[25, 2, 5], thin(&uniform(&mut random(2), 250))))
        .and_then(|kept| kept.with_tensor("class weights", &[25], thin(&uniform(&mut random(3), 25))))
        .and_then(|kept| kept.with_tensor("layer", &[25, 3], thin(&uniform(&mut random(4), 75))))
        .unwrap();
    (loss, kept)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_checkpoint_of_25_classes_becomes_one_of_41() {
    let (_, kept) = trained();
    let prototypes = kept.tensor("prototypes", &[25, 2, 5]).unwrap();
    let new = NewPrototypes::default().from_centers(shape(25, 2, 5), prototypes, &centers_of(25, 80).0).unwrap();
    let map = ClassMap::grow(25, 41).unwrap();
    let ones = [1.0; 16];
    let changes = [("prototypes", Some(&new[..])), ("momentum", None), ("class weights", Some(&ones[..]))];
    let grown = map.checkpoint(&kept, &changes).unwrap();
    let mut all = vec![grown.clone(), in_text(&grown)];
    #[cfg(feature = "safetensors")]
    all.push(Checkpoint::from_safetensors(&grown.to_safetensors().unwrap()).unwrap());
    for grown in &all {
        assert_eq!(grown.state, State { classes: 41, ..kept.state });
        for (name, new) in [("prototypes", new.clone()), ("momentum", vec![0.0; 160])] {
            let (before, after) = (kept.tensor(name, &[25, 2, 5]).unwrap(), grown.tensor(name, &[41, 2, 5]).unwrap());
            assert_eq!((bits(&after[..250]), bits(&after[250..])), (bits(before), bits(&new)), "{name}");
        }
        assert_eq!(grown.tensor("class weights", &[41]).unwrap()[25..], ones);
        assert_eq!(grown.tensor("layer", &[25, 3]).unwrap(), kept.tensor("layer", &[25, 3]).unwrap());
        // and back, bit for bit
        let names = ["prototypes", "momentum", "class weights"].map(|name| (name, None));
        let back = ClassMap::keep(41, &(0..25).collect::<Vec<_>>()).unwrap().checkpoint(grown, &names).unwrap();
        assert_eq!(back, kept);
    }
}

#[cfg(feature = "serde")]
fn in_text(kept: &Checkpoint) -> Checkpoint {
    serde_json::from_str(&serde_json::to_string(kept).unwrap()).unwrap()
}

#[cfg(not(feature = "serde"))]
fn in_text(kept: &Checkpoint) -> Checkpoint {
    kept.clone()
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let (_, kept) = trained();
    let map = ClassMap::grow(25, 41).unwrap();
    assert!(matches!(map.checkpoint(&kept, &[("absent", None)]), Err(Error::Name { found, .. }) if found == "absent"));
    let twice = map.checkpoint(&kept, &[("momentum", None), ("momentum", None)]);
    assert!(matches!(twice, Err(Error::Combination { what: "tensors", .. })));
    let short = map.checkpoint(&kept, &[("momentum", Some(&[0.0; 16]))]);
    assert_eq!(short, Err(Error::Length { what: "new", found: 16, expected: 160 }));
    let other = ClassMap::grow(24, 41).unwrap();
    assert!(matches!(other.checkpoint(&kept, &[]), Err(Error::Shape { what: "state", .. })));
    for (found, expected) in [(vec![], vec![25]), (vec![50, 5], vec![25, 5])] {
        let count = found.iter().product();
        let kept = kept.clone().with_tensor("flat", &found, vec![0.0; count]).unwrap();
        let what = "tensor of a checkpoint";
        assert_eq!(map.checkpoint(&kept, &[("flat", None)]), Err(Error::Shape { what, found, expected }));
    }
}

/// With the new classes a row's loss is log(e^loss + Σ e^(s·c_new − s·φ)): what was there before counts as it did. Then
/// training goes on with the state as it was, and learns the new classes too.
#[test]
fn training_goes_on_after_growth() {
    let (loss, labels) = (MarginSoftmax::arcface().with_scale(8.0), [0, 7, 24, 7]);
    let (x, old) = (thin(&uniform(&mut random(8), 20)), thin(&uniform(&mut random(1), 125)));
    let new = NewPrototypes::default().from_centers(shape(25, 1, 5), &old, &centers_of(25, 80).0).unwrap();
    let map = ClassMap::grow(25, 41).unwrap();
    let grown = map.values(&old, Some(&new)).unwrap();
    let mut before = Backend::reference().head(&loss, shape(25, 1, 5)).unwrap();
    before.set_state(&State { step: 70, seed: 9, ..*before.state() }).unwrap();
    let mut after = Backend::reference().head(&loss, shape(41, 1, 5)).unwrap();
    after.set_state(&map.state(before.state()).unwrap()).unwrap();
    let batch = Batch { embeddings: &x, labels: &labels, ..Default::default() };
    let found = after.train(&Batch { prototypes: &grown, ..batch }).unwrap();
    let known = before.train(&Batch { prototypes: &old, ..batch }).unwrap();
    for row in 0..4 {
        let x = wide(&x[row * 5..][..5]);
        let target = (f64::from(known.target_cosines[row]).acos() + 0.5).cos();
        let new = new.chunks_exact(5).map(wide).map(|w| dot(&x, &w) / length(&x) / length(&w));
        let sum: f64 = new.map(|cosine| (8.0 * (cosine - target)).exp()).sum();
        // the target is rounded to f32, and 8 times its slope is below 20
        let expected = (f64::from(known.row_losses[row]).exp() + sum).ln();
        close(row, found.row_losses[row].into(), expected, 20.0 * 1e-7);
    }
    assert_eq!(*after.state(), State { classes: 41, ..*before.state() });
    assert_eq!(after.state().step, 71);

    let (mut w, labels) = (grown, [0, 30, 40, 7]);
    let mut losses = vec![];
    for _ in 0..60 {
        let out =
            after.train(&Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() }).unwrap();
        w.iter_mut().zip(&out.grad_prototypes).for_each(|(w, g)| *w -= 0.1 * g);
        losses.push(out.loss);
    }
    assert!(losses[59] < 0.25 * losses[0], "{losses:?}");
}

/// Three sub-centres of two classes; the dominant ones are the second and, after a draw, the first.
#[test]
fn dominant_sub_centers_and_outliers() {
    let w = [1.0, 0.0, 0.0, 2.0, -1.0, 0.0, 0.0, -3.0, 4.0, 0.0, 0.0, 1.0];
    let x = [0.1, 1.0, -0.1, 5.0, 9.0, 1.0, 1.0, 2.0, 0.2, -7.0, 3.0, 0.2, f32::NAN, 0.0, 1.0, 1.0];
    let y = [0, 0, 0, 0, 1, 1, 1, 9];
    let mut counts = SubCenters::new(shape(2, 3, 2), &w).unwrap();
    counts.add(&x[..6], &y[..3], Some(9)).unwrap();
    counts.add(&x[6..], &y[3..], Some(9)).unwrap();
    assert_eq!(counts.counts(), [1, 3, 0, 1, 1, 0]);
    let dominant = counts.dominant();
    assert_eq!((dominant.indices(), dominant.prototypes()), (&[1, 0][..], Ok(vec![0.0, 2.0, 0.0, -3.0])));
    assert_eq!(dominant.values(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), Ok(vec![1.0, 3.0]));

    // row 2 is atan 9 = 83.7° away, row 5 90° + atan(1/15) = 93.8°; row 3 is atan ½ = 26.6° away
    let far = dominant.outliers(&x, &y, Some(9), OUTLIER_ANGLE).unwrap();
    assert_eq!(far.iter().map(|outlier| outlier.row).collect::<Vec<_>>(), [2, 5, 6]);
    all_close("angles", &[far[0].angle, far[1].angle], &[9.0_f64.atan(), PI / 2.0 + (1.0 / 15.0_f64).atan()], 1e-7);
    assert!(far[2].angle.is_nan());
    let rows = |angle: f64| {
        dominant.outliers(&x, &y, Some(9), angle).unwrap().iter().map(|outlier| outlier.row).collect::<Vec<_>>()
    };
    assert_eq!((rows(PI), rows(26.0 * PI / 180.0)), (vec![6], vec![2, 3, 5, 6]));
    close("the paper's", OUTLIER_ANGLE.to_degrees(), 75.0, 1e-12);

    // farther than a right angle is not a right angle
    let single = SubCenters::new(shape(1, 1, 2), &[1.0, 0.0]).unwrap().dominant();
    assert_eq!(single.outliers(&[0.0, 1.0, 0.0, 0.0], &[0, 0], None, PI / 2.0), Ok(vec![]));
}

#[test]
fn a_checkpoint_of_dominant_sub_centers() {
    let (_, kept) = trained();
    let w = kept.tensor("prototypes", &[25, 2, 5]).unwrap();
    let mut counts = SubCenters::new(shape(25, 2, 5), w).unwrap();
    counts.add(&w[5..10], &[0], None).unwrap(); // class 0: its second; all others their first
    let dominant = counts.dominant();
    let clean = dominant.checkpoint(&kept, &["prototypes", "momentum"]).unwrap();
    assert_eq!((clean.state, clean.sampler), (kept.state, None));
    for name in ["prototypes", "momentum"] {
        let (all, one) = (kept.tensor(name, &[25, 2, 5]).unwrap(), clean.tensor(name, &[25, 5]).unwrap());
        let expected: Vec<f32> = (0..25).flat_map(|j| all[j * 10 + 5 * usize::from(j == 0)..][..5].to_vec()).collect();
        assert_eq!(bits(one), bits(&expected), "{name}");
    }
    assert_eq!(clean.tensor("layer", &[25, 3]), kept.tensor("layer", &[25, 3]));
    let what = "tensor of a checkpoint";
    let wrong = Error::Shape { what, found: vec![25, 3], expected: vec![25, 2] };
    assert_eq!(dominant.checkpoint(&kept, &["layer"]), Err(wrong));
    assert!(matches!(dominant.checkpoint(&kept, &["absent"]), Err(Error::Name { .. })));
}

#[test]
fn sub_centers_that_do_not_fit_are_refused() {
    let w = [1.0, 0.0, 0.0, 1.0];
    assert!(matches!(SubCenters::new(shape(2, 2, 2), &w), Err(Error::Length { what: "prototypes", .. })));
    let broken = SubCenters::new(shape(2, 1, 2), &[1.0, 0.0, 0.0, f32::INFINITY]);
    assert_eq!(broken, Err(Error::Class { class: 1, why: "has a prototype that is not finite" }));
    let mut counts = SubCenters::new(shape(1, 2, 2), &w).unwrap();
    assert!(matches!(counts.add(&[1.0], &[0], None), Err(Error::Length { what: "embeddings", .. })));
    assert!(matches!(counts.add(&[1.0; 4], &[0, 1], None), Err(Error::Label { row: 1, label: 1, classes: 1 })));
    assert_eq!(counts.counts(), [0, 0]);
    for angle in [f64::NAN, -0.1, 3.2] {
        let refused = counts.dominant().outliers(&[1.0, 0.0], &[0], None, angle);
        assert!(matches!(refused, Err(Error::Parameter { what: "angle", .. })), "{angle}");
    }
    assert!(matches!(counts.dominant().values(&[1.0; 3]), Err(Error::Length { what: "values", .. })));
}

/// n^(−¼) is 1/2, 1/3 and 1/10.
#[test]
fn margins_follow_the_counts() {
    let counts = [10_000, 16, 0, 81, 16];
    let (lower, upper) = CountMargins::RANGE;
    let between = CountMargins::between(&counts, CountMargins::EXPONENT, lower, upper).unwrap();
    let third = 0.05 + 0.45 * (1.0 / 3.0 - 0.1) / 0.4;
    for (count, expected) in [(10_000, 0.05), (16, 0.5), (81, third), (1, 0.5), (0, 0.5), (u64::MAX, 0.05)] {
        close(count, between.of(count), expected, 1e-15);
    }
    assert_eq!(between.of_all(&counts), [0.05, 0.5, 0.5, third as f32, 0.5]);
    // as they are: 0.6·n^(−¼) + 0.1, at most 0.35
    let plain = CountMargins::new(0.6, 0.25, 0.1, 0.0, 0.35).unwrap();
    all_close("plain", &[10_000, 81, 16].map(|n| plain.of(n)), &[0.16, 0.3, 0.35], 1e-15);
    // the other way round: common classes get more
    close("rising", CountMargins::new(-0.6, 0.25, 0.5, 0.0, 1.0).unwrap().of(16), 0.2, 1e-15);

    for (counts, lower, upper, what) in [
        (&[5, 5, 0][..], 0.1, 0.2, "counts"),
        (&[], 0.1, 0.2, "counts"),
        (&[1, 2], 0.3, 0.2, "lower"),
        (&[1, 2], f64::NAN, 0.2, "lower"),
        (&[1, 2], 0.1, PI, "upper"),
    ] {
        let error = CountMargins::between(counts, 0.25, lower, upper).unwrap_err();
        let (Error::Combination { what: found, .. } | Error::Parameter { what: found, .. }) = error else { panic!() };
        assert_eq!(found, what);
    }
    for exponent in [0.0, -0.25, f64::NAN, 4.1] {
        let refused = CountMargins::between(&[1, 2], exponent, 0.1, 0.2);
        assert!(matches!(refused, Err(Error::Parameter { what: "exponent", .. })));
    }
    assert!(
        CountMargins::new(1e7, 0.25, 0.0, 0.0, 1.0).is_err()
            && CountMargins::new(1.0, 0.25, f64::NAN, 0.0, 1.0).is_err()
    );
    // the smallest difference between the largest counts is no NaN
    let near = CountMargins::between(&[u64::MAX, u64::MAX - (1 << 13)], 4.0, 0.1, 0.2).unwrap();
    assert!((0.1..=0.2).contains(&near.of(u64::MAX)) && near.of(1) == 0.2);
}

/// A batch takes them as the margins of its classes.
#[test]
fn margins_of_counts_are_margins_of_classes() {
    let (x, w) = (uniform(&mut random(1), 8), uniform(&mut random(2), 12));
    let (x, w, labels) = (thin(&x), thin(&w), [2, 0]);
    let margins = CountMargins::between(&[16, 81, 10_000], 0.25, 0.05, 0.5).unwrap().of_all(&[16, 81, 10_000]);
    let class_margins = Margins { m2: Some(&margins), ..Margins::NONE };
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
    let loss = MarginSoftmax::arcface();
    let mut head = Backend::reference().head(&loss, shape(3, 1, 4)).unwrap();
    let found = head.evaluate(&Batch { class_margins, ..batch }).unwrap();
    for (row, m2) in [(0, 0.05_f32), (1, 0.5)] {
        head.update(&loss.clone().with_margin(|m| m.m2 = m2.into())).unwrap();
        assert_eq!(found.row_losses[row], head.evaluate(&batch).unwrap().row_losses[row]);
    }
}
