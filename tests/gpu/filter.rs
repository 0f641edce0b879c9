//! Gradient filtering on a device: what is left out, how much that is, and that nothing else changes.

use libtest_mimic::Failed;
use margin_softmax::{data::*, gpu::Context, *};

use crate::{
    Check,
    cases::Data,
    rig::{Rig, plain, same_output, tight},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("a_filter_that_drops_nothing_changes_no_bit", a_filter_that_drops_nothing_changes_no_bit),
    ("filtered_gradients_agree_with_the_reference", filtered_gradients_agree_with_the_reference),
    ("a_filter_in_chunks_and_shards", a_filter_in_chunks_and_shards),
    ("a_filtered_head_follows_its_rows", a_filtered_head_follows_its_rows),
    ("very_many_rows_are_listed_in_passes", very_many_rows_are_listed_in_passes),
];

fn options(epsilon: f64, tile: Tile) -> Options {
    Options { filter: Some(GradientFilter::new(epsilon).unwrap()), tile: Some(tile), ..Default::default() }
}

/// At a small scale every entry is larger than a tiny threshold.
fn a_filter_that_drops_nothing_changes_no_bit(context: &Context) -> Result<(), Failed> {
    for (n, c, d, k) in [(70, 200, 33, 1), (3, 5, 4, 1), (130, 67, 8, 1)] {
        let shape = Shape::new(n, c, d)?.with_sub_centers(k)?;
        let data = Data::random(shape, 7);
        let loss = MarginSoftmax::cosface().with_scale(4.0);
        for tile in crate::tiles(context) {
            let off = Options { tile: Some(tile), ..Default::default() };
            let off = Rig::new(context, &loss, shape, &plain(&[c]), &off, &data)?;
            let on = Rig::new(context, &loss, shape, &plain(&[c]), &options(1e-12, tile), &data)?;
            same_output(&off.run(context)?, &on.run(context)?)?;
            assert_eq!(off.bound.read_filtered()?, None);
            let found = on.bound.read_filtered()?.unwrap();
            assert_eq!((found.dropped, found.kept, found.entries), (0.0, (n * c) as u64, (n * c) as u64));
            // the same kernels as ever without a filter
            let sources = |rig: &Rig| rig.head.plan().kernels().iter().any(|k| k.source.contains("struct Block"));
            assert!(sources(&on) && !sources(&off));
        }
    }
    Ok(())
}

/// Losses of every kind, thresholds from next to nothing to nearly everything. An entry within rounding of the threshold may
/// fall on either side: it is worth no more than the threshold, which the gate allows for once per row and class.
fn filtered_gradients_agree_with_the_reference(context: &Context) -> Result<(), Failed> {
    let named = |name| MarginSoftmax::named(name).unwrap();
    let smoothed = MarginSoftmax::arcface().with_label_smoothing(0.1);
    let losses = [
        ("arcface", named("arcface"), 1),
        ("curricularface", named("curricularface"), 1),
        ("sub-centers", named("arcface"), 3),
        ("sphereface2", named("sphereface2"), 1),
        ("smoothed", smoothed, 1),
        ("softmax", named("softmax"), 1),
        ("top_k", named("arcface_topk"), 2),
        ("none", named("cosface").with_reduction(Reduction::None), 1),
    ];
    for (name, loss, k) in losses {
        let shape = Shape::new(70, 150, 20)?.with_sub_centers(k)?;
        let mut data = Data::random(Shape::new(70, 150, 20)?, 3);
        data.prototypes = Data::random(Shape::new(1, 150 * k, 20)?, 4).prototypes;
        for epsilon in [1e-9, 1e-4, 1e-2, 0.1] {
            let want = if loss.similarity == Similarity::Dot { Want::ALL.with_bias() } else { Want::ALL };
            let whole = Options { want, ..options(epsilon, Tile::Direct) };
            let expected = Backend::reference().head_with(&loss, shape, &whole)?.evaluate(&data.batch())?;
            for tile in crate::tiles(context) {
                let options = Options { tile: Some(tile), ..whole };
                let found = Backend::Gpu(context.clone()).head_with(&loss, shape, &options)?.evaluate(&data.batch())?;
                let what = format!("{name} at {epsilon} on {}", tile.name());
                agree(&what, &found, &expected, &loss, epsilon)?;
            }
        }
    }
    Ok(())
}

