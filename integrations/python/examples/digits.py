"""Handwritten digits from PyTorch: a small network with an ArcFace head, in plain PyTorch and with MarginHead, side by side.

    PYTHONPATH=target/python python3 integrations/python/examples/digits.py

Both start from the same weights and see the same batches, so their losses draw one curve: with matplotlib it is in
out/python/digits.png.
"""

import csv, gzip, resource, sys, time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import margin_softmax as ms
from margin_softmax.torch import MarginHead

ROOT = Path(__file__).resolve().parents[3]
EPOCHS, BATCH, DIM, SCALE, MARGIN = 12, 64, 32, 16.0, 0.3


class PlainHead(nn.Module):
    """ArcFace as one writes it: all cosines, the margin at the label, cross entropy."""

    def __init__(self, classes, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim).normal_(0.0, dim**-0.5))

    def forward(self, x, y):
        c = F.normalize(x) @ F.normalize(self.weight).T
        own = c.gather(1, y.unsqueeze(1))
        moved = torch.cos(torch.acos(own.clamp(-1 + 1e-7, 1 - 1e-7)) + MARGIN)
        threshold = torch.cos(torch.tensor(torch.pi - MARGIN))
        return F.cross_entropy(SCALE * c.scatter(1, y.unsqueeze(1), torch.where(own > threshold, moved, own - threshold - 1)), y)


def digits():
    with gzip.open(ROOT / "examples/data/digits.csv.gz", "rt") as file:
        rows = torch.tensor([[float(value) for value in row] for row in csv.reader(file)])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    x, y = rows[:, :-1] / 16.0, rows[:, -1].long()
    return (x[:1300], y[:1300]), (x[1300:], y[1300:])


def train(name, head, train_set, test_set):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, DIM))
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], 2e-3)
    losses, spent = [], 0.0
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(train_set[0])).split(BATCH):
            embeddings, labels = network(train_set[0][rows]), train_set[1][rows]
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = head(embeddings, labels)
            loss.backward()
            spent += time.perf_counter() - start
            optimizer.step()
            losses.append(loss.item())
        print(f"\r{name}: epoch {epoch + 1} of {EPOCHS} ", end="", file=sys.stderr, flush=True)
    with torch.no_grad():
        nearest = (F.normalize(network(test_set[0])) @ F.normalize(head.weight).T).argmax(1)
    return losses, float((nearest == test_set[1]).float().mean()), 1e3 * spent / len(losses)


if __name__ == "__main__":
    torch.manual_seed(1)
    heads = {"plain PyTorch": PlainHead(10, DIM), "MarginHead": MarginHead(10, DIM, ms.MarginSoftmax.arcface(m2=MARGIN, scale=SCALE))}
    heads["MarginHead"].load_state_dict(heads["plain PyTorch"].state_dict(), strict=False)
    runs = {name: train(name, head, *digits()) for name, head in heads.items()}
    print(f"\n{'head':14} {'last loss':>10} {'right':>7} {'ms a step, network behind it included':>38}")
    for name, (losses, right, step) in runs.items():
        print(f"{name:14} {losses[-1]:10.4f} {right:7.1%} {step:38.2f}")
    apart = max(abs(a - b) for a, b in zip(runs["plain PyTorch"][0], runs["MarginHead"][0]))
    print(f"the losses differ by at most {apart:.1e}; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    assert apart < 1e-4, "two heads that compute the same must train alike"
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit()
    for (name, (losses, *_)), style in zip(runs.items(), (dict(linewidth=5, alpha=0.4), dict(linewidth=1))):
        pyplot.plot(losses, label=name, **style)
    pyplot.xlabel("step"), pyplot.ylabel("loss"), pyplot.legend()
    (ROOT / "out/python").mkdir(parents=True, exist_ok=True)
    pyplot.savefig(ROOT / "out/python/digits.png")
