"""The PyTorch modules."""

import builtins
import copy
import io
import os
import pickle
import socket

import pytest
import torch
import torch.nn.functional as F

import margin_softmax as ms
from margin_softmax.torch import MarginHead, SampledMarginHead


def float(number):  # noqa: A001: newer versions of PyTorch warn where a number has a graph
    return builtins.float(number.detach() if isinstance(number, torch.Tensor) else number)

N, C, D = 6, 20, 8


def data(seed=0, kind=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=draw).to(kind).requires_grad_(True)
    return x, torch.randint(C, (N,), generator=draw)


def head(loss="arcface", **options):
    torch.manual_seed(1)
    if isinstance(loss, str):
        loss = ms.MarginSoftmax.preset(loss)
    return MarginHead(C, D, loss, **{"device": "cpu", **options})


def native(module, x, y, **arguments):
    """The same step by the library's own head."""
    options = {"want": ["embeddings", "prototypes"], "device": "cpu"}
    own = ms.Head(module.loss, len(x), C, D, **options)
    own.state = module.state
    return own.evaluate(x.detach().numpy(), module.weight.detach().numpy(), y.numpy(), **arguments)


def close(a, b, tolerance=1e-6):
    assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance)


def same(a, b):
    assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_loss_and_gradients_are_the_library_s_bits():
    for reduction in ("mean", "sum"):
        module, (x, y) = head(ms.MarginSoftmax.arcface(reduction=reduction)), data()
        expected = native(module, x, y)
        loss = module(x, y)
        loss.backward()
        assert float(loss.detach()) == expected.loss and loss.dtype is torch.float32
        same(x.grad, expected.grad_embeddings)
        same(module.weight.grad, expected.grad_prototypes)


def test_no_nan_at_cosines_of_one():
    module = head("arcface")
    x = torch.cat([module.weight[:3], -module.weight[3:6]]).detach().clone().requires_grad_(True)
    loss = module(x, torch.arange(6))
    loss.backward()
    assert all(bool(torch.isfinite(t).all()) for t in (loss, x.grad, module.weight.grad))


def test_upstream_multiplies():
    module, (x, y) = head(), data()
    expected = native(module, x, y)
    (3.0 * module(x, y) + 1.0).backward()
    close(x.grad, 3.0 * torch.from_numpy(expected.grad_embeddings))
    # what a GradScaler starts with
    module.zero_grad(), setattr(x, "grad", None)
    (module(x, y) * 65536.0).backward()
    same(x.grad, 65536.0 * torch.from_numpy(expected.grad_embeddings))
    for factor in (float("inf"), float("nan")):
        module.zero_grad(), setattr(x, "grad", None)
        (module(x, y) * factor).backward()
        assert not torch.isfinite(x.grad).any() and not torch.isfinite(module.weight.grad).any()


def test_losses_of_rows():
    module, (x, y) = head(ms.MarginSoftmax.arcface(reduction="none")), data()
    rows = module(x, y)
    assert rows.shape == (N,)
    upstream = torch.linspace(-1, 2, N)
    rows.backward(upstream, retain_graph=True)
    expected = native(module, x, y, upstream=upstream.numpy())
    same(x.grad, expected.grad_embeddings)
    same(module.weight.grad, expected.grad_prototypes)
    # an infinite loss of one row spoils what it touches and nothing else
    x.grad = module.weight.grad = None
    upstream[2] = float("inf")
    rows.backward(upstream)
    assert torch.isnan(x.grad[2]).all() and torch.isfinite(x.grad[[0, 1, 3, 4, 5]]).all()
    assert torch.isnan(module.weight.grad).all()


def test_two_forwards_before_one_backward():
    module, (x, y), (other, labels) = head(), data(), data(5)
    a, b = module(x, y), module(other, labels)
    (a + b).backward()
    first, second = native(module, x, y), native(module, other, labels)
    same(x.grad, first.grad_embeddings)
    same(other.grad, second.grad_embeddings)
    close(module.weight.grad, torch.from_numpy(first.grad_prototypes + second.grad_prototypes))


