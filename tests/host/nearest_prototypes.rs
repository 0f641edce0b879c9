//! The angles from prototypes to their nearest neighbours, and the mean gap of a report.

use std::f64::consts::{FRAC_PI_2, PI};

use margin_softmax::{Backend, Error, monitor::Monitor, theory};

use crate::common::*;

fn backends() -> Vec<Backend> {
    vec![
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ]
}

/// 45, 71.565 and 116.565 degrees between three prototypes; on a circle of them twice the same angle.
#[test]
fn nearest_angles_by_hand() {
    for backend in backends() {
        let name = backend.name();
        let found = backend.nearest_prototype_angles(2, &[1.0, 1.0, 0.0, 2.0, -3.0, 1.0]).unwrap();
        let [first, second] = [PI / 4.0, 3_f64.atan()];
        // a cosine is off by 2 ulp
        close(&name, found.mean, (2.0 * first + second) / 3.0, 1e-6);
        close(&name, found.least, first, 1e-6);
        let two = backend.nearest_prototype_angles(3, &[0.0, 0.0, 5.0, 0.1, 0.0, 0.0]).unwrap();
        close(&name, two.mean, FRAC_PI_2, 1e-6);
        close(&name, two.least, FRAC_PI_2, 1e-6);
    }
}

/// Every pair looked at one by one, over more prototypes than one chunk has.
#[test]
fn nearest_angles_agree_with_the_obvious_computation() {
    let mut rng = random(5);
    let mut sizes = vec![(2, 5), (40, 3), (300, 16)];
    if cfg!(feature = "cpu") {
        sizes.push((2100, 6));
    }
    for (classes, dim) in sizes {
        let all: Vec<Vec<f64>> = (0..classes).map(|_| direction(&mut rng, dim)).collect();
        let nearest = |i: usize| {
            let cosines = (0..classes).filter(|&j| j != i).map(|j| dot(&all[i], &all[j]));
            cosines.fold(-1.0, f64::max).acos()
        };
        let angles: Vec<f64> = (0..classes).map(nearest).collect();
        let mean = angles.iter().sum::<f64>() / classes as f64;
        let least = angles.iter().copied().fold(PI, f64::min);
        // a prototype's length does not matter
        let lengths = (0..).map(|i| [1.0, 0.01, 30.0][i % 3]);
        let w: Vec<f32> = all.iter().zip(lengths).flat_map(|(w, l)| w.iter().map(move |v| (v * l) as f32)).collect();
        // only the last of all backends, the fastest, looks at the largest
        for backend in backends().into_iter().skip(usize::from(classes > 2000)) {
            let what = format!("{}, {classes} x {dim}", backend.name());
            let found = backend.nearest_prototype_angles(dim, &w).unwrap();
            close(&what, found.mean, mean, 2e-6 / least.sin());
            close(&what, found.least, least, 2e-6 / least.sin());
        }
    }
}

/// Proposition 1 on random prototypes. The mean over one head deviates more than over independent samples, as
/// the two of a closest pair are near to each other: by less than twice as much.
#[test]
fn random_prototypes_lie_as_far_apart_as_the_theory_says() {
    let mut rng = random(8);
    for (classes, dim) in [(1500, 16), (1000, 64)] {
        let all: Vec<Vec<f64>> = (0..classes).map(|_| direction(&mut rng, dim)).collect();
        let nearest = |i: usize| (0..classes).filter(|&j| j != i).map(|j| dot(&all[i], &all[j])).fold(-1.0, f64::max);
        let (mean, error) = mean_and_error(&(0..classes).map(|i| nearest(i).acos()).collect::<Vec<_>>());
        let w: Vec<f32> = all.concat().iter().map(|&v| v as f32).collect();
        let found = backends().pop().unwrap().nearest_prototype_angles(dim, &w).unwrap();
        close(classes, found.mean, mean, 1e-5);
        close(classes, found.mean, theory::nearest_prototype_angle(classes, dim).unwrap(), 8.0 * error);
        // an asymptote, and one draw of it
        let pair = theory::closest_pair_asymptote(classes, dim).unwrap();
        assert!((found.least / pair - 1.0).abs() < 0.2, "{} is not about {pair}", found.least);
    }
}

#[test]
fn nearest_angles_of_odd_prototypes() {
    let length = |found, expected| Error::Length { what: "prototypes", found, expected };
    for backend in backends() {
        let name = backend.name();
        let angles = |dim, w: &[f32]| backend.nearest_prototype_angles(dim, w).map(|found| [found.mean, found.least]);
        assert_eq!((angles(3, &[]), angles(3, &[1.0, 2.0, 3.0])), (Ok([0.0; 2]), Ok([0.0; 2])));
        // three copies and one opposite; equal prototypes are as near as f32 sees
        let found = angles(2, &[1.0, 2.0, 2.0, 4.0, 1.0, 2.0, -1.0, -2.0]).unwrap();
        close(&name, found[0], PI / 4.0, 2e-3);
        close(&name, found[1], 0.0, 2e-3);
        // at right angles to everything
        close(&name, angles(2, &[0.0, 0.0, 3.0, 4.0]).unwrap()[0], FRAC_PI_2, 1e-6);
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 5, 799] {
                let mut w = vec![1.0; 800];
                w[at] = bad;
                assert!(angles(2, &w).unwrap().iter().all(|a| a.is_nan()), "{name} {bad} {at}");
            }
            assert!(angles(3, &[1.0, bad, 0.0]).unwrap().iter().all(|a| a.is_nan()), "{name} {bad}");
        }
        assert_eq!(angles(0, &[1.0]), Err(Error::Zero { what: "dim" }));
        assert_eq!(angles(2, &[1.0; 3]), Err(length(3, 2)));
    }
}

/// M_inter − M_intra, by hand, and the scale that follows from it.
#[test]
fn the_mean_gap_of_a_report() {
    let (x, w) = (vec![3.0, 4.0, -1.0, 2.0], vec![1.0, 1.0, 0.0, 2.0, -3.0, 1.0]);
    let case = Case::new(margin_softmax::MarginSoftmax::arcgrad(), 2, x, w, vec![0, 2]);
    let mut monitor = Monitor::new(6).unwrap();
    monitor.add(&case.run(), &case.labels, None).unwrap();
    let gap = monitor.report().mean_gap();
    close("gap", gap, 0.5535744 - 0.4636476, 1e-7); // two golden numbers of seven digits
    printed("scale", theory::arcgrad_scale(3, gap).unwrap() * gap, "1.463056");
    assert_eq!(Monitor::new(6).unwrap().report().mean_gap(), 0.0);
}