fn agree(
    what: &str,
    found: &Output,
    expected: &Output,
    loss: &MarginSoftmax,
    epsilon: f64,
) -> std::result::Result<(), String> {
    let (own, other) = (found.filtered.ok_or("no report")?, expected.filtered.ok_or("no report")?);
    let near = |a: f64, b: f64, most: f64| (a - b).abs() <= most;
    // Z is the number of rows for a mean
    let rows = if loss.reduction == Reduction::Mean { found.row_losses.len() as f64 } else { 1.0 };
    let unit = epsilon * loss.scale / rows;
    // a share of what is near the threshold: entries crowd nowhere
    let flipped = own.kept.abs_diff(other.kept);
    if flipped > 1 + other.entries / 2000 || own.entries != other.entries {
        return Err(format!("{what}: {own:?}, expected {other:?}"));
    }
    let total = f64::from(other.total);
    if !near(own.total.into(), total, 2e-5 * total)
        || !near(own.dropped.into(), other.dropped.into(), 2e-5 * total + flipped as f64 * unit)
    {
        return Err(format!("{what}: {own:?}, expected {other:?}"));
    }
    for (name, found, expected) in [
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
        ("db", &found.grad_bias, &expected.grad_bias),
    ] {
        if found.len() != expected.len() {
            return Err(format!("{what}: {} and {} values", found.len(), expected.len()));
        }
        let largest = expected.iter().fold(0.0_f32, |m, e| m.max(e.abs()));
        // vectors of the data are about as long as 1 or longer; 1e-4 is several times the gate of exact gradients here
        let most = 1e-4 * largest + if flipped > 0 { 4.0 * unit as f32 } else { 0.0 };
        let off = found.iter().zip(expected).fold(0.0_f32, |m, (f, e)| m.max((f - e).abs()));
        if off.is_nan() || off > most {
            return Err(format!("{what}: {name} is off by {off:e} > {most:e}, the largest is {largest:e}"));
        }
    }
    Ok(())
}

