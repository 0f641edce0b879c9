//! Bad input is refused by name.

use margin_softmax::{
    Backend, Batch, Budget, Error, MarginSoftmax, Margins, Options, Others, Output, Shape, State, objective::TopK,
};

use crate::common::Data;

/// Every kind of bad input names itself and leaves the output as it was.
#[test]
fn bad_input_leaves_the_output_untouched() {
    let data = Data::random(4, 30, 8, 22);
    let before = Output { loss: 7.0, row_losses: vec![1.0, 2.0], grad_prototypes: vec![3.0; 5], ..Output::default() };
    let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), data.shape()).unwrap();
    let ones = vec![1.0_f32; 30];
    let mut negative = ones.clone();
    negative[3] = -1.0;
    let mut refuse = |batch: Batch<'_>| {
        let mut out = before.clone();
        let error = head.evaluate_into(&batch, &mut out).unwrap_err();
        assert_eq!(out, before, "{error}");
        error
    };
    let good = data.batch();
    let five = [0; 5];
    assert_eq!(refuse(Batch { labels: &five, ..good }), Error::Rows { found: 5, allowed: 4 });
    let length = |what, found, expected| Error::Length { what, found, expected };
    assert_eq!(refuse(Batch { embeddings: &data.x[1..], ..good }), length("embeddings", 31, 32));
    assert_eq!(refuse(Batch { prototypes: &data.w[1..], ..good }), length("prototypes", 239, 240));
    assert_eq!(refuse(Batch { class_weights: Some(&ones[1..]), ..good }), length("class_weights", 29, 30));
    assert_eq!(refuse(Batch { upstream: Some(&ones[..2]), ..good }), length("upstream", 2, 1));
    let allowed = "0, or 1e-30 <= w <= 1e24";
    let parameter = Error::Parameter { what: "class_weights", found: -1.0, allowed };
    assert_eq!(refuse(Batch { class_weights: Some(&negative), ..good }), parameter);
    let error = refuse(Batch { upstream: Some(&[f32::NAN]), ..good });
    assert!(matches!(error, Error::Parameter { what: "upstream", .. }), "{error}");
    let error = refuse(Batch { labels: &[0, 1, 30, 2], ..good });
    assert_eq!(error, Error::Label { row: 2, label: 30, classes: 30 });
    assert!(head.update(&MarginSoftmax::arcface().with_scale(-1.0)).is_err());
    assert_eq!(head.loss().scale, 64.0, "a refused loss changes nothing");
    assert!(head.evaluate(&data.batch()).unwrap().loss.is_finite(), "the head still works");
}

/// A budget that nothing fits is refused with both numbers; the number it names is enough.
#[test]
fn a_budget_that_is_too_small_is_refused() {
    for (rows, classes, dim) in [(1, 1, 1), (256, 5994, 192), (4, 100_003, 16)] {
        let shape = Shape::new(rows, classes, dim).unwrap();
        let head = |bytes| {
            let options = Options { budget: Budget::bytes(bytes), ..Options::default() };
            Backend::cpu().head_with(&MarginSoftmax::arcface(), shape, &options).map(|_| ())
        };
        let Err(Error::Budget { needed, allowed: 10 }) = head(10) else { panic!("10 bytes were enough") };
        assert!(matches!(head(needed - 1), Err(Error::Budget { needed: n, .. }) if n == needed));
        assert_eq!(head(needed), Ok(()));
    }
}

/// What the new inputs refuse, by name, and without touching output or state.
#[test]
fn bad_input_of_the_families_is_refused() {
    let data = Data::random(4, 30, 8, 101);
    let refuse = |loss: &MarginSoftmax, batch: Batch<'_>| {
        let mut head = data.head(loss, &Options::default(), &State::new(loss, data.shape()).unwrap());
        let (before, state) = (Output { loss: 7.0, grad_bias: vec![1.0], ..Output::default() }, *head.state());
        let mut out = before.clone();
        let error = head.train_into(&batch, &mut out).unwrap_err();
        assert_eq!((&out, head.state()), (&before, &state), "{error}");
        error
    };
    let (arcface, linear) = (MarginSoftmax::arcface(), MarginSoftmax::softmax());
    let (ones, good) = ([1.0_f32; 30], data.batch());
    let bias = |bias| Batch { bias: Some(bias), ..good };
    assert!(matches!(refuse(&arcface, bias(&ones)), Error::Combination { what: "bias", .. }));
    assert_eq!(refuse(&linear, bias(&ones[1..])), Error::Length { what: "bias", found: 29, expected: 30 });
    let mut infinite = ones;
    infinite[7] = f32::INFINITY;
    assert!(matches!(refuse(&linear, bias(&infinite)), Error::Parameter { what: "bias", .. }));
    let class = |m2| Batch { class_margins: Margins { m2: Some(m2), ..Margins::NONE }, ..good };
    let row = |m2| Batch { row_margins: Margins { m2: Some(m2), ..Margins::NONE }, ..good };
    assert_eq!(refuse(&arcface, class(&ones[1..])), Error::Length { what: "class_margins", found: 29, expected: 30 });
    assert_eq!(refuse(&arcface, row(&ones)), Error::Length { what: "row_margins", found: 30, expected: 4 });
    assert!(matches!(refuse(&arcface, row(&[4.0; 4])), Error::Parameter { what: "m2", .. }));
    assert!(matches!(refuse(&linear, row(&[0.1; 4])), Error::Combination { .. }));
    assert!(matches!(refuse(&MarginSoftmax::sphereface2(), row(&[0.1; 4])), Error::Combination { .. }));

    let head = |loss: &MarginSoftmax, shape| Backend::cpu().head(loss, shape).map(|_| ()).unwrap_err();
    let top = MarginSoftmax::arcface().with_others(Others::TopK(TopK { count: 30, margin: 0.1 }));
    assert!(matches!(head(&top, data.shape()), Error::Parameter { what: "top_k.count", .. }));
    let two = data.shape().with_sub_centers(2).unwrap();
    assert!(matches!(head(&linear, two), Error::Combination { what: "product.linear", .. }));
    assert!(matches!(head(&MarginSoftmax::adacos(), Shape::new(4, 2, 8).unwrap()), Error::Combination { .. }));
    let state = State::new(&arcface, Shape::new(4, 31, 8).unwrap()).unwrap();
    let mut right = Backend::cpu().head(&arcface, data.shape()).unwrap();
    assert!(matches!(right.set_state(&state), Err(Error::Shape { what: "state", .. })));
    let short = Batch { prototypes: &data.w, ..good };
    let mut wide = Backend::cpu().head(&arcface, two).unwrap();
    let expected = Error::Length { what: "prototypes", found: 240, expected: 480 };
    assert_eq!(wide.evaluate(&short).unwrap_err(), expected);
}
