//! Error rates, folds, identification and normalisation: cases worked by hand, and 100,000 scores beside scikit-learn.

use margin_softmax::{Error, verification::*};
use rand::{RngExt, seq::SliceRandom};

use crate::common::*;

fn curve(same: &[f32], different: &[f32]) -> DetectionCurve {
    DetectionCurve::from_kinds(same.to_vec(), different.to_vec()).unwrap()
}

#[test]
fn equal_error_rates_by_hand() {
    for (same, different, rate) in [
        (&[0.9, 0.8][..], &[0.2, 0.1][..], 0.0), // apart
        (&[0.2, 0.1], &[0.9, 0.8], 1.0),         // the wrong way round
        (&[0.5, 0.5], &[0.5], 0.5),              // nothing to tell them by
        (&[0.9, 0.7, 0.6, 0.3], &[0.8, 0.4, 0.2, 0.1], 0.25),
        // FAR, FRR: (0, 2/3) at 0.9, then (1/2, 0) at 0.5, which takes three at once; both are 2/7 on the line between
        (&[0.9, 0.5, 0.5], &[0.5, 0.1], 2.0 / 7.0),
        // of three different pairs and two same ones: (1/3, 1/2) at 0.7, (2/3, 1/2) at 0.6, halfway is 1/2
        (&[0.8, 0.1], &[0.7, 0.6, 0.5], 0.5),
    ] {
        close(format_args!("{same:?} {different:?}"), curve(same, different).equal_error_rate(), rate, 1e-15);
    }
}

#[test]
fn points_go_from_nothing_to_everything() {
    let curve = curve(&[0.9, 0.5, 0.5], &[0.5, 0.0]);
    let points: Vec<_> = curve.points().map(|p| (p.threshold, p.false_accept_rate, p.miss_rate)).collect();
    let third = 2.0 / 3.0;
    assert_eq!(points, [(f32::INFINITY, 0.0, 1.0), (0.9, 0.0, third), (0.5, 0.5, 0.0), (0.0, 1.0, 0.0)]);
    assert_eq!((curve.same_pairs(), curve.different_pairs()), (3, 2));
    assert_eq!(curve.equal_error_point().threshold, 0.5);
    let negative_zero = DetectionCurve::from_kinds(vec![0.0], vec![-0.0]).unwrap();
    assert_eq!(negative_zero.points().count(), 2, "0 and -0 are one threshold");
}

#[test]
fn true_accept_rates_by_hand() {
    let curve = curve(&[0.9, 0.7, 0.6, 0.3], &[0.8, 0.6, 0.2, 0.1]);
    // FAR 0 ends above 0.8; ¼ ends above 0.6, which a same pair shares; ½ takes both
    for (far, tar, threshold) in
        [(0.0, 0.25, 0.9), (0.24, 0.25, 0.9), (0.25, 0.5, 0.7), (0.5, 1.0, 0.3), (0.74, 1.0, 0.3), (1.0, 1.0, 0.1)]
    {
        assert_eq!(curve.true_accept_rate(far).unwrap(), tar, "{far}");
        assert_eq!(curve.point_at(far).unwrap().threshold, threshold, "{far}");
    }
    let reversed = self::curve(&[0.1], &[0.5]);
    let point = reversed.point_at(0.0).unwrap();
    assert_eq!((point.threshold, point.true_accept_rate()), (f32::INFINITY, 0.0));
    // one of a thousand is within 0.001, though 0.001 is no binary fraction
    let thousand: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let curve = self::curve(&[998.5], &thousand);
    assert_eq!([0.000_999, 0.001].map(|far| curve.true_accept_rate(far).unwrap()), [0.0, 1.0]);
    for far in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(curve.true_accept_rate(far), Err(Error::Parameter { what: "far", .. })));
    }
}