/// What is dropped does not depend on how the classes are cut; the second run gives the same bits.
fn a_filter_in_chunks_and_shards(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(70, 1000, 12)?;
    let data = Data::random(shape, 5);
    let loss = MarginSoftmax::arcface();
    let shards = [576, 424];
    for tile in crate::tiles(context) {
        let options = options(1e-4, tile);
        let whole = Rig::new(context, &loss, shape, &plain(&[1000]), &options, &data)?;
        let one = whole.run(context)?;
        let budget = tight(context, &loss, shape, &plain(&shards), &options);
        let rig = Rig::new(context, &loss, shape, &plain(&shards), &Options { budget, ..options }, &data)?;
        assert!(rig.head.plan().schedule().chunks.len() > 2 && !rig.head.plan().schedule().keep);
        let many = rig.run(context)?;
        same_output(&many, &rig.run(context)?)?;
        let (a, b) = (whole.bound.read_filtered()?.unwrap(), rig.bound.read_filtered()?.unwrap());
        assert_eq!((a.kept, a.entries), (b.kept, b.entries));
        assert!(a.kept < a.entries / 2 && a.kept > 70, "{a:?}");
        assert!((a.dropped - b.dropped).abs() <= 1e-5 * a.dropped && (a.total - b.total).abs() <= 1e-5 * a.total);
        for (a, b) in [(&one.grad_embeddings, &many.grad_embeddings), (&one.grad_prototypes, &many.grad_prototypes)] {
            let largest = a.iter().fold(0.0_f32, |m, a| m.max(a.abs()));
            // sums in another order
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 4e-6 * largest));
        }
    }
    // shards on heads of their own: what they report adds up
    let exact =
        Backend::Gpu(context.clone()).head_with(&loss, shape, &options(1e-4, Tile::Direct))?.evaluate(&data.batch())?;
    let mut heads = vec![];
    for range in [0..300, 300..1000] {
        heads.push((
            range.clone(),
            Backend::Gpu(context.clone()).shard(&loss, shape, range, &options(1e-4, Tile::Direct))?,
        ));
    }
    let own = |range: &std::ops::Range<usize>| Batch {
        prototypes: &data.prototypes[range.start * 12..range.end * 12],
        ..data.batch()
    };
    let targets = heads.iter_mut().map(|(r, h)| h.targets(&own(r))).collect::<Result<Vec<_>, _>>()?;
    let targets = shard::Targets::merged(&targets, 1000)?;
    let sums = heads.iter_mut().map(|(r, h)| h.statistics(&own(r), &targets)).collect::<Result<Vec<_>, _>>()?;
    let sums = shard::Statistics::merged(&sums, 1000)?;
    let mut all = Filtered::<f64>::default();
    for (range, head) in &mut heads {
        let part = head.gradients(&own(range), &targets, &sums)?.filtered.unwrap();
        all.dropped += f64::from(part.dropped);
        all.total += f64::from(part.total);
        all.kept += part.kept;
        all.entries += part.entries;
    }
    let whole = exact.filtered.unwrap();
    assert!(all.kept.abs_diff(whole.kept) <= 20 && all.entries == whole.entries, "{all:?} {whole:?}");
    assert!((all.dropped - f64::from(whole.dropped)).abs() <= 1e-3 * all.dropped);
    assert!((all.total - f64::from(whole.total)).abs() <= 1e-4 * all.total);
    Ok(())
}

/// Fewer rows than planned, none at all, and rows that do not count.
fn a_filtered_head_follows_its_rows(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (200, 90, 8);
    let shape = Shape::new(n, c, d)?;
    let mut data = Data::random(shape, 11);
    data.labels[3] = -1;
    data.embeddings[40 * d] = f32::NAN;
    let loss = MarginSoftmax::arcface().with_ignore_index(-1);
    for tile in crate::tiles(context) {
        let options = options(1e-3, tile);
        let mut head = Backend::Gpu(context.clone()).head_with(&loss, shape, &options)?;
        for rows in [200, 130, 65, 64, 1, 0] {
            let few = Batch { embeddings: &data.embeddings[..rows * d], labels: &data.labels[..rows], ..data.batch() };
            let found = head.evaluate(&few)?;
            let expected = Backend::reference().head_with(&loss, Shape::new(rows, c, d)?, &options)?.evaluate(&few)?;
            assert_eq!(found.counts, expected.counts);
            if rows == 0 {
                assert_eq!(found.filtered, Some(Filtered::default()));
                continue;
            }
            agree(&format!("{rows} rows"), &found, &expected, &loss, 1e-3)?;
        }
    }
    Ok(())
}

/// Sums over very many rows take several passes; a list goes on from one to the next.
fn very_many_rows_are_listed_in_passes(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(70_001, 3, 2)?;
    let data = Data::random(shape, 2);
    // in two dimensions ArcFace's slope at a target cosine next to 1 has little precision
    let loss = MarginSoftmax::cosface().with_scale(8.0);
    let options = options(1e-12, Tile::Direct);
    let found = Backend::Gpu(context.clone()).head_with(&loss, shape, &options)?.evaluate(&data.batch())?;
    let expected = Backend::reference().head_with(&loss, shape, &options)?.evaluate(&data.batch())?;
    agree("70,001 rows", &found, &expected, &loss, 1e-12)?;
    Ok(())
}
