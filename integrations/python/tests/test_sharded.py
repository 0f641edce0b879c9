"""`ShardedMarginHead` over gloo: 2 and 4 processes, each started once for all checks of its number of ranks."""

import datetime
import json
import os
import socket
import traceback

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402

import margin_softmax as ms  # noqa: E402
from margin_softmax.torch import MarginHead, SampledMarginHead, ShardedMarginHead, ShardError, load_shards, save_shards  # noqa: E402

# the timeout of the groups
SECONDS = 20
DIM, CLASSES = 6, 29
# of all ranks; the second has no row
ROWS = {2: [7, 0], 4: [3, 0, 5, 2]}
# uneven, and not in the order of the ranks
RANGES = {2: [(11, 29), (0, 11)], 4: [(9, 20), (0, 1), (20, 29), (1, 9)]}


def own_rows(rank, size):
    first = sum(ROWS[size][:rank])
    return slice(first, first + ROWS[size][rank])


def batch(size, step=0, classes=CLASSES):
    """Embeddings and labels of all ranks: angles of all sizes to the labelled prototypes."""
    draw = torch.Generator().manual_seed(100 + step)
    rows = sum(ROWS[size])
    labels = torch.randint(classes, (rows,), generator=draw)
    share = torch.linspace(0.95, -0.6, rows).unsqueeze(1)
    noise = torch.randn(rows, DIM, generator=draw)
    x = 8.0 * (share * prototypes(classes)[labels] + 0.3 * noise)
    return x, labels


def prototypes(classes=CLASSES, sub_centers=1):
    draw = torch.Generator().manual_seed(5)
    shape = (classes, DIM) if sub_centers == 1 else (classes, sub_centers, DIM)
    return torch.nn.functional.normalize(torch.randn(shape, generator=draw), dim=-1)


def heads(loss, size, rate=None, ranges=None, device="reference", **options):
    """A whole head, of the reference that judges, and a sharded one with the same parameters."""
    sampled = {} if rate is None else {"rate": rate}
    torch.manual_seed(11)
    unfiltered = {name: value for name, value in options.items() if name != "filter"}
    whole = (MarginHead if rate is None else SampledMarginHead)(CLASSES, DIM, loss, device=device, seed=3, **sampled, **unfiltered)
    ranges = RANGES[size] if ranges is None else ranges
    shard = ShardedMarginHead(CLASSES, DIM, loss, ranges=ranges, device="cpu", threads=1, seed=3, rate=rate, **options)
    with torch.no_grad():
        whole.weight.copy_(prototypes(sub_centers=options.get("sub_centers", 1)))
        shard.weight.copy_(whole.weight[of(shard)])
        if whole.bias is not None and whole.loss.is_linear:
            shard.bias.copy_(whole.bias[of(shard)])
    return whole, shard


def of(shard):
    return slice(shard.classes.start, shard.classes.stop)


def slope(loss, cosines):
    """The steepest slope of the target curve at these cosines."""
    return max(1.0, abs(loss.curve(cosines.double().clamp(-1, 1).numpy())[1]).max())


def near(found, expected, gate, what):
    found, expected = (t.to_dense() if t.is_sparse else t for t in (found, expected))
    assert found.shape == expected.shape, f"{what}: {list(found.shape)} in the place of {list(expected.shape)}"
    off = (found.double() - expected.double()).abs().max() if found.numel() else 0.0
    assert off <= gate, f"{what} differs by {float(off)}, allowed is {gate}"


