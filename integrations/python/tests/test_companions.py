"""Regularisers, center loss, monitors, other classes and progress, over numpy arrays."""

import copy
import pickle
import threading

import numpy as np
import pytest

import margin_softmax as ms

N, C, D = 6, 20, 8
BOTH = (ms.Regularizer.reg_ss, ms.Regularizer.uniform_face)


def batch(seed=0, kind=np.float32):
    draw = np.random.default_rng(seed)
    x, w = draw.standard_normal((N, D)).astype(kind), draw.standard_normal((C, D)).astype(kind)
    return x, w, draw.integers(0, C, N)


def difference(function, array, at, step=1e-6):
    moved = []
    for sign in (1, -1):
        kept, array[at] = array[at], array[at] + sign * step
        moved.append(function())
        array[at] = kept
    return (moved[0] - moved[1]) / (2 * step)


# ---- regularisers and center loss


def test_penalties_are_their_formulas():
    _, w, _ = batch(kind=np.float64)
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    value, _ = ms.Regularizer.reg_ss(3).penalty(w, device="reference")
    assert abs(value - 3 * np.linalg.norm(unit.mean(0))) < 1e-12
    apart = np.linalg.norm(unit[:, None] - unit[None], axis=2)[np.triu_indices(C, 1)]
    value, _ = ms.Regularizer.uniform_face(2).penalty(w, device="reference")
    assert abs(value - 2 * (1 / (1 + apart)).mean()) < 1e-12


@pytest.mark.parametrize("make", BOTH)
def test_gradients_of_penalties_are_those_of_differences(make):
    _, w, _ = batch(kind=np.float64)
    value, gradient = make(0.7).penalty(w, device="reference")
    for at in [(0, 0), (3, 5), (C - 1, D - 1)]:
        assert abs(difference(lambda: make(0.7).penalty(w, device="reference")[0], w, at) - gradient[at]) < 1e-8
    found, thin = make(0.7).penalty(w.astype("f4"), device="cpu", threads=1)
    assert thin.dtype == np.float32 and abs(found - value) < 1e-6
    np.testing.assert_allclose(thin, gradient, atol=1e-6)


def test_center_loss_is_its_formula():
    x, centers, y = batch(kind=np.float64)
    y[1], y[2] = y[0], -1
    loss = ms.CenterLoss(weight=0.3, rate=0.4, ignore_index=-1)
    value, gradient = loss.evaluate(x, y, centers, device="reference")
    rows = np.flatnonzero(y >= 0)
    expected = 0.3 / (2 * len(rows)) * sum(np.sum((x[i] - centers[y[i]]) ** 2) for i in rows)
    assert abs(value - expected) < 1e-12 and not gradient[2].any()
    for at in [(0, 1), (4, 6)]:
        assert abs(difference(lambda: loss.evaluate(x, y, centers, device="reference")[0], x, at) - gradient[at]) < 1e-8
    before, moved = centers.copy(), loss.moved(x, y, centers, device="reference")
    np.testing.assert_array_equal(centers, before)
    for j in range(C):
        own = x[y == j]
        step = 0.4 * np.sum(centers[j] - own, 0) / (1 + len(own)) if len(own) else 0
        np.testing.assert_allclose(moved[j], centers[j] - step, atol=1e-12)
    thin = [a.astype("f4") for a in (x, centers)]
    found, gradients = loss.evaluate(thin[0], y, thin[1], device="cpu")
    assert abs(found - value) < 1e-6
    np.testing.assert_allclose(gradients, gradient, atol=1e-6)
    np.testing.assert_allclose(loss.moved(thin[0], y, thin[1], device="cpu"), moved, atol=1e-6)


def test_halves_are_widened():
    x, w, y = batch()
    half = w.astype(np.float16)
    assert BOTH[0]().penalty(half, device="cpu")[0] == BOTH[0]().penalty(half.astype("f4"), device="cpu")[0]
    found, expected = (ms.CenterLoss().evaluate(a, y, w, device="cpu")[0] for a in (x.astype("f2"), x.astype("f2").astype("f4")))
    assert found == expected