#[test]
fn detection_costs_by_hand() {
    let curve = curve(&[0.9, 0.7, 0.6, 0.3], &[0.8, 0.4, 0.2, 0.1]);
    // at a prior of ½ the cost is FAR + FRR: 0.25 + 0.25 at 0.6, 0.5 + 0 at 0.3
    let even = DetectionCost::with_prior(0.5);
    assert_eq!(curve.min_detection_cost(&even).unwrap(), 0.5);
    assert_eq!(curve.min_cost_point(&even).unwrap().threshold, 0.6, "the highest of two");
    // a false alarm is 99 times as bad: nothing is accepted beyond 0.9
    close("VoxCeleb", curve.min_detection_cost(&DetectionCost::VOXCELEB).unwrap(), 0.75, 1e-15);
    // a miss weighs 0.1, a false alarm 0.99, so 1 and 9.9
    close("SRE 2008", curve.min_detection_cost(&DetectionCost::SRE08).unwrap(), 0.75, 1e-15);
    let useless = self::curve(&[0.1], &[0.9]);
    for cost in [DetectionCost::VOXSRC, DetectionCost::SRE10, DetectionCost::with_prior(0.9)] {
        assert_eq!(useless.min_detection_cost(&cost).unwrap(), 1.0, "{cost:?}: no worse than no system");
    }
    for (cost, name) in [
        (DetectionCost::with_prior(0.0), "target_prior"),
        (DetectionCost::with_prior(1.0), "target_prior"),
        (DetectionCost::with_prior(f64::NAN), "target_prior"),
        (DetectionCost { miss: 0.0, ..DetectionCost::VOXSRC }, "miss"),
        (DetectionCost { false_alarm: f64::INFINITY, ..DetectionCost::VOXSRC }, "false_alarm"),
    ] {
        let found = curve.min_detection_cost(&cost);
        assert!(matches!(found, Err(Error::Parameter { what, .. }) if what == name), "{cost:?}: {found:?}");
    }
}

#[test]
fn lists_that_give_no_rate_are_refused() {
    assert_eq!(DetectionCurve::new(&[0.1], &[true, false]).unwrap_err().name(), "Length");
    for (same, pairs) in [(&[][..], 0), (&[true; 3], 3), (&[false; 3], 3)] {
        let found = DetectionCurve::new(&vec![0.5; same.len()], same);
        let count = same.iter().filter(|&&same| same).count();
        assert_eq!(found, Err(Error::OneKind { same: count, pairs }));
    }
    assert_eq!(DetectionCurve::from_kinds(vec![], vec![0.1]).unwrap_err().name(), "OneKind");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let found = DetectionCurve::new(&[0.5, bad, 0.1], &[true, true, false]);
        assert!(matches!(found, Err(Error::NonFinite { what: "scores", at: 1, .. })), "{found:?}");
    }
    assert_eq!(curve(&[1.0], &[0.0]).thinned(1).unwrap_err().name(), "Parameter");
}

/// No order of the pairs and no rising function of the scores decides a result; with the kinds exchanged and the scores turned
/// round, the errors change places.
#[test]
fn only_the_order_of_scores_counts() {
    let mut rng = random(3);
    let mut pairs: Vec<(f32, bool)> =
        (0..500).map(|i| ((rng.random_range(0..60) + 15 * (i % 2)) as f32 / 40.0, i % 2 == 1)).collect();
    let split = |pairs: &[(f32, bool)]| pairs.iter().copied().unzip::<f32, bool, Vec<_>, Vec<_>>();
    let of = |(scores, same): (Vec<f32>, Vec<bool>)| DetectionCurve::new(&scores, &same).unwrap();
    let first = of(split(&pairs));
    pairs.shuffle(&mut rng);
    assert_eq!(of(split(&pairs)), first);
    let squared = of(split(&pairs.iter().map(|&(s, same)| (s * s - 3.0, same)).collect::<Vec<_>>()));
    assert_eq!(squared.equal_error_rate(), first.equal_error_rate());
    let turned = of(split(&pairs.iter().map(|&(s, same)| (-s, !same)).collect::<Vec<_>>()));
    close("turned", turned.equal_error_rate(), first.equal_error_rate(), 1e-15);
    let costs = |curve: &DetectionCurve, prior| curve.min_detection_cost(&DetectionCost::with_prior(prior)).unwrap();
    close("cost", costs(&turned, 0.2), costs(&first, 0.8), 1e-15);
}

#[test]
fn drawings_keep_both_ends_and_few_points() {
    let mut rng = random(4);
    let draw = |rng: &mut _, add: f32| (0..20_000).map(|_| RngExt::random::<f32>(rng) + add).collect::<Vec<f32>>();
    let curve = curve(&draw(&mut rng, 0.4), &draw(&mut rng, 0.0));
    let all: Vec<_> = curve.points().collect();
    for most in [2, 3, 10, 200] {
        let kept = curve.thinned(most).unwrap();
        assert!(kept.len() <= most + 1, "{} of {most}", kept.len());
        assert_eq!((kept.first(), kept.last()), (all.first(), all.last()));
        assert!(kept.iter().all(|point| all.contains(point)));
    }
    assert!(curve.thinned(200).unwrap().len() > 100);
    assert_eq!(self::curve(&[1.0], &[0.0]).thinned(10).unwrap().len(), 3);
}

