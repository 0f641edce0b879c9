//! Scores of pairs and the nearest items of a gallery, on any backend.

use margin_softmax::{Backend, Error, reference};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Off by more than this no cosine may be.
const OFF: f64 = 2e-6;

fn vectors(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn check_pairs(backend: &Backend, dim: usize, left: &[f32], right: &[f32], pairs: &[[u32; 2]]) {
    let found = backend.pair_cosines(dim, left, right, pairs).unwrap();
    let exact = reference::pair_cosines(dim, &wide(left), &wide(right), pairs).unwrap();
    assert_eq!(found.len(), pairs.len());
    for ((found, exact), pair) in found.iter().zip(&exact).zip(pairs) {
        assert!((f64::from(*found) - exact).abs() <= OFF, "{dim}, {pair:?}: {found} is not {exact}");
    }
}

/// Sparse lists over more rows than a block has, dense ones, in any order, with pairs that occur twice.
pub fn pairs_agree_with_the_reference(backend: &Backend) {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    for (dim, rows) in [(1, [40, 30]), (33, [150, 170]), (3, [60, 9000])] {
        let [left, right] = rows.map(|rows| vectors(rng, rows, dim));
        let [n, m] = rows.map(|rows| rows as u32);
        let sparse: Vec<[u32; 2]> =
            (0..500).map(|_| [rng.random_range(0..n), rng.random_range(0..m)]).flat_map(|pair| [pair, pair]).collect();
        check_pairs(backend, dim, &left, &right, &sparse);
        let dense: Vec<[u32; 2]> = (0..m.min(200)).rev().flat_map(|j| (0..n).map(move |i| [i, j])).collect();
        check_pairs(backend, dim, &left, &right, &dense);
        check_pairs(backend, dim, &left, &right, &[]);
    }
    // lengths far from 1, a zero vector, and one too short to have a direction
    let odd = [3e30, 4e30, 3e-10, 4e-10, 0.0, 0.0, 6e-14, 8e-14, -1.0, 0.0];
    let pairs: Vec<[u32; 2]> = (0..5).flat_map(|i| (0..5).map(move |j| [i, j])).collect();
    check_pairs(backend, 2, &odd, &odd, &pairs);
}

/// By a predictor and, beyond its 64, by blocks of cosines.
pub fn nearest_agree_with_the_reference(backend: &Backend) {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    for (dim, [rows, items], counts) in
        [(33, [70, 300], &[1, 5, 64, 65, 300][..]), (2, [5, 9000], &[3, 200]), (5, [3, 1], &[1])]
    {
        let [probes, gallery] = [rows, items].map(|rows| vectors(rng, rows, dim));
        let exact = reference::cosines(dim, &wide(&probes), &wide(&gallery)).unwrap();
        for &count in counts {
            let found = backend.nearest(dim, &probes, &gallery, count).unwrap();
            assert_eq!((found.count, found.items.len(), found.cosines.len()), (count, rows * count, rows * count));
            for (i, exact) in exact.chunks_exact(items).enumerate() {
                let own = i * count..(i + 1) * count;
                let mut sorted = exact.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let all = found.items[own.clone()].iter().zip(&found.cosines[own]).zip(&sorted);
                for ((&item, &cosine), best) in all {
                    let what = format!("{dim}, {count} of {items}, probe {i}: item {item}");
                    assert!((f64::from(cosine) - exact[item as usize]).abs() <= OFF, "{what} has {cosine}");
                    assert!((f64::from(cosine) - best).abs() <= OFF, "{what} is in the place of {best}");
                }
            }
            let mut distinct: Vec<u32> = found.items[..count].to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), count, "an item came twice");
        }
    }
    let empty = backend.nearest(2, &[], &[1.0, 0.0], 1).unwrap();
    assert_eq!((empty.items.len(), empty.cosines.len()), (0, 0));
}

pub fn wrong_scores_are_refused(backend: &Backend) {
    let x = [1.0, 0.0, 0.0, 1.0];
    let pairs = |dim, left: &[f32], right: &[f32], pairs: &[[u32; 2]]| {
        backend.pair_cosines(dim, left, right, pairs).unwrap_err()
    };
    assert_eq!(pairs(0, &x, &x, &[]).name(), "Zero");
    assert_eq!(pairs(3, &x, &x, &[]), Error::Length { what: "left", found: 4, expected: 3 });
    assert_eq!(pairs(2, &x, &x[..3], &[]), Error::Length { what: "right", found: 3, expected: 2 });
    assert_eq!(pairs(2, &x, &x, &[[0, 1], [0, 2]]), Error::Index { what: "pairs", at: 1, found: 2, len: 2 });
    let infinite = [1.0, f32::INFINITY, 0.0, 1.0];
    assert_eq!(pairs(2, &x, &infinite, &[[0, 1]]), Error::NonFinite { what: "right", at: 1, found: f32::INFINITY });
    let nearest = |probes: &[f32], gallery: &[f32], count| backend.nearest(2, probes, gallery, count).unwrap_err();
    assert_eq!(nearest(&x, &x, 0).name(), "Parameter");
    assert_eq!(nearest(&x, &x, 3).name(), "Parameter");
    assert_eq!(nearest(&x, &[], 1).name(), "Parameter");
    assert_eq!(nearest(&infinite, &x, 1).name(), "NonFinite");
    assert_eq!(nearest(&x, &infinite, 1).name(), "NonFinite");
    assert_eq!(nearest(&x[..3], &x, 1).name(), "Length");
}