def test_inputs_that_change_between_forward_and_backward():
    module, (x, y) = head(), data()
    expected = native(module, x, y)
    loss = module(x, y)
    with torch.no_grad():
        module.weight.add_(1.0)
        x.mul_(2.0)
    y.zero_()
    loss.backward(retain_graph=True)
    same(module.weight.grad, expected.grad_prototypes)
    # the second time computes anew, and autograd sees the change
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_retain_graph():
    module, (x, y) = head(), data()
    loss = module(x, y)
    loss.backward(retain_graph=True)
    once = x.grad.clone(), module.weight.grad.clone()
    loss.backward()
    same(x.grad, 2 * once[0])
    same(module.weight.grad, 2 * once[1])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_double_backward_is_refused_by_name():
    module, (x, y) = head(), data()
    (gradient,) = torch.autograd.grad(module(x, y), x, create_graph=True)
    same(gradient.detach(), native(module, x, y).grad_embeddings)
    with pytest.raises(RuntimeError, match="no double backward"):
        gradient.sum().backward()


@pytest.mark.parametrize("frozen", ["weight", "embeddings", "both"])
def test_frozen_parts_cost_nothing(frozen):
    module, (x, y) = head(), data()
    if frozen in ("weight", "both"):
        module.weight.requires_grad_(False)
    if frozen in ("embeddings", "both"):
        x = x.detach()
    loss = module(x, y)
    assert loss.requires_grad == (frozen != "both")
    if frozen != "both":
        loss.backward()
    assert (module.weight.grad is None) == (frozen in ("weight", "both"))
    wanted = {"weight": ("embeddings",), "embeddings": ("prototypes",), "both": ()}[frozen]
    assert list(module._heads) == [wanted]


def test_no_grad():
    module, (x, y) = head(), data()
    with torch.no_grad():
        loss = module(x, y)
    assert not loss.requires_grad and list(module._heads) == [()]
    close(loss, module(x, y))


def test_accumulation_of_gradients():
    module, (x, y) = head(ms.MarginSoftmax.arcface(ignore_index=-100)), data()
    whole = native(module, x, y)
    for part in (slice(0, 2), slice(2, N)):
        # both parts divide by the rows of the whole batch
        module(x[part], y[part], divisor=N).backward()
    close(module.weight.grad, whole.grad_prototypes, 1e-5)
    close(x.grad, whole.grad_embeddings, 1e-5)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_embeddings_of_autocast(kind):
    module, (x, y) = head(), data(kind=kind)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(x, y)
    loss.backward()
    expected = native(module, x.float(), y)
    assert x.grad.dtype is kind and module.weight.grad.dtype is torch.float32
    assert float(loss) == expected.loss
    same(x.grad, torch.from_numpy(expected.grad_embeddings).to(kind))
    # a gradient below float16's range survives where the scaler's factor is in it
    tiny = 1e-6
    x.grad = None
    (module(x, y) * tiny * 65536.0).backward()
    close(x.grad.float(), (tiny * 65536.0 * torch.from_numpy(expected.grad_embeddings)).to(kind).float())


def test_backbone_under_autocast_and_scaler():
    module, (x, y) = head(), data()
    backbone = torch.nn.Linear(D, D)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(backbone(x), y)
    loss.backward()
    assert torch.isfinite(backbone.weight.grad).all() and loss.dtype is torch.float32


def test_half_weight():
    module, (x, y) = head().to(torch.bfloat16), data()
    module(x, y).backward()
    assert module.weight.grad.dtype is torch.bfloat16


def test_doubles():
    x, y = data(kind=torch.float64)
    with pytest.raises(TypeError, match="both must be float64"):
        head()(x, y)
    with pytest.raises(TypeError, match='device="reference"'):
        head().double()(x, y)
    module = head(device="reference").double()
    assert module(x, y).dtype is torch.float64
    with pytest.raises(TypeError, match="`embeddings` is torch.int64"):
        head()(torch.ones(N, D, dtype=torch.int64), y)


def test_other_devices_go_through_the_host():
    # the only other device of this build of PyTorch; it has no values
    x = torch.empty(N, D, device="meta")
    with pytest.raises((NotImplementedError, RuntimeError)):
        head()(x, torch.zeros(N, dtype=torch.long))