#[test]
fn folds_by_hand() {
    let same = [true, true, false, false, true, false];
    let scores = [0.9, 0.3, 0.4, 0.1, 0.6, 0.5];
    // fold 0 is judged at 0.55, half way between 0.6 and 0.5; fold 1 at 0.65: at 0.9 alone, and from 0.3 on, 3 of 4 are right
    let found = pair_accuracy(&scores, &same, &[0, 0, 0, 0, 1, 1]).unwrap();
    assert_eq!(found.folds, [0.75, 0.5]);
    all_close("thresholds", &found.thresholds, &[0.55, 0.65], 1e-7);
    assert_eq!(found.mean(), 0.625);
    close("deviation", found.deviation(), 0.125 * 2_f64.sqrt(), 1e-15);
    close("standard error", found.standard_error(), 0.125, 1e-15);
    // where rejecting all is best the threshold is above all, and a fold's own scores never count
    let found =
        pair_accuracy(&[0.1, 0.8, 0.9, 5.0, 0.2], &[true, false, false, true, false], &[0, 0, 0, 1, 1]).unwrap();
    assert_eq!((found.thresholds[1], found.folds[1]), (f64::INFINITY, 0.5));
    assert_eq!(contiguous_folds(7, 3).unwrap(), [0, 0, 0, 1, 1, 2, 2]);
}

#[test]
fn folds_that_cannot_be_measured_are_refused() {
    let same = [true, false, true, false];
    let of = |folds: &[u32]| pair_accuracy(&[0.1, 0.2, 0.3, 0.4], &same, folds).map_err(|error| error.name());
    assert_eq!(of(&[0, 0, 1]), Err("Length"));
    for folds in [[0, 0, 0, 0], [0, 0, 2, 2], [0, 1, u32::MAX, 1], [1, 1, 1, 1]] {
        assert_eq!(of(&folds), Err("Parameter"), "{folds:?}");
    }
    assert_eq!(of(&[0, 1, 0, 1]), Err("OneKind"), "the other fold has pairs of one kind only");
    for (pairs, folds) in [(3, 1), (3, 4), (0, 2)] {
        assert_eq!(contiguous_folds(pairs, folds).unwrap_err().name(), "Parameter");
    }
}

#[test]
fn identification_by_hand() {
    // three probes, their two nearest in the gallery; 7 is in no gallery
    let found = MatchCurve::of_gallery(2, &[4, 5, 5, 4, 4, 5], &[4, 4, 7]).unwrap();
    assert_eq!((found.searches(), found.max_rank()), (3, 2));
    assert_eq!([1, 2].map(|rank| found.rate(rank).unwrap()), [1.0 / 3.0, 2.0 / 3.0]);
    assert!(found.rate(0).is_err() && found.rate(3).is_err());
    // of probe 0 the distractors score 0.5 and 0.3: a mate at 0.5 comes behind the one that scores as high
    let mate = |probe, score| Mate { probe, score };
    let mates = [mate(0, 0.6), mate(0, 0.5), mate(0, 0.2), mate(1, 0.0)];
    let found = MatchCurve::with_distractors(2, &[0.3, 0.5, -0.5, -0.1], &mates).unwrap();
    assert_eq!((found.rate(1).unwrap(), found.rate(2).unwrap(), found.searches()), (0.5, 0.75, 4));
    let name = |count, distractors: &[f32], mates: &[Mate]| {
        MatchCurve::with_distractors(count, distractors, mates).unwrap_err().name()
    };
    assert_eq!(name(0, &[], &mates), "Zero");
    assert_eq!(name(2, &[], &mates), "Zero");
    assert_eq!(name(2, &[0.1, 0.2, 0.3], &mates), "Length");
    assert_eq!(name(2, &[0.1, f32::NAN], &mates), "NonFinite");
    assert_eq!(name(2, &[0.1, 0.2], &mates), "Index");
    assert_eq!(name(2, &[0.1, 0.2], &[]), "Zero");
    assert_eq!(name(2, &[0.1, 0.2], &[mate(0, f32::NAN)]), "NonFinite");
    assert_eq!(MatchCurve::of_gallery(2, &[1, 2], &[1, 2]).unwrap_err().name(), "Length");
    assert_eq!(MatchCurve::of_gallery::<i64>(2, &[], &[]).unwrap_err().name(), "Zero");
}

