"""Error rates, folds, identification and normalisation over numpy arrays."""

import threading

import numpy as np
import pytest

from margin_softmax import verification as v

SCORES = np.array([0.9, 0.7, 0.6, 0.3, 0.8, 0.4, 0.2, 0.1], np.float32)
SAME = np.array([1, 1, 1, 1, 0, 0, 0, 0])


def random_pairs(count=20_000, seed=0):
    draw = np.random.default_rng(seed)
    same = draw.random(count) < 0.2
    # in steps, so that many are equal
    return (np.round((draw.standard_normal(count) + 1.5 * same) * 50) / 50).astype(np.float32), same


def test_rates_by_hand():
    assert v.eer(SCORES, SAME) == v.eer(SCORES.astype(float), SAME.astype(bool)) == v.eer(list(SCORES), list(SAME)) == 0.25
    assert [v.tar_at_far(SCORES, SAME, far) for far in (0, 0.25, 1)] == [0.25, 0.75, 1.0]
    assert v.min_dcf(SCORES, SAME) == 0.75
    assert v.min_dcf(SCORES, SAME, target_prior=0.5) == 0.5
    far, tar, thresholds = v.roc(SCORES, SAME)
    assert thresholds[0] == np.inf and len(far) == len(tar) == 9 and (far[-1], tar[-1]) == (1, 1)
    assert len(v.roc(*random_pairs(), points=20)[0]) <= 21


def test_rates_beside_numpy():
    scores, same = random_pairs()
    far, tar, thresholds = v.roc(scores, same)
    for at in (0, 1, 7, len(far) // 2, len(far) - 1):
        assert far[at] == np.mean(scores[~same] >= thresholds[at])
        assert abs(tar[at] - np.mean(scores[same] >= thresholds[at])) < 1e-15
    assert np.isin(thresholds[1:], scores).all() and len(thresholds) == len(np.unique(scores)) + 1
    assert v.tar_at_far(scores, same, 0.01) == tar[far <= 0.01].max()
    cost = 0.05 * (1 - tar) + 0.95 * far
    assert abs(v.min_dcf(scores, same, 0.05) - cost.min() / 0.05) < 1e-12
    found = v.eer(scores, same)
    assert abs(np.interp(found, far, 1 - tar) - found) < 1e-12


def test_pair_accuracy():
    scores, same = random_pairs(6000)
    found = v.pair_accuracy(scores, same)
    assert len(found["folds"]) == len(found["thresholds"]) == 10
    assert found["folds"][3] == np.mean((scores[1800:2400] >= found["thresholds"][3]) == same[1800:2400])
    assert abs(found["deviation"] - np.std(found["folds"], ddof=1)) < 1e-15
    assert abs(found["standard_error"] - found["deviation"] / 10**0.5) < 1e-15
    assert v.pair_accuracy(scores, same, np.arange(6000) // 600) == found


def test_identification():
    assert v.top_k([[4, 5], [5, 4], [4, 5]], [4, 4, 7]) == [1 / 3, 2 / 3]
    assert v.rank1(np.array([[4], [5]], np.int32), np.array([4, 4], np.uint8)) == 0.5
    assert v.with_distractors([[0.3, 0.5], [-0.5, -0.1]], [0, 0, 0, 1], [0.6, 0.5, 0.2, 0.0]) == [0.5, 0.75]


def test_cosines_and_normalisation():
    draw = np.random.default_rng(1)
    x, cohort = draw.standard_normal((30, 8)).astype("f4"), draw.standard_normal((100, 8)).astype("f4")
    pairs = draw.integers(0, 30, (50, 2))
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    cosines = v.pair_cosines(x, x, pairs, device="cpu")
    np.testing.assert_allclose(cosines, (unit(x)[pairs[:, 0]] * unit(x)[pairs[:, 1]]).sum(1), atol=2e-6)
    every = -np.sort(-unit(x) @ unit(cohort).T, axis=1)
    for k in (5, 80):
        items, nearest = v.nearest(x, cohort, k, device="cpu", threads=1)
        assert items.shape == nearest.shape == (30, k) and items.dtype == np.int64
        np.testing.assert_allclose(nearest, every[:, :k], atol=2e-6)
        mean, deviation = nearest.astype(float).mean(1), nearest.astype(float).std(1)
        expected = sum((cosines - mean[pairs[:, side]]) / deviation[pairs[:, side]] for side in (0, 1)) / 2
        np.testing.assert_allclose(v.as_norm(cosines, pairs, nearest), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(v.as_norm(cosines, pairs, nearest, nearest), v.as_norm(cosines, pairs, nearest))


@pytest.mark.parametrize(
    "error, words, call",
    [
        (ValueError, "of 3 pairs 3 are of the same identity", lambda: v.eer([1, 2, 3], [1, 1, 1])),
        (ValueError, "`scores` has NaN at position 1", lambda: v.eer([1, np.nan], [1, 0])),
        (ValueError, "`same` has 2 values, expected 3", lambda: v.eer([1, 2, 3], [1, 0])),
        (TypeError, "booleans", lambda: v.eer([1, 2], [1, 2])),
        (TypeError, "floating-point", lambda: v.eer(["a", "b"], [1, 0])),
        (ValueError, "`target_prior` is 1", lambda: v.min_dcf(SCORES, SAME, 1.0)),
        (ValueError, "`far` is 2", lambda: v.tar_at_far(SCORES, SAME, 2)),
        (ValueError, "`folds` is 9", lambda: v.pair_accuracy(SCORES, SAME, 9)),
        (ValueError, "no index of an item", lambda: v.pair_accuracy(SCORES, SAME, -np.arange(8))),
        (ValueError, "`nearest` has shape", lambda: v.top_k([[1, 2]], [1, 2])),
        (ValueError, "names item 3 at position 0", lambda: v.as_norm([0.5], [[0, 3]], [[0.1, 0.2]])),
        (ValueError, "`pairs` has shape", lambda: v.as_norm([0.5], [[0, 1, 2]], [[0.1, 0.2]])),
        (ValueError, "all equal", lambda: v.as_norm([0.5], [[0, 0]], [[0.1, 0.1]])),
        (ValueError, "`count` is 0", lambda: v.nearest(np.eye(2), np.eye(2), 0, device="cpu")),
        (ValueError, "`right` has shape", lambda: v.pair_cosines(np.eye(2), np.eye(3), [[0, 0]], device="cpu")),
    ],
)
def test_mistakes(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_the_interpreter_runs_on_while_scores_are_sorted():
    draw = np.random.default_rng(0)
    scores, same = draw.random(3_000_000, np.float32), draw.random(3_000_000) < 0.5
    done, ticks = threading.Event(), [0]

    def compute():
        v.eer(scores, same)
        done.set()

    thread = threading.Thread(target=compute)
    thread.start()
    while not done.wait(0.001):
        ticks[0] += 1
    thread.join()
    # with the lock held, no tick would fall into the call
    assert ticks[0] > 5