def test_learnable_scale_and_biases():
    x, y = data()
    module = head("arcface", learnable_scale=True)
    module(x, y).backward()
    exact = ms.Head(module.loss, N, C, D, device="reference", want=["scale"])
    assert abs(float(module.scale.grad) - exact.evaluate(x.detach().numpy(), module.weight.detach().numpy(), y.numpy()).grad_scale) < 1e-5
    with torch.no_grad():
        module.scale.fill_(10.0)
    close(module(x, y), native(head(module.loss.replace(scale=10.0)), x, y).loss)
    linear = head("softmax")
    loss = linear(x, y)
    close(loss, F.cross_entropy(F.linear(x, linear.weight, linear.bias), y), 1e-5)
    loss.backward()
    assert linear.bias.grad.shape == (C,)
    binary = head("sphereface2", bias=True)
    binary(x, y).backward()
    before = float(binary(x, y))
    assert binary.bias.grad.shape == (1,)
    with torch.no_grad():
        binary.bias.add_(1e-2)
    close((float(binary(x, y)) - before) / 1e-2, float(binary.bias.grad), 5e-2)
    for loss, options, words in [("arcface", {"bias": True}, "has a bias"), ("adacos", {"learnable_scale": True}, "AdaCos")]:
        with pytest.raises(ValueError, match=words):
            head(loss, **options)


def test_everything_of_a_batch():
    x, y = data()
    draw = torch.Generator().manual_seed(4)
    weights, rows = 0.5 + torch.rand(C, generator=draw), 0.5 + torch.rand(N, generator=draw)
    margins = torch.rand(C, generator=draw) / 2
    loss = ms.MarginSoftmax.arcface(label_smoothing=0.1)
    module = head(loss, class_weights=weights, class_margins={"m2": margins}, soft_labels=2)
    found = module(x, y, row_weights=rows, row_margins={"m3": rows / 10})
    given = {"class_weights": weights, "row_weights": rows}
    given = {name: value.numpy() for name, value in given.items()}
    expected = native(module, x, y, class_margins={"m2": margins.numpy()}, row_margins={"m3": (rows / 10).numpy()}, **given)
    assert float(found) == expected.loss
    plain = head(soft_labels=2)
    classes, shares = torch.stack([y, (y + 1) % C], 1), torch.tensor([[0.7, 0.3]] * N)
    mixed = plain(x, y, soft_labels=(classes, shares))
    close(mixed, 0.7 * plain(x, y) + 0.3 * plain(x, (y + 1) % C), 1e-5)
    ignored = head(ms.MarginSoftmax.arcface(ignore_index=-100))
    y[2] = -100
    ignored(x, y).backward()
    assert not x.grad[2].any() and ignored.last.counts["ignored"] == 1


def test_last_and_predictions():
    module, (x, y) = head(predictions=3), data()
    module(x, y)
    cosines = module.cosines(x)
    close(cosines, F.normalize(x) @ F.normalize(module.weight).T)
    same(module.last.predictions.classes, cosines.topk(3).indices)
    close(module.last.target_cosines, cosines.gather(1, y.unsqueeze(1)).squeeze(1))
    found = module.predict(x, 3)
    same(found.classes, module.last.predictions.classes)
    close(found.log_probabilities, F.log_softmax(64 * cosines, 1).topk(3).values, 1e-4)
    close(module.cosines(x, torch.tensor([4, 2])), cosines[:, [4, 2]])
    # more rows than any call before
    assert module.predict(x.repeat(3, 1), 3).classes.shape == (3 * N, 3)
    with pytest.raises(ValueError, match="predictions"):
        module.predict(x, 65)


def test_a_gradient_filter_is_for_gradients():
    module, (x, y) = head(filter=1e-3), data()
    module(x, y).backward()
    close(x.grad, native(module, x, y).grad_embeddings, 0.1 * float(x.grad.abs().max()))
    with torch.no_grad():
        assert float(module(x, y)) == native(module, x, y).loss


def test_sub_centers():
    module, (x, y) = head(sub_centers=3), data()
    assert module.weight.shape == (C, 3, D)
    module(x, y).backward()
    assert module.weight.grad.shape == (C, 3, D)
    close(module.cosines(x).amax(1), module.predict(x, 1).cosines.squeeze(1))


