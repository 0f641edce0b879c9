"""Losses and heads over numpy arrays."""

import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import margin_softmax as ms

N, C, D = 6, 20, 8


def batch(seed=0, kind=np.float32):
    draw = np.random.default_rng(seed)
    x, w = draw.standard_normal((N, D)).astype(kind), draw.standard_normal((C, D)).astype(kind)
    return x, w, draw.integers(0, C, N)


def head(loss="arcface", device="cpu", **options):
    return ms.Head(ms.MarginSoftmax.preset(loss), N, C, D, device=device, **options)


# ---- losses


@pytest.mark.parametrize("name", [name for name, _ in ms.presets()])
def test_every_preset_is_a_function_and_comes_back_from_json_dict_and_pickle(name):
    loss = getattr(ms.MarginSoftmax, name)()
    assert loss == ms.MarginSoftmax.preset(name)
    for other in (
        ms.MarginSoftmax.from_json(loss.to_json()),
        ms.MarginSoftmax.from_dict(loss.to_dict()),
        pickle.loads(pickle.dumps(loss)),
        copy.deepcopy(loss),
        eval(repr(loss), {"MarginSoftmax": ms.MarginSoftmax}),
    ):
        assert other == loss and hash(other) == hash(loss)
    assert loss != loss.replace(reduction="sum")


def test_numbers_by_name():
    loss = ms.MarginSoftmax.arcface(m2=0.4, scale=30, reduction="sum", ignore_index=-1)
    assert (loss.scale, loss.reduction, loss.ignore_index) == (30.0, "sum", -1)
    assert loss.to_dict()["target"]["unified"]["m2"] == 0.4
    both = ms.MarginSoftmax.sphereface2(margin=0.3).to_dict()
    assert both["target"]["power"]["margin"] == both["others"]["power"]["margin"] == 0.3


@pytest.mark.parametrize(
    "error, words, numbers",
    [
        (TypeError, "this loss has no `m4`; it has:.*m2", {"m4": 1}),
        (ValueError, "`scale` is -1, allowed is 0 < scale", {"scale": -1}),
        (ValueError, "is no loss", {"scale": "large"}),
        (ValueError, "is no loss.*unknown variant `middle`", {"reduction": "middle"}),
    ],
)
def test_wrong_numbers(error, words, numbers):
    with pytest.raises(error, match=words):
        ms.MarginSoftmax.arcface(**numbers)


def test_a_name_that_stands_in_two_parts_with_two_values():
    with pytest.raises(TypeError, match="`margin` differs in .*angle and .*angle"):
        ms.MarginSoftmax.li_arcface(margin=0.3)


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match="`arcfce` is not a known .*; known are: .*arcface"):
        ms.MarginSoftmax.preset("arcfce")


def test_curve_of_any_shape():
    cosines = np.linspace(-0.9, 0.9, 12).reshape(3, 4)
    values, slopes = ms.MarginSoftmax.arcface(m2=0.5, fallback="none").curve(cosines)
    theta = np.arccos(cosines)
    np.testing.assert_allclose(values, np.cos(theta + 0.5), atol=1e-12)
    np.testing.assert_allclose(slopes, np.sin(theta + 0.5) / np.sin(theta), atol=1e-12)


def test_schedules():
    schedules = {"m2": {"start": 0.0, "end": 0.5, "from": 10, "until": 20, "ramp": "linear"}}
    loss = ms.MarginSoftmax.arcface()
    assert ms.scheduled(loss, schedules, 15).to_dict()["target"]["unified"]["m2"] == 0.25
    with pytest.raises(ValueError, match="is no set of schedules"):
        ms.scheduled(loss, {"m5": 1}, 0)