def test_they_come_back_from_dict_and_pickle():
    for one in (BOTH[0](0.25), BOTH[1](4), ms.CenterLoss(0.5, 0.25, -100)):
        for other in (type(one).from_dict(one.to_dict()), pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert other == one
        assert eval(repr(one), vars(ms)) == one
    assert BOTH[0](0.25) != BOTH[1](0.25)
    assert (BOTH[1](4).name, BOTH[1](4).weight) == ("uniform_face", 4.0)
    assert ms.CenterLoss.from_dict({}) == ms.CenterLoss()


@pytest.mark.parametrize(
    "error, words, call",
    [
        (ValueError, "`weight` is 0, allowed is 0 < weight", lambda x, w, y: ms.Regularizer.reg_ss(0)),
        (ValueError, "`rate` is 2, allowed is 0 < rate", lambda x, w, y: ms.CenterLoss(rate=2)),
        (ValueError, "this is no regularizer.*unknown variant `reg_s`", lambda x, w, y: ms.Regularizer.from_dict({"reg_s": {}})),
        (ValueError, r"`prototypes` has shape \[160\]", lambda x, w, y: BOTH[0]().penalty(w.ravel(), device="cpu")),
        (ValueError, "`prototypes` is 0", lambda x, w, y: BOTH[0]().penalty(w[:0], device="cpu")),
        (TypeError, 'float64 is for device="reference"', lambda x, w, y: BOTH[0]().penalty(w.astype("f8"), device="cpu")),
        (TypeError, "`centers` holds float64, expected float32", lambda x, w, y: ms.CenterLoss().evaluate(x, y, w.astype("f8"))),
        (ValueError, r"`centers` has shape \[20, 7\], expected \[20, 8\]", lambda x, w, y: ms.CenterLoss().moved(x, y, w[:, :7])),
        (ValueError, r"`labels` has shape \[5\], expected \[6\]", lambda x, w, y: ms.CenterLoss().evaluate(x, y[1:], w)),
        (ValueError, "row 0 has label 20, but there are only 20", lambda x, w, y: ms.CenterLoss().evaluate(x, y * 0 + C, w, device="cpu")),
    ],
)
def test_mistakes_are_named(error, words, call):
    with pytest.raises(error, match=words):
        call(*batch())


# ---- monitors


def test_report_of_a_batch():
    x, w, y = batch()
    loss = ms.MarginSoftmax.magface()
    head = ms.Head(loss, N, C, D, device="cpu")
    weights = np.linspace(0.5, 2, N, dtype="f4")
    out = head.train(x, w, y, row_weights=weights)
    report = ms.BatchReport.trained(loss, head.state, x, y, out, row_weights=weights)
    lengths = np.linalg.norm(x.astype("f8"), axis=1)
    np.testing.assert_allclose([report.length_min, report.length_mean, report.length_max], [lengths.min(), lengths.mean(), lengths.max()])
    assert report.rows == N and report.lengths_outside == 1.0 and report.scale == 64.0
    assert abs(report.margin_loss + report.length_loss - out.loss) < 1e-5 * out.loss
    np.testing.assert_allclose(report.target_cosines, np.quantile(out.target_cosines, [0.05, 0.25, 0.5, 0.75, 0.95]), atol=1e-7)
    assert abs(report.embedding_gradient - np.linalg.norm(out.grad_embeddings)) < 1e-5 * report.embedding_gradient
    assert abs(report.prototype_gradient - np.linalg.norm(out.grad_prototypes)) < 1e-5 * report.prototype_gradient
    evaluated = ms.BatchReport.evaluated(loss, head.state, x, y, head.evaluate(x, w, y))
    assert evaluated.margins == report.margins and evaluated.margin_loss != report.margin_loss
    with pytest.raises(ValueError, match="it has made no step"):
        ms.BatchReport.trained(loss, ms.Head(loss, N, C, D, device="cpu").state, x, y, out)
    with pytest.raises(TypeError, match="a report got an unexpected keyword argument 'weights'"):
        ms.BatchReport.evaluated(loss, head.state, x, y, out, weights=weights)


def test_collapse_is_seen():
    _, w, _ = batch()
    x = -w[:N]
    monitor = ms.Monitor(4)
    monitor.add(ms.Head(ms.MarginSoftmax.normface(), N, C, D, device="cpu").evaluate(x, w, np.arange(N)), np.arange(N))
    report, length = monitor.report(), ms.mean_prototype(w, device="cpu")
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    assert abs(length - np.linalg.norm(unit.mean(0))) < 1e-6
    detector = ms.CollapseDetector(C, D, warm_up=2 * N)
    # the first six rows are not enough
    assert detector.check(report, length) is None
    warning = detector.check(report, length)
    assert warning["kind"] == "repelled" and "pushed away from their own prototypes" in warning["text"]
    assert abs(warning["target_cosine"] + 1) < 1e-6 and warning["mean_prototype"] == length
    assert detector.check(report, 1.0)["kind"] == "collapsed"
    healthy = {**report, "target_cosine": 0.5}
    assert detector.check(healthy, 1.0) is None
    with pytest.raises(ValueError, match="-1 <= target_cosine <= 1"):
        ms.CollapseDetector(C, D, target_cosine=2)
    with pytest.raises(ValueError, match="this is no report"):
        detector.check({"rows": 1})


def test_angles_between_vectors():
    _, w, _ = batch()
    unit = w.astype("f8") / np.linalg.norm(w.astype("f8"), axis=1, keepdims=True)
    angles = np.arccos((unit @ unit.T)[np.triu_indices(C, 1)])
    assert abs(ms.mean_pair_angle(w, device="cpu") - angles.mean()) < 1e-5


# ---- other classes


def test_a_head_grows_and_shrinks():
    _, w, _ = batch()
    grow = ms.ClassMap.grow(C, C + 3)
    assert (grow.old_classes, grow.new_classes) == (C, C + 3)
    centers = ms.ClassCenters(C + 3, D)
    x, y = np.random.default_rng(1).standard_normal((9, D)).astype("f4"), np.arange(9) % 3 + C
    centers.add(x, y, directions=True)
    np.testing.assert_array_equal(centers.classes(), [C, C + 1, C + 2])
    new = ms.new_prototypes(w, centers)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for j in range(3):
        mean = unit[y == C + j].mean(0)
        np.testing.assert_allclose(new[j] / np.linalg.norm(new[j]), mean / np.linalg.norm(mean), atol=1e-6)
        assert abs(np.linalg.norm(new[j]) - np.linalg.norm(w, axis=1).mean()) < 1e-5
    assert np.allclose(np.linalg.norm(ms.new_prototypes(w, centers, length="unit"), axis=1), 1)
    grown = grow.values(w, new)
    np.testing.assert_array_equal(grown, np.concatenate([w, new]))
    np.testing.assert_array_equal(grow.values(np.ones(C, "f4")), [1] * C + [0] * 3)
    head = ms.Head(ms.MarginSoftmax.curricularface(), 9, C, D, device="cpu")
    head.train(x, w, y % C)
    larger = ms.Head(ms.MarginSoftmax.curricularface(), 9, C + 3, D, device="cpu")
    larger.state = grow.state(head.state)
    assert larger.state.step == 1 and larger.state.hardness == head.state.hardness
    assert larger.train(x, grown, y).loss > 0

    fewer = ms.ClassMap.without(C, [1, 3])
    assert fewer == ms.ClassMap.keep(C, np.array([j for j in range(C) if j not in (1, 3)]))
    np.testing.assert_array_equal(fewer.labels()[:5], [0, -1, 1, -1, 2])
    np.testing.assert_array_equal(fewer.relabel(np.array([0, 1, 4, -1]), ignore_index=-1), [0, -1, 2, -1])
    np.testing.assert_array_equal(fewer.values(w), np.delete(w, [1, 3], 0))
    assert ms.ClassMap.without(C, []) == ms.ClassMap.grow(C, C)


def test_sub_centers_of_new_classes():
    w = np.random.default_rng(2).standard_normal((4, 3, D)).astype("f4")
    centers = ms.ClassCenters(5, D)
    centers.add(np.ones((2, D), "f4"), np.array([4, 4]), directions=True)
    new = ms.new_prototypes(w, centers, spread=0.2, seed=7)
    unit = (new / np.linalg.norm(new, axis=2, keepdims=True))[0]
    np.testing.assert_allclose(unit @ unit[0], [1, np.cos(0.2), np.cos(0.2)], atol=1e-6)
    assert ms.ClassMap.grow(4, 5).values(w, new).shape == (5, 3, D)
    np.testing.assert_array_equal(new, ms.new_prototypes(w, centers, spread=0.2, seed=7))


def test_centers_of_classes():
    x, w, y = batch()
    one, two = ms.ClassCenters(C, D), ms.ClassCenters(C, D)
    one.add(x[:3], y[:3])
    two.add(x[3:], y[3:], ignore_index=int(y[5]))
    one.merge(two)
    kept = np.array([i for i in range(N) if i < 3 or y[i] != y[5]])
    np.testing.assert_array_equal(one.classes(), np.unique(y[kept]))
    means = np.stack([x[kept][y[kept] == j].mean(0) for j in np.unique(y[kept])])
    np.testing.assert_allclose(one.vectors(), means, atol=1e-6)
    own = w[np.unique(y[kept])]
    cosines = np.sum(means * own, 1) / np.linalg.norm(means, axis=1) / np.linalg.norm(own, axis=1)
    assert abs(one.mean_center_angle(w) - np.arccos(cosines).mean()) < 1e-6


def test_margins_by_the_rows_of_a_class():
    counts = np.array([16, 81, 10_000])
    margins = ms.count_margins(counts)
    powers = counts ** -0.25
    expected = 0.05 + 0.45 * (powers - powers.min()) / (powers.max() - powers.min())
    np.testing.assert_allclose(margins, expected, atol=1e-6)
    assert margins.dtype == np.float32


@pytest.mark.parametrize(
    "words, call",
    [
        ("classes that go on: 5, at most 4", lambda w: ms.ClassMap.grow(5, 4)),
        ("class 20 is none of the head's", lambda w: ms.ClassMap.keep(C, [0, C])),
        ("class -1 is none of the head's", lambda w: ms.ClassMap.keep(C, [-1])),
        ("class 1 is listed twice", lambda w: ms.ClassMap.without(C, [1, 1])),
        ("`ignore_index` is missing: the class of a row is gone", lambda w: ms.ClassMap.without(C, [1]).relabel(np.array([1]))),
        (r"`values` has shape \[19, 8\], expected \[20, 8\]", lambda w: ms.ClassMap.grow(C, 21).values(w[1:])),
        (r"`new` has shape \[2, 8\], expected \[1, 8\]", lambda w: ms.ClassMap.grow(C, 21).values(w, w[:2])),
        ("class 20 has no embedding to begin from", lambda w: ms.new_prototypes(w, ms.ClassCenters(21, D))),
        ("`long` is not a known length; known are: mean, unit", lambda w: ms.new_prototypes(w, ms.ClassCenters(21, D), length="long")),
        ("`counts` has -1", lambda w: ms.count_margins(np.array([1, -1]))),
        ("all classes have as many rows", lambda w: ms.count_margins(np.array([3, 3]))),
    ],
)
def test_wrong_classes_are_named(words, call):
    with pytest.raises(ValueError, match=words):
        call(batch()[1])


# ---- progress


def heads(progress):
    loss = ms.MarginSoftmax.arcface()
    return [
        (ms.Head(loss, N, C, D, device="cpu", progress=progress), lambda head, x, w, y: head.train(x, w, y)),
        (ms.SampledHead(loss, N, C, D, 0.5, device="cpu", progress=progress), lambda head, x, w, y: head.train(x, w, y)),
        (ms.Predictor(loss, N, C, D, 2, device="cpu", progress=progress), lambda head, x, w, y: head.predict(x, w)),
    ]


@pytest.mark.parametrize("which", range(3))
def test_progress_is_told_and_ends_a_call(which):
    x, w, y = batch()
    seen, answer = [], [None]

    def progress(done, total):
        seen.append((done, total))
        return answer[0]

    head, call = heads(progress)[which]
    first = call(head, x, w, y)
    assert seen[-1][0] == seen[-1][1] > 0 and [done for done, _ in seen] == sorted(done for done, _ in seen)
    step = head.state.step if which < 2 else None
    answer[0] = False
    with pytest.raises(ms.Cancelled, match="the progress callback stopped the call"):
        call(head, x, w, y)
    answer[0] = ValueError
    assert which == 2 or head.state.step == step
    # whatever is not False goes on
    again = call(head, x, w, y)
    assert type(again) is type(first)


def test_an_exception_in_a_callback_is_the_callers():
    def progress(done, total):
        raise KeyError("mine")

    x, w, y = batch()
    head, call = heads(progress)[0]
    with pytest.raises(KeyError, match="mine"):
        call(head, x, w, y)
    assert head.state.step == 0


def test_a_callback_cannot_use_a_head():
    x, w, y = batch()
    other, found = ms.Head(ms.MarginSoftmax.arcface(), N, C, D, device="cpu"), []

    def progress(done, total):
        for used in (other, head):
            with pytest.raises(RuntimeError, match="a progress callback cannot use a head"):
                used.evaluate(x, w, y)
            with pytest.raises(RuntimeError, match="a progress callback cannot use a head"):
                found.append(used.state)

    head, call = heads(progress)[0]
    call(head, x, w, y)
    assert found == [] and other.evaluate(x, w, y).loss > 0


def test_callbacks_of_heads_on_several_threads():
    x, w, y = batch()
    counts = [0] * 4

    def run(i):
        def progress(done, total):
            counts[i] += done == total

        head, call = heads(progress)[0]
        for _ in range(5):
            call(head, x, w, y)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert counts == [5] * 4


def test_a_callback_must_be_one():
    with pytest.raises(TypeError, match="`progress` must be a function of two numbers"):
        heads(3)