def test_batches_of_any_size():
    module, (x, y) = head(), data()
    for rows in (2, N, 3, 1):
        loss = module(x[:rows], y[:rows])
        assert float(loss) == native(module, x[:rows], y[:rows]).loss
    assert float(module(x[:0], y[:0]).isnan()) == 1.0 or float(module(x[:0], y[:0])) == 0.0
    with pytest.raises(ValueError, match=r"`embeddings` has shape \[6, 7\], expected \[N, 8\]"):
        module(x[:, :7], y)
    with pytest.raises(ValueError, match="row 0 has label 20"):
        module(x, torch.full((N,), C))


def test_a_new_loss_in_the_middle_of_a_run():
    module, (x, y) = head(), data()
    module(x, y)
    module.loss = module.loss.replace(m2=0.3, scale=20)
    assert float(module(x, y)) == native(module, x, y).loss
    # which needs other kernels on a device
    module.loss = ms.MarginSoftmax.curricularface()
    assert float(module(x, y)) > 0
    with pytest.raises(ValueError):
        module.loss = ms.MarginSoftmax.from_json('{"target": {"unified": {"m0": -1.0}}}')


@pytest.mark.parametrize("name", ["curricularface", "adacos", "adaface", "elasticface_arc", "arcface"])
def test_a_run_goes_on_bit_for_bit(name):
    def steps(module, optimizer, first, last):
        losses = []
        for step in range(first, last):
            x, y = data(step)
            optimizer.zero_grad()
            loss = module(x, y)
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        return losses

    def made():
        module = head(name, seed=7)
        return module, torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)

    module, optimizer = made()
    steps(module, optimizer, 0, 3)
    file = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, file)
    expected = steps(module, optimizer, 3, 6)
    file.seek(0)
    kept = torch.load(file)
    again, optimizer = made()
    again.load_state_dict(kept["module"])
    optimizer.load_state_dict(kept["optimizer"])
    assert again.state.step == 3
    assert steps(again, optimizer, 3, 6) == expected
    same(again.weight, module.weight)


def test_rows_of_a_loss_with_a_state_have_the_gradients_of_their_step():
    module, (x, y) = head(ms.MarginSoftmax.elasticface_arc(reduction="none")), data()
    summed = head(ms.MarginSoftmax.elasticface_arc(reduction="sum"))
    module(x, y).sum().backward()
    other = x.detach().clone().requires_grad_(True)
    summed(other, y).backward()
    same(x.grad, other.grad)
    assert module.state == summed.state


def test_state_moves_in_training_mode_alone():
    module, (x, y) = head("curricularface"), data()
    module.eval()
    module(x, y)
    assert module.state.step == 0
    module.train()
    with torch.no_grad():
        module(x, y)
    assert module.state.step == 1 and module.state.hardness != 0


def test_state_of_other_sizes_is_refused():
    kept = head("curricularface").get_extra_state()
    other = MarginHead(C + 1, D, "curricularface", device="cpu")
    with pytest.raises(ValueError, match="state"):
        other.set_extra_state(kept)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"])
def test_copies(copied):
    module, (x, y) = head("curricularface", class_margins={"m2": torch.full((C,), 0.3)}), data()
    module(x, y)
    other = copied(module)
    assert other.state == module.state and other.loss == module.loss
    assert float(other(x, y)) == float(module(x, y))
    with torch.no_grad():
        other.weight.add_(1.0)
    assert not torch.equal(other.weight, module.weight)


def test_optimizers_move_it():
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        module, (x, y) = head(), data()
        moving = optimizer([{"params": [x]}, {"params": module.parameters()}], 0.1)
        losses = []
        for _ in range(20):
            moving.zero_grad()
            loss = module(x, y)
            loss.backward()
            moving.step()
            losses.append(float(loss))
        assert losses[-1] < 0.5 * losses[0]


def test_hooks_see_the_gradient_and_nothing_is_shared():
    module, (x, y) = head(), data()
    seen = []
    module.weight.register_hook(lambda gradient: seen.append(gradient) or gradient * 0.0)
    module(x, y).backward()
    assert seen[0].abs().sum() > 0 and module.weight.grad.abs().sum() == 0
    kept = x.grad
    module(x, y).backward()
    assert x.grad is kept


