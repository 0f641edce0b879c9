//! States: the ends of their ranges, and their digits. The same checks for every engine.

use margin_softmax::{objective::*, *};

/// Rows of these lengths, all of class 0 of ten: `own` is their cosine to its prototype, `others` to the nine others.
struct Data {
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
}

const CLASSES: usize = 10;
const DIM: usize = 12;

impl Data {
    fn new(own: f64, others: f64, lengths: &[f64]) -> Self {
        // a reflection, so that no coordinate is a whole number and cosines of 1 may round up
        let mirror: [f64; DIM] = std::array::from_fn(|i| 0.3 + (0.7 * i as f64).sin());
        let square = mirror.iter().map(|m| m * m).sum::<f64>();
        let vector = |length: f64, along: f64, axis: usize| {
            let mut v = [0.0; DIM];
            v[0] = along;
            v[axis] += (1.0 - along * along).sqrt();
            let dot = v.iter().zip(&mirror).map(|(v, m)| v * m).sum::<f64>();
            v.into_iter()
                .zip(mirror)
                .map(move |(v, m)| (length * (v - 2.0 * dot / square * m)) as f32)
                .collect::<Vec<_>>()
        };
        Self {
            x: lengths.iter().flat_map(|&length| vector(length, 1.0, 0)).collect(),
            w: (0..CLASSES).flat_map(|j| vector(1.7, if j == 0 { own } else { others }, 1 + j)).collect(),
            labels: vec![0; lengths.len()],
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch { embeddings: &self.x, prototypes: &self.w, labels: &self.labels, ..Default::default() }
    }
}

fn shape() -> Shape {
    Shape::new(8, CLASSES, DIM).unwrap()
}

fn numbers(state: &State) -> [f64; 4] {
    [state.hardness, state.norm_mean, state.norm_deviation, state.scale]
}

/// Training steps from a state, on this engine and on the reference: after each the state is one that `set_state` takes,
/// and both agree. Returns the numbers after the last step.
fn steps(backend: &Backend, name: &str, loss: &MarginSoftmax, start: State, data: &Data, count: usize) -> [f64; 4] {
    let mut heads = [Backend::Reference, backend.clone()].map(|b| b.head(loss, shape()).unwrap());
    for head in &mut heads {
        head.set_state(&start).unwrap();
    }
    for step in 0..count {
        let [expected, found] = heads.each_mut().map(|head| {
            let out = head.train(&data.batch()).unwrap_or_else(|e| panic!("{name}, step {step}: {e}"));
            let state = *head.state();
            state.validate(shape()).unwrap_or_else(|e| panic!("{name}, step {step}: {e}"));
            head.set_state(&state).unwrap();
            assert_eq!((*head.state(), state.step), (state, start.step + 1 + step as u64), "{name}, step {step}");
            assert!((-1.0..=1.0).contains(&state.hardness), "{name}, step {step}: {state:?}");
            (numbers(&state), out.loss)
        });
        // every step rounds a few times in f32, and the relative error of a step carries over to the next one
        let gate = 5e-7 * (step + 1) as f64;
        for (found, expected) in found.0.iter().zip(expected.0) {
            let off = (found - expected).abs();
            assert!(off <= gate * expected.abs().max(1.0), "{name}, step {step}: {found:?} is not {expected:?}");
        }
        let off = (found.1 - expected.1).abs();
        assert!(off <= 1e-4 * expected.1.abs().max(1.0), "{name}, step {step}: {found:?} is not {expected:?}");
    }
    numbers(heads[1].state())
}

const EVEN: [f64; 8] = [5.0; 8];

/// The scale of AdaCos, driven to both of its ends, by training and from a state that is there already.
pub fn the_scale_reaches_both_of_its_ends(backend: &Backend) {
    let loss = MarginSoftmax::adacos();
    let start = State::new(&loss, shape()).unwrap();
    let near = Data::new(0.0, 0.95, &EVEN);
    let far = Data::new(1.0, -0.5, &EVEN);
    assert_eq!(steps(backend, "scale grows", &loss, start, &near, 50)[3], 1e6);
    for scale in [5e-324, 1e-40, 1e-2, 1e6] {
        let start = State { scale, ..start };
        steps(backend, &format!("scale from {scale:e}"), &loss, start, &near, 1);
        steps(backend, &format!("scale from {scale:e}, far"), &loss, start, &far, 2);
    }
    let least = steps(backend, "scale shrinks", &loss, State { scale: 1e6, ..start }, &far, 1)[3];
    assert!((least - 1e-2).abs() <= 1e-9, "{least}");
}

/// CurricularFace's hardness likewise; cosines may round to more than 1.
pub fn the_hardness_reaches_both_of_its_ends(backend: &Backend) {
    let loss = MarginSoftmax::curricularface();
    let start = State::new(&loss, shape()).unwrap();
    for (own, end) in [(1.0, 1.0), (-1.0, -1.0)] {
        for turn in 0..6 {
            // the lengths decide how a cosine rounds
            let lengths: Vec<f64> = (0..8).map(|i| 1.0 + 0.37 * f64::from(turn * 8 + i)).collect();
            let data = Data::new(own, 0.3, &lengths);
            for hardness in [end, end * (1.0 + 1e-6), -end] {
                let start = State { hardness, ..start };
                steps(backend, &format!("hardness {hardness} to {end}"), &loss, start, &data, 2);
            }
        }
        let start = State { hardness: end * 0.999, ..start };
        let last = steps(backend, "hardness", &loss, start, &Data::new(own, 0.3, &EVEN), 3)[0];
        assert!((last - end).abs() <= 1e-3, "{last}");
    }
}

/// AdaFace's mean and deviation of the lengths likewise.
pub fn the_lengths_reach_both_of_their_ends(backend: &Backend) {
    for rate in [1.0, 0.01, 1e-9] {
        let mut loss = MarginSoftmax::adaface();
        loss.adaptive = Adaptive::AdaFace(AdaFace { rate, ..AdaFace::default() });
        let start = State::new(&loss, shape()).unwrap();
        for (lengths, ends) in [
            ([1e-5; 8], [1e-3, 0.0]),
            ([1e5; 8], [100.0, 0.0]),
            ([1e-5, 1e5, 1e-5, 1e5, 1e-5, 1e5, 1e-5, 1e5], [50.0005, 53.4517]),
        ] {
            for (norm_mean, norm_deviation) in [(0.0, 0.0), (1e30, 1e30), (0.0, 1e30), (1e30, 0.0), (20.0, 100.0)] {
                let start = State { norm_mean, norm_deviation, ..start };
                let name = format!("lengths {norm_mean:e}, {norm_deviation:e} with {lengths:?} at {rate:e}");
                let last = steps(backend, &name, &loss, start, &Data::new(0.2, 0.1, &lengths), 2);
                let arrived = |(found, end): (&f64, f64)| (found - end).abs() <= 1e-4 * end.max(1.0);
                assert!(rate < 1.0 || last[1..3].iter().zip(ends).all(arrived), "{name}: {last:?}");
            }
        }
    }
}

/// Numbers that no f32 holds stay as they are, bit for bit, wherever nothing moves them: in an evaluation, in a step whose
/// rows are all left out, in a step with a prototype that is not finite, and beside a number that moves.
pub fn what_does_not_move_keeps_its_digits(backend: &Backend) {
    let good = Data::new(0.4, 0.1, &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
    let ignored = Data { labels: vec![-1; 8], x: good.x.clone(), w: good.w.clone() };
    let rows_out = Data { labels: vec![0; 8], x: vec![f32::NAN; good.x.len()], w: good.w.clone() };
    let mut broken = Data { labels: vec![0; 8], x: good.x.clone(), w: good.w.clone() };
    broken.w[17] = f32::INFINITY;
    let none = Data { labels: vec![], x: vec![], w: good.w.clone() };
    let one = Data { labels: vec![0], x: good.x[..DIM].to_vec(), w: good.w.clone() };

    let curricular = MarginSoftmax::curricularface();
    let adaface = MarginSoftmax::adaface();
    // hardness, mean and deviation of the lengths, scale
    for (loss, moves) in [
        (curricular, [true, false, false, false]),
        (adaface.clone(), [false, true, true, false]),
        (adaface.with_others(Others::Curricular), [true, true, true, false]),
        (MarginSoftmax::adacos(), [false, false, false, true]),
        (MarginSoftmax::named("elasticface_arc").unwrap(), [false; 4]),
        (MarginSoftmax::arcface(), [false; 4]),
    ] {
        let loss = loss.with_ignore_index(-1);
        let name = format!("{:?}, {:?}", loss.adaptive, loss.others);
        let first = State { step: 5, ..State::new(&loss, shape()).unwrap().with_seed(3) };
        let start = State { hardness: 0.1, norm_mean: 7.3, norm_deviation: 2.9, scale: 11.7, ..first };
        let mut head = backend.head(&loss, shape()).unwrap();
        head.set_state(&start).unwrap();
        head.evaluate(&good.batch()).unwrap();
        assert_eq!(*head.state(), start, "{name}: an evaluation");
        for (i, (what, data)) in [
            ("all rows ignored", &ignored),
            ("no row finite", &rows_out),
            ("no rows", &none),
            ("a prototype that is not finite", &broken),
        ]
        .into_iter()
        .enumerate()
        {
            head.train(&data.batch()).unwrap();
            assert_eq!(*head.state(), State { step: 6 + i as u64, ..start }, "{name}: {what}");
        }
        head.train(&good.batch()).unwrap();
        let differ = |state: &State| [0, 1, 2, 3].map(|i| numbers(state)[i] != numbers(&start)[i]);
        assert_eq!(differ(head.state()), moves, "{name}: {:?}", head.state());
        // one row has no deviation
        head.set_state(&start).unwrap();
        head.train(&one.batch()).unwrap();
        assert_eq!(differ(head.state()), [moves[0], moves[1], false, moves[3]], "{name}: {:?}", head.state());

        // in shards, whose states are moved by what all of them know
        let mut heads =
            [0..4, 4..CLASSES].map(|range| backend.shard(&loss, shape(), range, &Options::default()).unwrap());
        for data in [&ignored, &broken] {
            let batches = [0..4, 4..CLASSES]
                .map(|range| Batch { prototypes: &data.w[range.start * DIM..range.end * DIM], ..data.batch() });
            let mut parts = vec![];
            for (head, batch) in heads.iter_mut().zip(&batches) {
                head.set_state(&start).unwrap();
                parts.push(head.targets(batch).unwrap());
            }
            let targets = shard::Targets::merged(&parts, CLASSES).unwrap();
            for (head, batch) in heads.iter_mut().zip(&batches) {
                head.follow(batch, &targets).unwrap();
                assert_eq!(*head.state(), start, "{name}: shards");
            }
        }
    }
}