def step(whole, shard, rank, size, number=0, slack=1.0, **vectors):
    """A step of both, whose losses, gradients and states must agree within the gates of the documentation ("Numbers")."""
    x, labels = batch(size, number)
    own = own_rows(rank, size)
    x_whole, x_own = x.clone().requires_grad_(), x[own].clone().requires_grad_()
    both = [p for head in (whole, shard) for p in head.parameters()]
    for parameter in both:
        parameter.grad = None
    cut = {name: values if name == "divisor" else {m: v[own] for m, v in values.items()} if isinstance(values, dict) else values[own] for name, values in vectors.items()}
    loss, part = whole(x_whole, labels, **vectors), shard(x_own, labels[own], **cut)
    if loss.dim() > 0:
        upstream = torch.linspace(-1.0, 2.0, len(x))
        gate = 1e-5 + 3e-7 * 64 * slope(whole.loss, whole.last.target_cosines)
        near(part, loss[own], gate * max(1.0, float(loss.abs().max())), "row losses")
        (loss * upstream).sum().backward()
        (part * upstream[own]).sum().backward()
    else:
        near(part, loss, slack * 1e-5 * max(abs(float(loss)), 1e-3), "loss")
        loss.backward()
        part.backward()
    scale = whole.state.scale if whole.loss.scale_follows else whole.loss.scale
    gate = slack * (1e-5 + 3e-7 * scale * slope(whole.loss, whole.last.target_cosines))
    near(shard.last.target_cosines, whole.last.target_cosines[own], slack * 2e-6 * float(x.norm(dim=1).max() if whole.loss.is_linear else 1), "target cosines")
    assert shard.last.counts["rows"] == whole.last.counts["rows"]
    near(x_own.grad, x_whole.grad[own], gate, "dX")
    dense = whole.weight.grad.to_dense() if whole.weight.grad.is_sparse else whole.weight.grad
    near(shard.weight.grad, dense[of(shard)], gate, "dW")
    for name in ("bias", "scale"):
        expected = getattr(whole, name)
        if expected is not None:
            divided = name == "bias" and whole.loss.is_linear
            # the sum of N·C terms, each within the gate
            near(getattr(shard, name).grad, expected.grad[of(shard)] if divided else expected.grad, 10 * gate, f"gradient of {name}")
    for name, value in whole.state.to_dict().items():
        found = shard.state.to_dict()[name]
        # running means of cosines and lengths; a scale follows from exponentials of s times a cosine
        allowed = 2e-6 * scale * float(value) if name == "scale" else max(2e-6, 1e-6 * float(value))
        assert abs(float(found) - float(value)) <= slack * allowed, f"state.{name}: {found} in the place of {value}"
    return part


def raises(kind, text, call):
    try:
        call()
    except kind as why:
        assert text in str(why), f"{text!r} is not in {str(why)!r}"
        return
    raise AssertionError(f"no {kind.__name__}")


# ---- checks: functions of rank, size and folder, on all ranks at once


def check_presets(rank, size, folder):
    failed = []
    for name, _ in ms.presets():
        try:
            whole, shard = heads(name, size)
            for number in range(2):
                step(whole, shard, rank, size, number)
        except AssertionError as why:
            failed.append(f"{name}: {why}")
    assert not failed, "\n".join(failed)


def check_training(rank, size, folder):
    for name in ("arcface", "adaface", "curricularface", "elastic_arcface", "adacos_dynamic"):
        if name not in dict(ms.presets()):
            continue
        whole, shard = heads(name, size)
        optimizers = [torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9) for head in (whole, shard)]
        for number in range(20):
            # each step so far has moved the two weights apart by at most lr / (1 − momentum) times the gate of a gradient, and
            # a gradient changes by at most s² / N = 64² / 7 times as much: 6 gates a step
            step(whole, shard, rank, size, number, slack=1.0 + 6.0 * number)
            for optimizer in optimizers:
                optimizer.step()


def check_options(rank, size, folder):
    rows = sum(ROWS[size])
    draw = torch.Generator().manual_seed(1)
    weights = torch.rand(CLASSES, generator=draw) + 0.5
    margins = {"m2": torch.linspace(0.2, 0.5, CLASSES)}
    arc = ms.MarginSoftmax.arcface(scale=30.0)
    for loss, options, vectors in [
        (arc, {"class_weights": weights, "class_margins": margins}, {"row_weights": torch.rand(rows, generator=draw) + 0.1}),
        (arc, {}, {"row_margins": {"m2": torch.linspace(0.1, 0.6, rows)}, "divisor": 3.0}),
        (arc, {"learnable_scale": True}, {}),
        (arc.replace(label_smoothing=0.1), {"sub_centers": 3}, {}),
        (arc.replace(reduction="sum"), {}, {}),
        (arc.replace(reduction="none"), {"class_weights": weights}, {}),
        (ms.MarginSoftmax.sphereface2(), {"bias": True}, {}),
        (arc, {"filter": 1e-9}, {}),
    ]:
        whole, shard = heads(loss, size, **options)
        for number in range(2):
            step(whole, shard, rank, size, number, **vectors)