#[test]
fn normalisation_by_hand() {
    // means 2 and 5, deviations with two as divisor 1 and 3
    let cohort = CohortStatistics::new(2, &[1.0, 3.0, 8.0, 2.0]).unwrap();
    assert_eq!((cohort.mean(1), cohort.deviation(1), cohort.items(), cohort.mean(2)), (Some(5.0), Some(3.0), 2, None));
    let scores = adaptive_s_norm(&[8.0, 5.0], &[[0, 1], [1, 1]], &cohort, &cohort).unwrap();
    assert_eq!(scores, [3.5, 0.0]); // ½·(6 + 1)
    assert_eq!(CohortStatistics::new(1, &[0.5]).unwrap_err().name(), "Parameter");
    assert_eq!(CohortStatistics::new(2, &[0.5; 3]).unwrap_err().name(), "Length");
    assert_eq!(CohortStatistics::new(2, &[0.5, f32::NAN]).unwrap_err().name(), "NonFinite");
    assert_eq!(CohortStatistics::new(2, &[0.1, 0.2, 0.3, 0.3]), Err(Error::NoSpread { what: "scores", row: 1 }));
    let name =
        |scores: &[f32], pairs: &[[u32; 2]]| adaptive_s_norm(scores, pairs, &cohort, &cohort).unwrap_err().name();
    assert_eq!(name(&[0.1], &[]), "Length");
    assert_eq!(name(&[0.1], &[[0, 2]]), "Index");
    assert_eq!(name(&[f32::INFINITY], &[[0, 1]]), "NonFinite");
}

#[test]
fn ten_million_scores() {
    let n = 10_000_000_u64;
    let scores: Vec<f32> = (0..n).map(|i| mixed(5, i) as u32 as f32 / u32::MAX as f32).collect();
    let same: Vec<bool> = (0..n).map(|i| i % 10 == 0).collect();
    let curve = DetectionCurve::new(&scores, &same).unwrap();
    // both kinds are drawn alike: six deviations of the rate of a million
    close("EER", curve.equal_error_rate(), 0.5, 6.0 * 0.5 / 1e3);
    close("TAR", curve.true_accept_rate(1e-3).unwrap(), 1e-3, 6.0 * (1e-3_f64 / 1e6).sqrt());
    close("minDCF", curve.min_detection_cost(&DetectionCost::VOXCELEB).unwrap(), 1.0, 1e-3);
    assert!(curve.thinned(1000).unwrap().len() <= 1001);
}

/// SplitMix64 of a counter, as in fixtures/verification.py.
fn mixed(seed: u64, i: u64) -> u64 {
    let x = ((seed << 32) + i).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(feature = "serde")]
mod sklearn {
    use margin_softmax::verification::*;
    use serde_json::Value;

    use super::mixed;
    use crate::common::*;

    fn expected() -> Value {
        serde_json::from_str(include_str!("fixtures/verification.json")).unwrap()
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(number).collect()
    }

    /// The scores of the script.
    fn pairs(seed: u64, step: i64) -> (Vec<f32>, Vec<bool>) {
        let pair = |i| {
            let bits = mixed(seed, i);
            let same = bits & 7 == 0;
            let parts: i64 = [8, 22, 36, 50].map(|shift| (bits >> shift & 0x3fff) as i64).iter().sum();
            let whole = (parts - 32_766 + 9_000 * i64::from(same)).div_euclid(step) * step;
            ((whole as f64 / 65_536.0) as f32, same)
        };
        (0..100_000).map(pair).unzip()
    }

