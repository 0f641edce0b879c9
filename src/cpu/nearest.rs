//! The largest cosines of a row, in order.

use super::vector::{LANES, max_of};

/// Takes up the cosines of two runs of classes, each from its first class on, if the largest of them is near enough.
#[inline(always)]
pub(super) fn take(top: &mut [(f32, u32)], nearest: f32, runs: [(&[f32], usize); 2]) {
    if nearest > top[top.len() - 1].0 {
        runs.into_iter().for_each(|(cosines, first)| select(top, cosines, first));
    }
}

/// Takes up the cosines of the classes from `first` on; of equal ones the first stays.
#[inline(always)]
fn select(top: &mut [(f32, u32)], cosines: &[f32], first: usize) {
    for (b, block) in cosines.chunks(LANES).enumerate() {
        if max_of(block) > top[top.len() - 1].0 {
            for (j, &c) in block.iter().enumerate() {
                insert(top, (c, (first + b * LANES + j) as u32));
            }
        }
    }
}

/// Puts a class in its place behind all that are as near, if it is among the nearest.
#[inline(always)]
pub(super) fn insert(top: &mut [(f32, u32)], new: (f32, u32)) {
    let Some(mut at) = top.len().checked_sub(1).filter(|&last| new.0 > top[last].0) else { return };
    while at > 0 && new.0 > top[at - 1].0 {
        top[at] = top[at - 1];
        at -= 1;
    }
    top[at] = new;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The k largest, best first, the lower class first on ties; whatever comes in one piece or in several.
    #[test]
    fn select_keeps_the_largest() {
        let cosines: Vec<f32> = (0..200).map(|i| ((i * 37) % 50) as f32 / 50.0 - 0.3).collect();
        for count in [1, 5, 64] {
            let mut all: Vec<(f32, u32)> = cosines.iter().enumerate().map(|(j, &c)| (c, 10 + j as u32)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(count);
            for cut in [0, 1, 77, 200] {
                let mut top = vec![(f32::NEG_INFINITY, u32::MAX); count];
                select(&mut top, &cosines[..cut], 10);
                select(&mut top, &cosines[cut..], 10 + cut);
                assert_eq!(top, all, "{count} of {cut}");
            }
        }
    }
}