def test_sampled_head_has_sparse_gradients():
    torch.manual_seed(0)
    module, (x, y) = SampledMarginHead(C, D, "cosface", rate=0.5, seed=3, device="cpu"), data()
    before = module.weight.detach().clone()
    loss = module(x, y)
    loss.backward()
    gradient = module.weight.grad
    assert gradient.is_sparse and gradient.shape == (C, D)
    classes = module.last.classes
    assert set(y.tolist()) <= set(classes.tolist()) and len(classes) == 10
    part = ms.Head(module.loss, N, 10, D, device="cpu").evaluate(
        x.detach().numpy(), before[classes].numpy(), torch.searchsorted(classes, y).numpy()
    )
    assert float(loss) == part.loss
    same(gradient.to_dense()[classes], part.grad_prototypes)
    for optimizer in (torch.optim.SGD([module.weight], 0.1), torch.optim.SparseAdam([module.weight], 0.1)):
        before = module.weight.detach().clone()
        optimizer.step()
        moved = (module.weight != before).any(1)
        assert set(moved.nonzero().flatten().tolist()) <= set(classes.tolist()) and moved.any()


def test_sampled_head_draws_anew_and_goes_on():
    def run(module, first, last):
        return [(float(module(*data(step))), module.last.classes.tolist()) for step in range(first, last)]

    def made():
        torch.manual_seed(0)
        return SampledMarginHead(C, D, "curricularface", rate=0.5, seed=3, device="cpu")

    module = made()
    first = run(module, 0, 2)
    assert first[0][1] != first[1][1]
    kept = copy.deepcopy(module.state_dict())
    expected = run(module, 2, 4)
    again = made()
    again.load_state_dict(kept)
    assert run(again, 2, 4) == expected
    module.eval()
    whole = module(*data())
    assert float(whole) == native(module, *data()).loss


def test_sampled_rows():
    torch.manual_seed(0)
    x, y = data()
    module = SampledMarginHead(C, D, ms.MarginSoftmax.cosface(reduction="none"), rate=0.5, device="cpu")
    rows = module(x, y)
    drawn = module.last.classes
    module(*data(1))
    # its draw is that of its own forward pass
    rows.sum().backward()
    same(module.weight.grad._indices()[0], drawn)


def ddp(rank, port, answers):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    ms.set_num_threads(1)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    backbone = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(D, D))
    module = torch.nn.parallel.DistributedDataParallel(head())
    x, y = data(rank)
    module(backbone(x.detach()), y).backward()
    answers.put((rank, backbone.module.weight.grad.tolist(), module.module.weight.grad.tolist()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_ddp_around_backbone_and_head():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    answers = context.Queue()
    ranks = [context.Process(target=ddp, args=(rank, port, answers)) for rank in range(2)]
    [rank.start() for rank in ranks]
    found = sorted(answers.get(timeout=60) for _ in ranks)
    [rank.join(60) for rank in ranks]
    torch.manual_seed(0)
    backbone, module = torch.nn.Linear(D, D), head()
    mean = sum(module(backbone(x.detach()), y) for x, y in (data(0), data(1))) / 2
    mean.backward()
    for _, own, weight in found:
        close(torch.tensor(own), backbone.weight.grad, 1e-5)
        close(torch.tensor(weight), module.weight.grad, 1e-5)


def loader_batch(item):
    # a worker of a DataLoader that uses the library too
    own = ms.Head(ms.MarginSoftmax.arcface(), 1, 2, 2, device="cpu")
    x = torch.tensor([[1.0, float(item)]])
    return own.evaluate(x.numpy(), torch.eye(2).numpy(), torch.tensor([0]).numpy()).loss


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, item):
        return loader_batch(item)


def test_workers_of_a_data_loader():
    module, (x, y) = head(), data()
    expected = [loader_batch(item) for item in range(8)]
    module(x, y).backward()
    loader = torch.utils.data.DataLoader(Items(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    found = []
    for part in loader:
        found += part.tolist()
        module(x, y).backward()
    close(torch.tensor(found), torch.tensor(expected))


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this PyTorch has no torch.compile")
def test_compile_around_it():
    torch.manual_seed(0)
    backbone, module = torch.nn.Linear(D, D), head()

    def step(x, y):
        return module(torch.relu(backbone(x)), y)

    x, y = data()
    expected = step(x, y)
    loss = torch.compile(step)(x, y)
    close(loss, expected, 1e-5)
    loss.backward()
    assert torch.isfinite(module.weight.grad).all() and torch.isfinite(backbone.weight.grad).all()