    #[test]
    fn curves_agree() {
        for case in expected()["curves"].as_array().unwrap() {
            let (scores, same) = pairs(case["seed"].as_u64().unwrap(), case["step"].as_i64().unwrap());
            assert_eq!(scores.iter().map(|&s| f64::from(s)).sum::<f64>(), number(&case["sum"]), "the same scores");
            let curve = DetectionCurve::new(&scores, &same).unwrap();
            assert_eq!(curve.same_pairs() as u64, case["same"].as_u64().unwrap());
            let points: Vec<_> = curve.points().collect();
            assert_eq!(points.len() as u64, case["thresholds"].as_u64().unwrap());
            let sum = |of: fn(&OperatingPoint) -> f64| points.iter().map(of).sum::<f64>();
            // of up to 1e5 rates, each rounded
            let sums = [sum(|p| p.false_accept_rate), sum(OperatingPoint::true_accept_rate)];
            all_close("sums", &sums, &numbers(&case["sums"]), 1e-6);
            for point in case["points"].as_array().unwrap() {
                let own = points[point[0].as_u64().unwrap() as usize];
                assert_eq!(f64::from(own.threshold), point[1].as_f64().unwrap_or(f64::INFINITY));
                close("FAR", own.false_accept_rate, number(&point[2]), 1e-15);
                close("TAR", own.true_accept_rate(), number(&point[3]), 1e-15);
            }
            close("EER", curve.equal_error_rate(), number(&case["equal_error_rate"]), 1e-14);
            for pair in case["true_accept_rates"].as_array().unwrap() {
                let [far, tar] = numbers(pair)[..] else { panic!("two numbers") };
                close(format_args!("TAR at {far}"), curve.true_accept_rate(far).unwrap(), tar, 1e-15);
            }
            for cost in case["min_costs"].as_array().unwrap() {
                let [target_prior, miss, false_alarm, least] = numbers(cost)[..] else { panic!("four numbers") };
                let cost = DetectionCost { target_prior, miss, false_alarm };
                close(format_args!("{cost:?}"), curve.min_detection_cost(&cost).unwrap(), least, 1e-13);
            }
            let folds = pair_accuracy(&scores, &same, &contiguous_folds(scores.len(), 10).unwrap()).unwrap();
            all_close("folds", &folds.folds, &numbers(&case["folds"]), 1e-15);
            assert_eq!(folds.thresholds, numbers(&case["fold_thresholds"]));
            close("mean", folds.mean(), number(&case["mean"]), 1e-15);
            close("deviation", folds.deviation(), number(&case["deviation"]), 1e-15);
        }
    }

    #[test]
    fn top_k_agrees() {
        let (probes, identities) = (500_u64, 40_u64);
        let own: Vec<u64> = (0..probes).map(|i| mixed(10, i) % identities).collect();
        let score = |i: u64, j: u64| {
            let advantage = if own[i as usize] == j { 6_000_000 } else { 0 };
            (mixed(9, i * identities + j) >> 40) + advantage
        };
        let mut nearest = vec![];
        for i in 0..probes {
            let mut order: Vec<u64> = (0..identities).collect();
            order.sort_by_key(|&j| std::cmp::Reverse(score(i, j)));
            nearest.extend(&order[..10]);
        }
        let found = MatchCurve::of_gallery(10, &nearest, &own).unwrap();
        for (k, expected) in expected()["top_k"].as_object().unwrap() {
            close(format_args!("top {k}"), found.rate(k.parse().unwrap()).unwrap(), number(expected), 1e-15);
        }
    }

    #[test]
    fn as_norm_agrees() {
        let score = |bits: u64| ((bits >> 44) as f64 / 1_048_576.0) as f32;
        let mut cohort: Vec<f32> = vec![];
        for item in 0..60 {
            let mut own: Vec<f32> = (0..200).map(|j| score(mixed(11, item * 200 + j))).collect();
            own.sort_by(|a, b| b.total_cmp(a));
            cohort.extend(&own[..30]);
        }
        let cohort = CohortStatistics::new(30, &cohort).unwrap();
        let bits: Vec<u64> = (0..100).map(|i| mixed(12, i)).collect();
        let pairs: Vec<[u32; 2]> = bits.iter().map(|b| [b % 60, b / 60 % 60].map(|item| item as u32)).collect();
        let scores: Vec<f32> = bits.iter().map(|&b| score(b)).collect();
        let found = adaptive_s_norm(&scores, &pairs, &cohort, &cohort).unwrap();
        let found: Vec<f64> = found.iter().map(|&s| s.into()).collect();
        // scores up to 50 in f32
        all_close("as-norm", &found, &numbers(&expected()["as_norm"]), 5e-6);
    }
}