# ---- heads


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["arcface", "ampface", "softmax", "sphereface2", "curricularface"])
def test_gradients_are_those_of_differences(name, device):
    x, w, y = batch(kind=np.float64)
    exact = head(name, "reference")
    out = exact.evaluate(x, w, y)
    for array, gradient in ((x, out.grad_embeddings), (w, out.grad_prototypes)):
        for at in [(0, 0), (3, 5)]:
            moved = []
            for step in (1e-6, -1e-6):
                kept, array[at] = array[at], array[at] + step
                moved.append(exact.evaluate(x, w, y).loss)
                array[at] = kept
            assert abs((moved[0] - moved[1]) / 2e-6 - gradient[at]) < 1e-4 * max(1, abs(gradient[at]))
    if device == "cpu":
        found = head(name).evaluate(x.astype("f4"), w.astype("f4"), y)
        assert abs(found.loss - out.loss) < 1e-5 * out.loss
        np.testing.assert_allclose(found.grad_prototypes, out.grad_prototypes, atol=1e-4)


def test_halves_are_read_as_they_are():
    x, w, y = batch()
    for kind in (np.float16, np.uint16):
        if kind is np.float16:
            half = x.astype(kind), w.astype(kind)
            wide = [a.astype("f4") for a in half]
        else:
            # bfloat16 by its bits
            half = [(a.view(np.uint32) >> 16).astype(np.uint16) for a in (x, w)]
            wide = [(a.astype(np.uint32) << 16).view(np.float32) for a in half]
        for pair in ((half[0], wide[1]), (wide[0], half[1]), half):
            found, expected = head().evaluate(*pair, y), head().evaluate(*wide, y)
            assert found.loss == expected.loss
            np.testing.assert_array_equal(found.grad_prototypes, expected.grad_prototypes)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "i4", "u4", "i8", "u8"])
def test_labels_of_any_integer(kind):
    x, w, y = batch()
    assert head().evaluate(x, w, y.astype(kind)).loss == head().evaluate(x, w, y).loss