def check_ignored_rows(rank, size, folder):
    whole, shard = heads(ms.MarginSoftmax.arcface(scale=30.0, ignore_index=-1), size)
    x, labels = batch(size)
    labels[::2] = -1
    own = own_rows(rank, size)
    near(shard(x[own], labels[own]), whole(x, labels), 1e-5, "loss")
    # all of them, and no rows at all
    assert float(shard(x[own], torch.full_like(labels[own], -1))) == 0.0
    assert float(shard(x[:0], labels[:0])) == 0.0


def check_modes(rank, size, folder):
    """Evaluation, no_grad, frozen tensors, a second backward, an upstream gradient, an upstream that is not finite."""
    whole, shard = heads("adaface", size)
    x, labels = batch(size)
    own = own_rows(rank, size)
    whole.eval(), shard.eval()
    before = shard.state
    with torch.no_grad():
        near(shard(x[own], labels[own]), whole(x, labels), 1e-5 * float(whole(x, labels)), "loss")
    assert shard.state == before
    shard.train()
    # only rank 0 asks for the gradient of its embeddings
    x_own = x[own].clone().requires_grad_(rank == 0)
    loss = shard(x_own, labels[own])
    (loss * 65536.0).backward(retain_graph=True)
    first = shard.weight.grad.clone()
    shard.weight.grad = None
    (loss * 65536.0).backward()
    assert torch.equal(first, shard.weight.grad)
    shard.loss = shard.loss.replace(reduction="none")
    x_own = x[own].clone().requires_grad_()
    rows = shard(x_own, labels[own])
    upstream = torch.ones_like(rows)
    if rank == 0:
        upstream[1] = float("nan")
    shard.weight.grad = None
    rows.backward(upstream)
    assert x_own.grad.isnan().any(dim=1).tolist() == [rank == 0 and row == 1 for row in range(len(x_own))]
    assert shard.weight.grad.isnan().all()


def check_half(rank, size, folder):
    whole, shard = heads("cosface", size)
    x, labels = batch(size)
    own = own_rows(rank, size)
    for kind in (torch.float16, torch.bfloat16):
        x_own = x[own].to(kind).requires_grad_()
        loss = shard(x_own, labels[own])
        near(loss, whole(x.to(kind), labels), 1e-5 * float(loss), "loss")
        loss.backward()
        assert x_own.grad.dtype is kind
    raises(TypeError if rank == 0 else ShardError, "float64", lambda: shard(x[own].double() if rank == 0 else x[own], labels[own]))


