//! The cost of predictions: the k nearest classes beside a step, and on their own among many prototypes.
//!
//! A step with and without predictions alternate in one run, and the median of the ratios is printed, of the time that threads
//! ran: on a shared machine only those mean anything. The nearest class of the first rows is checked against the f64 reference before anything is timed.
//!
//! ```text
//! cargo bench --bench predict              # steps at two shapes, and 1,024 queries over 10⁶ prototypes
//! cargo bench --bench predict -- step      # one of both
//! cargo bench --bench predict -- --peer 1024 1000000 128 10 x.f32 w.f32    # for peers/nearest.py: a line in asks for a call
//! ```

use margin_softmax::{
    Backend, MarginSoftmax, Options, Others, Output, Shape, SliceHead,
    data::{Inputs, Predictions},
    reference,
};

#[path = "common/clock.rs"]
#[allow(dead_code)]
mod clock;
#[path = "common/data.rs"]
#[allow(dead_code)]
mod data;

use clock::timed;
use data::Data;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The nearest classes of the first rows are those of the reference.
fn check(data: &Data, loss: &MarginSoftmax, found: &Predictions) {
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let (rows, dim) = (data.shape.rows().min(2), data.shape.dim());
    let (x, w) = (wide(&data.x[..rows * dim]), wide(&data.w));
    let (all, state) = (0..data.shape.classes(), margin_softmax::State::new(loss, data.shape).unwrap());
    let expected = reference::predict(loss, data.shape, all, found.count, &Inputs::new(&x, &w), &state).unwrap();
    for (at, expected) in expected.cosines.iter().enumerate() {
        assert!((f64::from(found.cosines[at]) - expected).abs() < 2e-6, "{}, not {expected}", found.cosines[at]);
    }
}

/// Medians of a step in ms, and of the ratio of one with predictions to it.
fn steps(data: &Data, loss: &MarginSoftmax, count: usize, rounds: usize) -> [f64; 2] {
    let head = |predictions| {
        let options = Options { predictions, ..Options::default() };
        Backend::cpu().head_with(loss, data.shape, &options).unwrap()
    };
    let (mut heads, batch) = ([head(None), head(Some(count))], data.batch());
    let mut out = [Output::default(), Output::default()];
    let mut call = |i: usize| timed(|| SliceHead::evaluate_into(&mut heads[i], &batch, &mut out[i]).unwrap());
    call(0);
    call(1);
    let (mut plain, mut ratios) = (vec![], vec![]);
    for round in 0..rounds {
        // whichever is first now is second next time
        let (first, second) = (call(round % 2), call(1 - round % 2));
        let (without, with) = if round % 2 == 0 { (first, second) } else { (second, first) };
        plain.push(without.wall * 1e3);
        ratios.push(with.threads / without.threads);
    }
    check(data, loss, out[1].predictions.as_ref().unwrap());
    [median(plain), median(ratios)]
}

fn step_table() {
    println!("a step with predictions over one without, medians of alternating rounds");
    println!("{:>16} {:>20} {:>9} {:>8} {:>8} {:>8}", "shape", "loss", "step, ms", "k 1", "k 10", "k 64");
    let losses = [
        ("arcface", MarginSoftmax::arcface()),
        ("rectified", MarginSoftmax::arcface().with_others(Others::Rectified)),
        ("sphereface2", MarginSoftmax::sphereface2()),
        ("inter-topk", MarginSoftmax::named("arcface_topk").unwrap()),
    ];
    for (sizes, rounds) in [([256, 5994, 192], 60), ([512, 20_000, 512], 9)] {
        let data = Data::new(sizes, |v| v);
        for (name, loss) in &losses {
            let all = [1, 10, 64].map(|count| steps(&data, loss, count, rounds));
            let ratios = all.map(|[_, ratio]| format!("{ratio:>8.3}")).join(" ");
            let shape = sizes.map(|n| n.to_string()).join("x");
            println!("{shape:>16} {name:>20} {:>9.2} {ratios}", all[0][0]);
        }
    }
}

fn queries() {
    let data = Data::new([1024, 1_000_000, 128], |v| v);
    let (loss, shape): (_, Shape) = (MarginSoftmax::arcface(), data.shape);
    let mut predictor = Backend::cpu().predictor(&loss, shape, 10, &Options::default()).unwrap();
    let inputs = Inputs::new(&data.x, &data.w);
    let mut out = predictor.predict(&inputs).unwrap();
    check(&data, &loss, &out);
    let times = (0..3).map(|_| timed(|| predictor.predict_into(&inputs, &mut out).unwrap()).wall).collect();
    println!(
        "1,024 queries over 10⁶ prototypes of 128 values, k = 10, {}: {:.2} s",
        Backend::cpu().name(),
        median(times)
    );
}

/// Answers each line of the standard input with the seconds of a call; after the last one the classes go out, row by row.
fn peer(words: &[String]) {
    let size = |at: usize| words[at].parse().expect("a size");
    let read = |at: usize| bytemuck::pod_collect_to_vec(&std::fs::read(&words[at]).expect("a file"));
    let (shape, x, w): (_, Vec<f32>, Vec<f32>) = (Shape::new(size(0), size(1), size(2)).unwrap(), read(4), read(5));
    let mut predictor =
        Backend::cpu().predictor(&MarginSoftmax::arcface(), shape, size(3), &Options::default()).unwrap();
    let mut out = Predictions::default();
    for _ in std::io::stdin().lines() {
        println!("{}", timed(|| predictor.predict_into(&Inputs::new(&x, &w), &mut out).unwrap()).wall);
    }
    out.classes
        .chunks(out.count)
        .for_each(|row| println!("{}", row.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")));
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [first, rest @ ..] = &words[..]
        && first == "--peer"
    {
        return peer(rest);
    }
    let chosen: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    for (name, run) in [("step", step_table as fn()), ("queries", queries)] {
        if chosen.is_empty() || chosen.iter().any(|word| name.contains(word.as_str())) {
            run();
        }
    }
}