def test_arrays_in_any_order_of_memory():
    x, w, y = batch()
    expected = head().evaluate(x, w, y)
    wide = np.zeros((N, 2 * D), np.float32)
    wide[:, ::2] = x
    unaligned = np.zeros(w.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(w.shape)
    unaligned[:] = w
    for a, b in ((np.asfortranarray(x), w), (wide[:, ::2], w), (x, unaligned), (x[::-1][::-1], w)):
        out = head().evaluate(a, b, y)
        assert out.loss == expected.loss
        np.testing.assert_array_equal(out.grad_embeddings, expected.grad_embeddings)
    x.flags.writeable = False
    assert head().evaluate(x, w, y).loss == expected.loss


def test_bfloat16_of_ml_dtypes():
    types = pytest.importorskip("ml_dtypes")
    x, w, y = batch()
    a, b = x.astype(types.bfloat16), w.astype(types.bfloat16)
    assert head().evaluate(a, b, y).loss == head().evaluate(a.astype("f4"), b.astype("f4"), y).loss


def wrong(**changes):
    def call():
        x, w, y = batch()
        given = {"embeddings": x, "prototypes": w, "labels": y}
        given.update({name: change(given.get(name)) if callable(change) else change for name, change in changes.items()})
        head(soft_labels=2).evaluate(given.pop("embeddings"), given.pop("prototypes"), given.pop("labels"), **given)

    return call


@pytest.mark.parametrize(
    "error, words, call",
    [
        (TypeError, "`embeddings` must be a numpy array", wrong(embeddings=lambda x: x.tolist())),
        (TypeError, "`embeddings` holds int64, expected float32", wrong(embeddings=lambda x: x.astype(int))),
        (TypeError, 'float64 is for .* device="reference"', wrong(embeddings=lambda x: x.astype("f8"))),
        (TypeError, 'float64 is for .* device="reference"', wrong(embeddings=lambda x: x.astype("f8"), prototypes=lambda w: w.astype("f8"))),
        (TypeError, "`labels` holds float64, expected integers", wrong(labels=lambda y: y.astype(float))),
        (TypeError, "`labels` holds bool", wrong(labels=lambda y: y > 1)),
        (ValueError, r"`embeddings` has shape \[6, 7\], expected \[6, 8\]", wrong(embeddings=lambda x: x[:, :7])),
        (ValueError, r"`embeddings` has shape \[48\]", wrong(embeddings=lambda x: x.ravel())),
        (ValueError, r"`prototypes` has shape \[19, 8\], expected \[20, 8\]", wrong(prototypes=lambda w: w[1:])),
        (ValueError, r"`labels` has shape \[5\], expected \[6\]", wrong(labels=lambda y: y[1:])),
        (ValueError, "row 2 has label 20, but there are only 20 classes", wrong(labels=lambda y: np.where(np.arange(N) == 2, C, y))),
        (ValueError, "beyond 2", wrong(labels=lambda y: np.full(N, 2**63 + 5, np.uint64))),
        (ValueError, r"`class_weights` has shape \[1\], expected \[20\]", wrong(class_weights=np.ones(1, np.float32))),
        (TypeError, "`row_weights` holds float64, expected float32", wrong(row_weights=np.ones(N))),
        (ValueError, "row_weights", wrong(row_weights=-np.ones(N, np.float32))),
        (ValueError, "`m4` is not a known margin", wrong(class_margins={"m4": np.ones(C, np.float32)})),
        (TypeError, "`row_margins` must be a dict", wrong(row_margins=np.ones(N, np.float32))),
        (TypeError, "`divisor` must be a number", wrong(divisor="6")),
        (ValueError, "divisor", wrong(divisor=0.0)),
        (ValueError, "bias", wrong(bias=np.zeros(C, np.float32))),
        (TypeError, "`soft_labels` must be a pair", wrong(soft_labels=np.ones((N, 2)))),
        (ValueError, "soft_labels.weights", wrong(soft_labels=(np.zeros((N, 2), int), np.ones((N, 3), np.float32)))),
        (ValueError, "`soft_labels.count` is 3", wrong(soft_labels=(np.zeros((N, 3), int), np.ones((N, 3), np.float32)))),
        (ValueError, "no 32-bit", wrong(soft_labels=(np.full((N, 2), 2**40), np.ones((N, 2), np.float32)))),
        (TypeError, "unexpected keyword argument 'weights'", wrong(weights=1)),
        (ValueError, "`grad` is no array that this call writes", wrong(out={"grad": np.zeros(1)})),
        (ValueError, "the batch has 7 rows", lambda: head().evaluate(np.zeros((7, D), "f4"), batch()[1], np.zeros(7, int))),
        (ValueError, "`classes` is 0", lambda: ms.Head(ms.MarginSoftmax.arcface(), 1, 0, 4)),
        (ValueError, "the workspace needs at least", lambda: head(budget=10)),
        (ValueError, "`weights` is not a known gradient", lambda: head(want=["weights"])),
        (ValueError, "threads", lambda: head(threads=0)),
        (ValueError, "`budget` is -1", lambda: head(budget=-1)),
        (TypeError, "unexpected keyword argument 'devise'", lambda: head(devise="cpu")),
        (ms.DeviceError, "no GPU adapter", lambda: head(device="no such adapter")),
        (ValueError, "`tile_7` is not a known", lambda: head(tile="tile_7")),
        (ValueError, "shard 5..5", lambda: head(range=(5, 5))),
        (OverflowError, "negative", lambda: ms.set_num_threads(-1)),
        (ValueError, "threads", lambda: ms.set_num_threads(10**6)),
    ],
)
def test_mistakes_are_named(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_outputs_into_the_callers_arrays():
    x, w, y = batch()
    arrays = {"grad_embeddings": np.empty_like(x), "grad_prototypes": np.empty_like(w), "row_losses": np.empty(N, np.float32)}
    expected, out = head().evaluate(x, w, y), head().evaluate(x, w, y, out=arrays)
    assert out.grad_prototypes is arrays["grad_prototypes"] and out.grad_embeddings is arrays["grad_embeddings"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, getattr(expected, name))


@pytest.mark.parametrize(
    "words, arrays",
    [
        ("shares memory", lambda x, w: {"grad_embeddings": x}),
        ("shares memory", lambda x, w: {"grad_prototypes": w}),
        ("is read-only", lambda x, w: {"grad_prototypes": np.broadcast_to(np.float32(0), w.shape).copy().view()}),
        ("is not contiguous", lambda x, w: {"grad_embeddings": np.empty((N, 2 * D), "f4")[:, ::2]}),
        ("has shape", lambda x, w: {"grad_embeddings": np.empty((N, D + 1), "f4")}),
    ],
)
def test_outputs_that_cannot_be_written(words, arrays):
    x, w, y = batch()
    given = arrays(x, w)
    if words == "is read-only":
        given["grad_prototypes"].flags.writeable = False
    kept = x.copy(), w.copy()
    with pytest.raises(ValueError, match=words):
        head().evaluate(x, w, y, out=given)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(w, kept[1])


def test_one_memory_for_two_outputs():
    x, w, y = batch()
    same = np.empty(N * D, "f4").reshape(N, D)
    with pytest.raises(ValueError, match="shares memory"):
        ms.Head(ms.MarginSoftmax.arcface(), N, N, D, device="cpu").evaluate(
            x, w[:N], y % N, out={"grad_embeddings": same, "grad_prototypes": same}
        )


def test_results_outlive_the_head():
    x, w, y = batch()
    out = head().evaluate(x, w, y)
    gradient, expected = out.grad_prototypes, out.grad_prototypes.copy()
    del out
    gc.collect()
    [head().evaluate(x, w, y) for _ in range(4)]
    np.testing.assert_array_equal(gradient, expected)


def test_every_argument_of_a_batch():
    x, w, y = batch()
    draw = np.random.default_rng(1)
    given = {
        "class_weights": draw.uniform(0.5, 2, C).astype("f4"),
        "row_weights": draw.uniform(0.5, 2, N).astype("f4"),
        "class_margins": {"m2": draw.uniform(0, 0.6, C).astype("f4")},
        "row_margins": {"m3": draw.uniform(0, 0.2, N).astype("f4")},
        "divisor": 5.0,
        "upstream": 2.0,
        "soft_labels": (np.stack([y, (y + 3) % C], 1), np.full((N, 2), 0.5, "f4")),
    }
    found = head(soft_labels=2).evaluate(x, w, y, **given)
    wide = {name: value.astype("f8") if isinstance(value, np.ndarray) else value for name, value in given.items()}
    wide["class_margins"] = {"m2": given["class_margins"]["m2"].astype("f8")}
    wide["row_margins"] = {"m3": given["row_margins"]["m3"].astype("f8")}
    wide["soft_labels"] = given["soft_labels"][0], given["soft_labels"][1].astype("f8")
    exact = head(device="reference", soft_labels=2).evaluate(x.astype("f8"), w.astype("f8"), y, **wide)
    assert abs(found.loss - exact.loss) < 1e-5 * exact.loss
    np.testing.assert_allclose(found.grad_prototypes, exact.grad_prototypes, atol=2e-4)
    linear = head("softmax", want=["embeddings", "bias", "scale"])
    out = linear.evaluate(x, w, y, bias=draw.standard_normal(C).astype("f4"))
    assert out.grad_bias.shape == (C,) and out.grad_scale is not None and out.grad_prototypes is None


def test_gradients_of_the_margins():
    x, w, y = batch()
    margins = {"m3": np.linspace(0, 0.3, C).astype("f4")}
    wide = {"m3": margins["m3"].astype("f8")}
    for name, shape in [("margins", (4,)), ("class_margins", (C, 4)), ("row_margins", (N, 4))]:
        found = head("arcface", want=["embeddings", name]).evaluate(x, w, y, class_margins=margins).grad_margins
        exact = head("arcface", want=[name], device="reference")
        exact = exact.evaluate(x.astype("f8"), w.astype("f8"), y, class_margins=wide).grad_margins
        assert found.shape == exact.shape == shape and exact.dtype == np.float64
        np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())
        if name == "class_margins":
            assert not exact[np.setdiff1d(np.arange(C), y)].any() and exact[y].any(1).all()
    assert head().evaluate(x, w, y).grad_margins is None
    with pytest.raises(ValueError, match="margins twice"):
        head(want=["margins", "row_margins"])
    with pytest.raises(ValueError, match="unified"):
        head("arcgrad", want=["margins"])


def test_predictions_of_a_step_and_without_labels():
    x, w, y = batch()
    cosines = x / np.linalg.norm(x, axis=1, keepdims=True) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    expected = np.argsort(-cosines, 1, kind="stable")[:, :3]
    found = head(predictions=3).evaluate(x, w, y).predictions
    alone = ms.Predictor(ms.MarginSoftmax.arcface(), N, C, D, 3, device="cpu").predict(x, w)
    for prediction in (found, alone):
        np.testing.assert_array_equal(prediction.classes, expected)
        np.testing.assert_allclose(prediction.cosines, np.take_along_axis(cosines, expected, 1), atol=2e-6)
    x[1, 0] = np.nan
    assert (ms.Predictor(ms.MarginSoftmax.arcface(), N, C, D, 1, device="cpu").predict(x, w).classes[1] == -1).all()


def test_state_of_a_run():
    x, w, y = batch()
    a = head("curricularface")
    a.train(x, w, y)
    state = a.state
    assert state.step == 1 and state.hardness != 0
    for copied in (pickle.loads(pickle.dumps(state)), ms.State.from_dict(state.to_dict()), copy.deepcopy(state)):
        b = head("curricularface")
        b.state = copied
        assert b.state == state
        assert b.train(x, w, y).loss == head_at(state).train(x, w, y).loss
    with pytest.raises(ValueError, match="state"):
        ms.Head(ms.MarginSoftmax.curricularface(), N, C + 1, D, device="cpu").state = state


def head_at(state):
    made = head("curricularface")
    made.state = state
    return made


def test_sampled_head():
    x, w, y = batch()
    sampled = ms.SampledHead(ms.MarginSoftmax.cosface(), N, C, D, 0.6, seed=3, device="cpu")
    out = sampled.train(x, w, y)
    assert set(y) <= set(out.classes) and out.grad_prototypes.shape == (12, D)
    assert sampled.sampler == {"rate": 0.6, "seed": 3, "step": 1} and sampled.state.step == 1
    part = ms.Head(ms.MarginSoftmax.cosface(), N, 12, D, device="cpu").evaluate(x, w[out.classes], np.searchsorted(out.classes, y))
    assert part.loss == out.loss
    assert sampled.evaluate(x, w, y).grad_prototypes.shape == (C, D)


def test_shards_exchange_vectors():
    x, w, y = batch()
    for name in ("arcface", "adacos", "arcface_topk", "sphereface2"):
        loss = ms.MarginSoftmax.preset(name)
        shards = [ms.Head(loss, N, C, D, device="cpu", range=r) for r in ((0, 7), (7, C))]
        parts = [w[:7], w[7:]]
        targets = [shard.targets(x, part, y) for shard, part in zip(shards, parts)]
        assert len({len(t) for t in targets}) == 1
        statistics = [shard.statistics(x, part, y, targets) for shard, part in zip(shards, parts)]
        outs = [shard.gradients(x, part, y, targets, statistics) for shard, part in zip(shards, parts)]
        whole = head(name).evaluate(x, w, y)
        assert all(abs(out.loss - whole.loss) < 1e-5 * whole.loss for out in outs)
        np.testing.assert_allclose(np.concatenate([out.grad_prototypes for out in outs]), whole.grad_prototypes, atol=2e-4)
        np.testing.assert_allclose(sum(out.grad_embeddings for out in outs), whole.grad_embeddings, atol=2e-4)
        with pytest.raises(ValueError, match="are no targets of a shard"):
            shards[0].statistics(x, parts[0], y, [targets[0][:-1], targets[1]])
        with pytest.raises(ValueError, match="together they must be 20 classes"):
            shards[0].statistics(x, parts[0], y, targets[:1])


def test_monitor_and_theory():
    x, w, y = batch()
    monitor = ms.Monitor(bins=8)
    monitor.add(head().evaluate(x, w, y), y)
    report = monitor.report()
    assert report["rows"] == N and sum(report["intra_histogram"]) == N
    angle = ms.theory.nearest_prototype_angle(10_572, 512)
    ln_b = ms.theory.ln_wrong_class_sum(10_572, 512, 64.0)
    margins = ms.theory.optimal_margin(angle / 2, ln_b, 64.0, probability=0.9)
    found = ms.theory.termination_angle(ms.MarginSoftmax.arcface(m2=margins["m2"], fallback="none"), ln_b, probability=0.9)
    assert abs(found - angle / 2) < 1e-6
    assert abs(np.exp(ms.theory.ln_wrong_class_sum_rectified(2, 512, 64.0)) - 53.330) < 1e-3
    assert abs(ms.theory.ln_wrong_class_sum_variance(85_742, 512, 64.0) + 3.75965) < 1e-5
    assert abs(np.degrees(ms.theory.mean_angle_within(np.radians(39.32), 512)) - 39.22858) < 1e-5
    arcface = ms.MarginSoftmax.arcface(fallback="none")
    assert ms.theory.equal_angle_loss(arcface, 100, np.pi) == ms.theory.collapse_loss(arcface, 100)
    with pytest.raises(ValueError, match="`angle` is 0, allowed is 0 < angle"):
        ms.theory.mean_angle_within(0.0, 512)


# ---- processes and threads


def test_the_interpreter_runs_on_while_a_head_computes():
    draw = np.random.default_rng(0)
    rows, classes, dim = 256, 30_000, 64
    x, w = draw.standard_normal((rows, dim)).astype("f4"), draw.standard_normal((classes, dim)).astype("f4")
    y = draw.integers(0, classes, rows)
    large = ms.Head(ms.MarginSoftmax.arcface(), rows, classes, dim, device="cpu", threads=1)
    done, ticks = threading.Event(), [0]

    def compute():
        for _ in range(5):
            large.evaluate(x, w, y)
        done.set()

    thread = threading.Thread(target=compute)
    thread.start()
    while not done.wait(0.002):
        ticks[0] += 1
    thread.join()
    # with the lock held, no tick would fall into a call
    assert ticks[0] > 5


def test_several_threads_take_turns():
    x, w, y = batch()
    shared, results = head(), []
    expected = shared.evaluate(x, w, y).loss
    threads = [threading.Thread(target=lambda: results.extend(shared.evaluate(x, w, y).loss for _ in range(20))) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results == [expected] * 80


def test_bits_do_not_depend_on_threads():
    x, w, y = batch()
    one, two = (head(threads=threads).evaluate(x, w, y) for threads in (1, 2))
    assert one.loss == two.loss
    np.testing.assert_array_equal(one.grad_prototypes, two.grad_prototypes)
    before = ms.get_num_threads()
    ms.set_num_threads(1)
    assert ms.get_num_threads() == 1
    ms.set_num_threads(0)
    assert ms.get_num_threads() == before


def in_child(own, x, w, y, answers):
    answers.put((own.evaluate(x, w, y).loss, head().evaluate(x, w, y).loss))


def test_a_forked_process_computes_and_so_does_its_parent():
    x, w, y = batch()
    own = head()
    expected = own.evaluate(x, w, y).loss
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=in_child, args=(own, x, w, y, answers)) for _ in range(2)]
    [child.start() for child in children]
    assert [answers.get(timeout=60) for _ in children] == [(expected, expected)] * 2
    [child.join(60) for child in children]
    assert [child.exitcode for child in children] == [0, 0]
    assert own.evaluate(x, w, y).loss == expected