def check_sampled(rank, size, folder):
    # so many that each rank has some
    options = {"rate": 0.6, "ranges": [(r * CLASSES // size, (r + 1) * CLASSES // size) for r in range(size)], "device": "cpu"}
    for name in ("arcface", "adacos_dynamic", "curricularface"):
        if name not in dict(ms.presets()):
            continue
        whole, shard = heads(name, size, **options)
        optimizers = [torch.optim.SGD(head.parameters(), lr=0.01) for head in (whole, shard)]
        for number in range(20):
            # as in training
            step(whole, shard, rank, size, number, slack=1.0 + 6.0 * number)
            assert torch.equal(shard.last.classes, whole.last.classes)
            for optimizer in optimizers:
                optimizer.step()
        assert shard.weight.grad.is_sparse
        shard.eval(), whole.eval()
        x, labels = batch(size)
        own = own_rows(rank, size)
        near(shard(x[own], labels[own]), whole(x, labels), 1e-4, "loss of all classes")


def check_same_bits(rank, size, folder):
    def run():
        torch.manual_seed(rank)
        shard = ShardedMarginHead(CLASSES, DIM, "arcface", ranges=RANGES[size], device="cpu", threads=1)
        found = []
        optimizer = torch.optim.SGD(shard.parameters(), lr=0.1)
        for number in range(5):
            x, labels = batch(size, number)
            own = own_rows(rank, size)
            x = x[own].requires_grad_()
            optimizer.zero_grad()
            loss = shard(x, labels[own])
            loss.backward()
            optimizer.step()
            found += [loss.detach(), x.grad]
        return found + [shard.weight.detach()]

    for first, second in zip(run(), run()):
        assert torch.equal(first, second)


def check_splits(rank, size, folder):
    """The initial weight, and the loss that follows from it, do not depend on how the classes are divided."""
    weights, losses = [], []
    even = [range(r * CLASSES // size, (r + 1) * CLASSES // size) for r in range(size)]
    single = [(CLASSES - 1, CLASSES), *[(r, r + 1) for r in range(size - 2)], (size - 2, CLASSES - 1)]
    x, labels = batch(size)
    own = own_rows(rank, size)
    for ranges in (None, even, RANGES[size], single):
        torch.manual_seed(7 + rank)
        shard = ShardedMarginHead(CLASSES, DIM, "arcface", ranges=ranges, device="cpu", threads=1)
        gathered = [None] * size
        dist.all_gather_object(gathered, (shard.classes.start, shard.weight.detach()))
        weights.append(torch.cat([weight for _, weight in sorted(gathered, key=lambda one: one[0])]))
        losses.append(shard(x[own], labels[own]))
    assert all(torch.equal(weights[0], other) for other in weights[1:])
    for loss in losses[1:]:
        near(loss, losses[0], 1e-5 * float(losses[0]), "loss")


def check_predictions(rank, size, folder):
    own = own_rows(rank, size)
    x, _ = batch(size)
    for loss, k in (("arcface", 5), ("sphereface2", 2), ("softmax", 3), ("arcface", 12)):
        whole, shard = heads(loss, size, device="cpu")
        found, expected = shard.predict(x[own], k), whole.predict(x, k)
        assert torch.equal(found.classes, expected.classes[own])
        near(found.cosines, expected.cosines[own], 2e-6 * 20, "cosines")
        near(found.log_probabilities, expected.log_probabilities[own], 1e-3, "log-probabilities")
        near(shard.cosines(x[own]), whole.cosines(x)[own][:, of(shard)], 2e-6, "all cosines")
    raises(ValueError, "holds", lambda: shard.cosines(x[own], torch.tensor([(shard.classes.stop) % CLASSES])))


def check_averaged(rank, size, folder):
    """With a backbone under DistributedDataParallel, the gradients of its weight are those of one process."""
    x, labels = batch(size)
    own = own_rows(rank, size)
    torch.manual_seed(0)
    backbone = torch.nn.Linear(DIM, DIM)
    whole, shard = heads("arcface", size, device="cpu")
    shard.averaged = True
    whole(backbone(x), labels).backward()
    expected = backbone.weight.grad.clone()
    backbone.weight.grad = None
    model = torch.nn.parallel.DistributedDataParallel(backbone)
    shard(model(x[own]), labels[own]).backward()
    near(backbone.weight.grad, expected, 1e-5 * float(expected.abs().max()) + 1e-4, "gradient of the backbone")


def check_construction(rank, size, folder):
    def made(**options):
        return lambda: ShardedMarginHead(CLASSES, DIM, **{"device": "cpu", "threads": 1, **options})

    raises(ValueError, "has no class", made(ranges=[(0, CLASSES), *[(CLASSES, CLASSES)] * (size - 1)]))
    raises(ValueError, "each once", made(ranges=[(0, CLASSES)] * size))
    raises(ValueError, f"there are {size} ranks", made(ranges=[(0, CLASSES)] * (size + 1)))
    raises(ValueError, "predictions", made(predictions=2))
    raises(ValueError, "soft_labels", made(soft_labels=2))
    raises(ValueError, "rate", made(rate=2.0))
    # one rank alone is wrong
    raises(ShardError if rank != 1 else ValueError, "sub" if rank == 1 else "rank 1 failed", made(sub_centers=1 if rank != 1 else 0))
    raises(ShardError, "rank 1 has another loss than rank 0", made(loss="cosface" if rank == 1 else "arcface"))
    raises(ShardError, "rank 1 has another shape", made(sub_centers=2 if rank == 1 else 1))


def check_faults(rank, size, folder):
    """Faults that every rank hears of, after each of which the group goes on."""
    whole, shard = heads("adaface", size)
    x, labels = batch(size)
    own = own_rows(rank, size)
    x, labels = x[own], labels[own]
    last = size - 1
    state = shard.state

    def differs(text, change, undo):
        if rank == last:
            change()
        raises(ShardError, text, lambda: shard(x, labels))
        undo()

    loss = shard.loss
    differs(f"rank {last} has another loss", lambda: setattr(shard, "loss", loss.replace(scale=60.0)), lambda: setattr(shard, "loss", loss))
    differs(f"rank {last} has another mode", shard.eval, shard.train)
    for changed in (state.replace(step=9), dict(state.to_dict(), norm_mean=7.0)):
        differs(f"rank {last} has another state", lambda: setattr(shard, "state", changed), lambda: setattr(shard, "state", state))
    kind = ShardError if rank != 0 else ValueError
    wrong = "row 1 has label 29" if rank == 0 else "rank 0 failed: ValueError: row 1 has label 29"
    raises(kind, wrong, lambda: shard(x, labels if rank != 0 else torch.where(torch.arange(len(labels)) == 1, CLASSES, labels)))
    raises(kind, "expected [N, 6]", lambda: shard(x if rank != 0 else x[:, :5], labels))
    raises(ShardError, "another kind of batch", lambda: shard(x.half() if rank == 1 else x, labels))
    raises(ShardError, "another kind of batch", lambda: shard(x, labels, **({"row_weights": torch.ones(len(x))} if rank == 1 else {})))
    raises(ShardError, "out of step", lambda: shard.predict(x) if rank == 1 else shard(x, labels))
    if rank == 1:
        # as if it had taken part in a step that the others have not
        shard._exchanges.count += 1
    raises(ShardError, "rank 1 is out of step", lambda: shard(x, labels))
    if rank == 1:
        shard._exchanges.count -= 1
    # an error of the library itself, in one rank's step
    native = shard._native
    if rank == 1:
        shard._native = None
    raises(TypeError if rank == 1 else ShardError, "not callable", lambda: shard(x, labels))
    shard._native = native
    assert shard.state == state
    step(whole, shard, rank, size)


def trained(shard, optimizer, rank, size, numbers):
    losses = []
    for number in numbers:
        x, labels = batch(4, number)
        rows = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
        optimizer.zero_grad()
        loss = shard(x[rows], labels[rows])
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def check_resharding(rank, size, folder):
    """4 ranks → 2 → 3 → 1, and the whole head: the losses of a run that nothing interrupted."""
    if size != 4:
        return
    groups = {n: dist.new_group(list(range(n))) for n in (1, 2, 3, 4)}
    for name, make in {
        "sgd": lambda head: torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9),
        "adam": lambda head: torch.optim.Adam(head.parameters(), lr=0.01),
    }.items():
        options = {"device": "cpu", "threads": 1, "learnable_scale": False, "seed": 3}
        expected = MarginHead(CLASSES, DIM, "adaface", **options)
        with torch.no_grad():
            expected.weight.copy_(prototypes())
        losses = trained(expected, make(expected), 0, 1, range(10))
        place = folder / name
        shard = ShardedMarginHead(CLASSES, DIM, "adaface", ranges=RANGES[4], **options)
        with torch.no_grad():
            shard.weight.copy_(prototypes()[of(shard)])
        optimizer = make(shard)
        found = trained(shard, optimizer, rank, 4, range(2))
        save_shards(place, shard, optimizer)
        for at, ranks in enumerate((2, 3, 1), 1):
            if rank < ranks:
                shard = ShardedMarginHead(CLASSES, DIM, "adaface", group=groups[ranks], **options)
                optimizer = make(shard)
                load_shards(place, shard, optimizer)
                found += trained(shard, optimizer, rank, ranks, range(2 * at, 2 * at + 2))
                save_shards(place, shard, optimizer)
                assert len(list(place.glob("classes-*.pt"))) == ranks or rank > 0
            dist.barrier()
        if rank == 0:
            whole = MarginHead(CLASSES, DIM, "adaface", **options)
            optimizer = make(whole)
            load_shards(place, whole, optimizer)
            assert torch.equal(whole.weight, shard.weight) and whole.state == shard.state
            found += trained(whole, optimizer, 0, 1, range(8, 10))
            assert found == pytest.approx(losses, rel=1e-5)
        dist.barrier()


def check_broken_checkpoints(rank, size, folder):
    place = folder / f"broken-{size}"
    whole, shard = heads("arcface", size)
    raises(FileNotFoundError, "shards.json", lambda: load_shards(place, shard))
    optimizer = torch.optim.SGD(shard.parameters(), lr=0.1, momentum=0.9)
    save_shards(place, shard)
    before = shard.weight.detach().clone()
    raises(ValueError, "without an optimiser", lambda: load_shards(place, shard, optimizer))
    other = ShardedMarginHead(CLASSES + 1, DIM, "arcface", device="cpu", threads=1)
    raises(ValueError, f"classes {CLASSES}, the head {CLASSES + 1}", lambda: load_shards(place, other))
    other = ShardedMarginHead(CLASSES, DIM, "softmax", device="cpu", threads=1)
    raises(ValueError, "parameters", lambda: load_shards(place, other))
    manifest = (place / "shards.json").read_text()
    dist.barrier()
    for change, text in (
        (lambda shards: shards[1:], "all classes once"),
        (lambda shards: shards + shards[:1], "all classes once"),
        (lambda shards: [[*own[:2], "absent.pt"] for own in shards], "is missing"),
    ):
        if rank == 0:
            content = json.loads(manifest)
            (place / "shards.json").write_text(json.dumps(dict(content, shards=change(sorted(content["shards"])))))
        dist.barrier()
        raises((ValueError, FileNotFoundError), text, lambda: load_shards(place, shard))
        assert torch.equal(shard.weight, before)
        dist.barrier()
    if rank == 0:
        (place / "shards.json").write_text(manifest)
    dist.barrier()
    load_shards(place, shard)
    # a state of other classes
    kept = shard.state_dict()
    if size == 4:
        even = ShardedMarginHead(28, DIM, "arcface", device="cpu", threads=1)
        raises(ValueError, "load_shards", lambda: even.set_extra_state(kept["_extra_state"]))
    shard.load_state_dict(kept)


def check_death(rank, size, folder):
    """The last check: a rank dies in the middle of a run."""
    _, shard = heads("arcface", size)
    x, labels = batch(size)
    own = own_rows(rank, size)
    shard(x[own], labels[own])
    if rank == size - 1:
        # without a word to anybody, and with its results written
        return "die"
    raises(ShardError, "is gone", lambda: shard(x[own], labels[own]))


CHECKS = {name[len("check_") :]: check for name, check in list(globals().items()) if name.startswith("check_")}


def work(rank, size, port, folder):
    torch.set_num_threads(1)
    ms.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size, timeout=datetime.timedelta(seconds=SECONDS)
    )
    for name, check in CHECKS.items():
        failure = dies = None
        try:
            dies = check(rank, size, folder)
        except BaseException:
            failure = traceback.format_exc()
        (folder / f"{name}-{rank}").write_text(failure or "")
        if dies:
            os._exit(0)
        failures = [None] * size
        dist.all_gather_object(failures, failure is not None)
        if any(failures):
            # the ranks are not together any more
            os._exit(1)
    os._exit(0)


@pytest.fixture(scope="module", params=[2, 4])
def outcomes(request, tmp_path_factory):
    size, folder = request.param, tmp_path_factory.mktemp(f"ranks-{request.param}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, size, port, folder)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        if process.is_alive():
            process.kill()
    return size, folder


@pytest.mark.parametrize("name", CHECKS)
def test_ranks(outcomes, name):
    size, folder = outcomes
    for rank in range(size):
        file = folder / f"{name}-{rank}"
        assert file.exists(), f"rank {rank} did not get there"
        assert not file.read_text(), f"rank {rank}: {file.read_text()}"
