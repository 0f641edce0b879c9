"""Trains ArcFace over 10⁶ classes on 4 processes of this machine, and on one: memory and time of a rank, and what it receives.

    python3 million_classes.py [--classes 1000000] [--dim 32] [--rows 256] [--ranks 4] [--steps 10]

Each rank holds a part of the classes with their gradient and momentum, and calls the head with its own rows. The backbone is a
linear layer under DistributedDataParallel; the data are noisy copies of 2,000 points, one for each of as many classes out of all.
"""

import argparse
import os
import resource
import socket
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import margin_softmax as ms
from margin_softmax.torch import MarginHead, ShardedMarginHead

MIB = 2**20
KNOWN = 2_000


def peak():
    """The most memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def batches(options, rank, ranks):
    """This rank's rows of the same global batches, however many ranks there are."""
    draw = torch.Generator().manual_seed(1)
    points = torch.randn(KNOWN, options.dim, generator=draw)
    classes = torch.randperm(options.classes, generator=draw)[:KNOWN]
    for _ in range(options.steps):
        chosen = torch.randint(KNOWN, (options.rows,), generator=draw)
        rows = points[chosen] + 0.1 * torch.randn(options.rows, options.dim, generator=draw)
        own = slice(rank * options.rows // ranks, (rank + 1) * options.rows // ranks)
        yield rows[own], classes[chosen[own]]


def train(rank, ranks, port, options, results):
    torch.set_num_threads(1)
    ms.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    torch.manual_seed(0)
    backbone = torch.nn.Linear(options.dim, options.dim)
    loss = ms.MarginSoftmax.arcface(scale=32.0)
    shared = {"device": "cpu", "budget": 64 * MIB}
    if ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
        backbone = torch.nn.parallel.DistributedDataParallel(backbone)
    before = peak()
    if ranks > 1:
        head = ShardedMarginHead(options.classes, options.dim, loss, averaged=True, **shared)
    else:
        head = MarginHead(options.classes, options.dim, loss, **shared)
    # the mean over many rows leaves each prototype a small gradient
    groups = [{"params": backbone.parameters(), "lr": 0.05}, {"params": head.parameters(), "lr": 10.0}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    losses, times = [], []
    for x, labels in batches(options, rank, ranks):
        began = time.perf_counter()
        optimizer.zero_grad()
        value = head(backbone(x), labels)
        value.backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
        losses.append(float(value))
    held = len(head.weight)
    results.put((ranks, rank, held, peak() - before, sorted(times)[len(times) // 2], losses[0], losses[-1]))


def run(ranks, options):
    """Starts the ranks; their results in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=train, args=(rank, ranks, port, options, results)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"a rank ended with {process.exitcode}")
    return sorted(results.get() for _ in processes)


def received(rows, dim, ranks):
    """Bytes that a rank receives in a step: embeddings and labels, targets and statistics, gradients of its rows."""
    return rows * (4 * dim + 8), 48 * rows * ranks, rows * dim * 4


def traffic(options):
    print("\nbytes that a rank receives in a step: N·(4·D + 8) embeddings and labels, 48·N·R targets and statistics, 4·N·D gradients")
    print(f"{'classes':>12} {'D':>5} {'N':>6} {'ranks':>5} {'classes of a rank':>18} {'embeddings':>11} {'statistics':>11} {'gradients':>10}")
    for classes, dim, rows, ranks in (
        (options.classes, options.dim, options.rows, options.ranks),
        (10 * options.classes, options.dim, options.rows, options.ranks),
        (10**8, 512, 64 * 128, 64),
    ):
        parts = [f"{part / 1e6:.2f} MB" for part in received(rows, dim, ranks)]
        print(f"{classes:>12,} {dim:>5} {rows:>6,} {ranks:>5} {-(-classes // ranks):>18,} {parts[0]:>11} {parts[1]:>11} {parts[2]:>10}")
    weight = 10**8 / 64 * 512 * 4 / 1e9
    print(
        f"The last line on paper: weight, gradient and momentum of a rank are {weight:.1f} GB each, and the traffic does not know the"
        " number of classes."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("classes", 1_000_000), ("dim", 32), ("rows", 256), ("ranks", 4), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{options.classes:,} classes of {options.dim} values, {options.rows} rows a step, {cores} cores in all")
    print(f"{'ranks':>5} {'rank':>5} {'classes':>10} {'memory, MiB':>12} {'step, ms':>9} {'first loss':>11} {'last loss':>10}")
    for ranks in (1, options.ranks):
        for ranks, rank, held, memory, seconds, first, last in run(ranks, options):
            print(f"{ranks:>5} {rank:>5} {held:>10,} {memory:>12.0f} {1e3 * seconds:>9.0f} {first:>11.4f} {last:>10.4f}", flush=True)
    traffic(options)


if __name__ == "__main__":
    main()