def busy_in_child(own, x, w, y, answers):
    try:
        answers.put(own.evaluate(x, w, y).loss)
    except ms.DeviceError as error:
        answers.put(str(error))


def test_a_head_that_was_busy_at_the_fork_raises():
    draw = np.random.default_rng(0)
    rows, classes, dim = 512, 60_000, 64
    x, w = draw.standard_normal((rows, dim)).astype("f4"), draw.standard_normal((classes, dim)).astype("f4")
    y = draw.integers(0, classes, rows)
    large = ms.Head(ms.MarginSoftmax.arcface(), rows, classes, dim, device="cpu", threads=1)
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            large.evaluate(x, w, y)

    thread = threading.Thread(target=compute)
    thread.start()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    try:
        while True:
            child = context.Process(target=busy_in_child, args=(large, x, w, y, answers))
            child.start()
            answer = answers.get(timeout=60)
            child.join(60)
            assert child.exitcode == 0
            if isinstance(answer, str):
                assert "it was in use when the process was forked: make one in this process" in answer
                break
    finally:
        stop.set()
        thread.join()


def test_import_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import margin_softmax as ms; print(ms.MarginSoftmax.arcface().scale)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "64.0", done.stderr


def test_repr_has_version_and_device():
    assert f"margin-softmax {ms.__version__}" in repr(head()) and "CPU" in repr(head())
    assert "reference" in repr(head(device="reference"))


