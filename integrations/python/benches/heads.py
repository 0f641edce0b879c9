"""MarginHead beside PyTorch: ArcFace, forward and backward in float32 on the CPU, step by step in turn in one process.

    integrations/python/stage.sh && PYTHONPATH=target/python python3 integrations/python/benches/heads.py
    ... heads.py --shapes 64x1000x128 --rounds 200 --threads 1

Eager PyTorch is written as a good user would: no arccos, the target entry by its index, the scale on N×D. torch.compile joins where
this PyTorch has it. Loss and gradients are compared before anything is timed. Prints best and median of all rounds, their
ratios to eager's, the peak of memory beyond inputs and gradients (each in a process of its own, which the system measures), and
the time that Python adds to the library's own call.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

import margin_softmax as ms
from margin_softmax.torch import MarginHead

SCALE, MARGIN = 64.0, 0.5
SHAPES = "64x1000x128,256x5994x192,512x20000x512"
COS, SIN = float(np.cos(MARGIN)), float(np.sin(MARGIN))


def eager(x, w, y):
    at = torch.arange(len(y)), y
    z = F.linear(SCALE * F.normalize(x), F.normalize(w))
    raw = z[at]
    c = raw / SCALE
    s = ((1 - c) * (1 + c)).clamp(min=1e-8).sqrt()
    phi = torch.where(c > -COS, c * COS - s * SIN, c - (1 - COS))
    z = z.index_put(at, SCALE * phi)
    return F.cross_entropy(z, y)


class Eager:
    def __init__(self, x, w, y, function=eager):
        self.x, self.y, self.function = x.clone().requires_grad_(), y, function
        self.weight = w.clone().requires_grad_()

    def step(self):
        self.x.grad = self.weight.grad = None
        loss = self.function(self.x, self.weight, self.y)
        loss.backward()
        return loss


class Ours:
    def __init__(self, x, w, y, budget=None):
        self.x, self.y = x.clone().requires_grad_(), y
        self.head = MarginHead(len(w), x.shape[1], ms.MarginSoftmax.arcface(m2=MARGIN, scale=SCALE), device="cpu", budget=budget)
        with torch.no_grad():
            self.head.weight.copy_(w)
        self.weight = self.head.weight

    def step(self):
        self.x.grad = self.weight.grad = None
        loss = self.head(self.x, self.y)
        loss.backward()
        return loss


def inputs(shape):
    rows, classes, dim = shape
    draw = torch.Generator().manual_seed(0)
    x, w = torch.randn(rows, dim, generator=draw), torch.randn(classes, dim, generator=draw)
    return x, w, torch.randint(classes, (rows,), generator=draw)


def check(one, other):
    a, b = one.step().detach(), other.step().detach()
    assert abs(a - b) <= 1e-5 * abs(a), (a, b)
    for p, q in ((one.x.grad, other.x.grad), (one.weight.grad, other.weight.grad)):
        assert float((p - q).abs().max()) <= 1e-3 * float(p.abs().max())


def alternate(heads, rounds):
    """Milliseconds of every step, head by head in turn."""
    times = {name: [] for name in heads}
    for _ in range(rounds):
        for name, head in heads.items():
            start = time.perf_counter()
            head.step()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def overhead(head, rounds):
    """Microseconds of a step of the module beyond the library's call on the same arrays, medians of calls in turn."""
    native = ms.Head(head.head.loss, len(head.x), head.head.classes, head.head.dim, device="cpu")
    arrays = head.x.detach().numpy(), head.weight.detach().numpy(), head.y.numpy()

    class Native:
        def step(self):
            return native.train(*arrays)

    times = alternate({"module": head, "native": Native()}, rounds)
    return (statistics.median(times["module"]) - statistics.median(times["native"])) * 1e3


def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def peak(name, shape, budget):
    """Bytes at the peak of some steps beyond what was there before the head, and beyond both gradients."""
    x, w, y = inputs(shape)
    # the libraries themselves, and whatever they keep, before the measurement
    small = Eager(*inputs((4, 8, 4))) if name == "eager" else Ours(*inputs((4, 8, 4)))
    small.step()
    head = Eager(x, w, y) if name == "eager" else Ours(x, w, y, budget)
    del w
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    for _ in range(3):
        head.step()
    return resident("VmHWM") - before - 4 * (head.x.numel() + head.weight.numel())


def peaks(shape):
    """The same in processes of their own; the smallest budget is the one that the library names."""
    rows, classes, dim = shape
    least = None
    try:
        ms.Head(ms.MarginSoftmax.arcface(), rows, classes, dim, device="cpu", budget=1)
    except ValueError as error:
        least = int(str(error).split("at least ")[1].split()[0])
    found = {}
    for name, budget in (("eager", None), ("keep", None), ("recompute", least)):
        command = [sys.executable, __file__, "--peak", name, "x".join(map(str, shape)), str(budget or 0)]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", default=SHAPES, help=f"NxCxD, comma between them; default {SHAPES}")
    parser.add_argument("--rounds", type=int, default=0, help="default: what takes some seconds")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        name, shape, budget = options.peak
        print(json.dumps(peak(name, tuple(map(int, shape.split("x"))), int(budget) or None)))
        return
    ms.set_num_threads(options.threads)
    torch.set_num_threads(ms.get_num_threads())
    print(f"torch {torch.__version__}, margin-softmax {ms.__version__}, {ms.get_num_threads()} threads")
    for text in options.shapes.split(","):
        shape = tuple(map(int, text.split("x")))
        heads = {"eager": Eager(*inputs(shape)), "MarginHead": Ours(*inputs(shape))}
        if hasattr(torch, "compile"):
            heads["compile"] = Eager(*inputs(shape), torch.compile(eager, dynamic=False))
        for head in heads.values():
            check(heads["eager"], head)
        rounds = options.rounds or max(8, min(400, int(2e9 / np.prod(shape))))
        times = alternate(heads, rounds)
        best, middle = min(times["eager"]), statistics.median(times["eager"])
        print(f"\n{text}, {rounds} rounds")
        for name, own in times.items():
            ratios = f"{min(own) / best:.2f} of eager's best, {statistics.median(own) / middle:.2f} of its median"
            print(f"  {name:12} best {min(own):8.2f} ms, median {statistics.median(own):8.2f} ms   {ratios}")
        print(f"  Python adds {overhead(heads['MarginHead'], rounds):.0f} µs to the library's call")
        if not options.no_memory:
            found = peaks(shape)
            for name, size in found.items():
                print(f"  {name:12} peak {size / 2**20:8.1f} MiB beyond inputs and gradients, {size / found['eager']:.3f} of eager's")


if __name__ == "__main__":
    main()