def test_ctrl_c_ends_a_long_call():
    code = """
import os, signal, threading, time
import numpy as np, margin_softmax as ms
rows, classes, dim = 512, 60_000, 512
x, w = np.ones((rows, dim), "f4"), np.ones((classes, dim), "f4")
y = np.arange(rows)
head = ms.Head(ms.MarginSoftmax.curricularface(), rows, classes, dim, device="cpu", threads=1)
out = {"grad_prototypes": np.full_like(w, 7)}
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
start = time.monotonic()
try:
    while True:
        head.train(x, w, y, out=out)
        steps = head.state.step
except KeyboardInterrupt:
    # the call that was stopped has moved and written nothing
    assert head.state.step == (steps if "steps" in globals() else 0)
    print("stopped", time.monotonic() - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=300)
    assert done.stdout.startswith("stopped"), done.stderr


def test_the_type_stubs_name_everything():
    import ast
    import pathlib

    stubs = ast.parse(pathlib.Path(ms.__file__).with_name("_native.pyi").read_text())
    listed = {node.name: node for node in stubs.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    from margin_softmax import _native

    public = {name for name in dir(_native) if not name.startswith("_") and name not in ("theory", "verification")}
    assert public == {name for name in listed if not name.startswith("_")}
    for name in public:
        if isinstance(listed[name], ast.ClassDef) and name != "DeviceError":
            members = {node.name for node in listed[name].body if isinstance(node, ast.FunctionDef)}
            members |= {node.target.id for node in listed[name].body if isinstance(node, ast.AnnAssign)}
            found = {member for member in vars(getattr(_native, name)) if not member.startswith("_")}
            assert found == members - {"__new__"}, name


# ---- devices


@pytest.fixture(scope="module")
def adapter():
    found = ms.adapters()
    if not found:
        pytest.skip("no adapter")
    # lavapipe where it is, since it is the faster of the software drivers
    return next((name for name in found if "llvmpipe" in name), found[0]).split(" (")[0]


@pytest.mark.parametrize("name", ["arcface", "softmax", "sphereface2", "curricularface"])
def test_an_adapter_agrees_with_the_cpu(adapter, name):
    x, w, y = batch()
    a, b = head(name, adapter, work_per_submit=10**9), head(name)
    for _ in range(2):
        found, expected = a.train(x, w, y), b.train(x, w, y)
        assert abs(found.loss - expected.loss) <= 2e-5 * abs(expected.loss)
        np.testing.assert_allclose(found.grad_prototypes, expected.grad_prototypes, atol=4e-4)
        np.testing.assert_allclose(found.grad_embeddings, expected.grad_embeddings, atol=4e-4)
    assert a.state.step == 2 and adapter in repr(a)


def test_predictions_of_an_adapter(adapter):
    x, w, _ = batch()
    found, expected = (ms.Predictor(ms.MarginSoftmax.arcface(), N, C, D, 3, device=device).predict(x, w) for device in (adapter, "cpu"))
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.cosines, expected.cosines, atol=2e-6)


def on_device_in_child(own, x, w, y, answers):
    try:
        answers.put(own.evaluate(x, w, y).loss)
    except ms.DeviceError as error:
        answers.put(str(error))


def test_a_device_does_not_cross_a_fork(adapter):
    x, w, y = batch()
    own = head(device=adapter)
    expected = own.evaluate(x, w, y).loss
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=on_device_in_child, args=(own, x, w, y, answers))
    child.start()
    assert "its device is the parent's: make one in this process" in answers.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert own.evaluate(x, w, y).loss == expected
