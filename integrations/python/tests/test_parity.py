"""Every preset that plain PyTorch can express, in float64, against formulas written here."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

import margin_softmax as ms
from margin_softmax.torch import MarginHead, check

N, C, D = 24, 12, 16


def batch(seed=0, length=1.0):
    """Embeddings from along their prototype to against it, not normalised."""
    draw = torch.Generator().manual_seed(seed)
    w = torch.randn(C, D, generator=draw, dtype=torch.float64)
    y = torch.randint(C, (N,), generator=draw)
    own = F.normalize(w[y])
    share = torch.linspace(0.97, -0.97, N, dtype=torch.float64).unsqueeze(1)
    noise = F.normalize(torch.randn(N, D, generator=draw, dtype=torch.float64))
    x = (share * own + (1.05 - share.abs()) * noise) * length * (0.5 + torch.rand(N, 1, generator=draw, dtype=torch.float64))
    return x.requires_grad_(True), w.requires_grad_(True), y


def cosines(x, w):
    return F.normalize(x) @ F.normalize(w).T


def exact(m1, m2, fallback):
    """cos(m1·θ + m2), continued beyond the threshold."""

    def curve(c):
        u = m1 * torch.acos(c) + m2
        if fallback == "mirror":
            k = torch.floor(u.detach() / math.pi)
            return (1 - 2 * (k % 2)) * torch.cos(u) - 2 * k
        threshold = math.cos((math.pi - m2) / m1)
        other = {
            "continuous": c - threshold - 1,
            "sine": c - m2 * math.sin(m2),
            "none": torch.cos(u),
        }[fallback]
        return torch.where(c > threshold, torch.cos(u), other)

    return curve


def easy(m2):
    return lambda c: torch.where(c > 0, torch.cos(torch.acos(c) + m2), c)


def chebyshev(m2, degree):
    """The truncated series of cos(θ + m2) = x·cos m2 − √(1−x²)·sin m2, by the series of the root."""

    def curve(c):
        theta = torch.acos(c)
        root = 2 / math.pi - sum(4 / math.pi / (4 * k * k - 1) * torch.cos(2 * k * theta) for k in range(1, degree // 2 + 1))
        series = c * math.cos(m2) - root * math.sin(m2)
        threshold = math.cos(math.pi - m2)
        return torch.where(c > threshold, series, c - threshold - 1)

    return curve


def logits(c, y, phi, others=lambda c, target: c):
    """The logits without scale: φ at the label, the transform of the others elsewhere."""
    target = phi(c.gather(1, y.unsqueeze(1)))
    return others(c, target).scatter(1, y.unsqueeze(1), target)


def softmax(scale, phi, others=lambda c, target: c):
    return lambda x, w, y: F.cross_entropy(scale * logits(cosines(x, w), y, phi, others), y)


def by_length(phi):
    def loss(x, w, y):
        return F.cross_entropy(x.norm(dim=1, keepdim=True) * logits(cosines(x, w), y, phi), y)

    return loss


def hard(transform):
    """Others above the target's logit are transformed."""
    return lambda c, target: torch.where(c > target, transform(c), c)


def arcneg(c, target):
    t = 1.2 * torch.exp(-((c - target) ** 2) / 2.0).detach()
    return t * c + t - 1


def top_k(c, target, y):
    others = c.detach().scatter(1, y.unsqueeze(1), -2.0)
    hardest = torch.zeros_like(c, dtype=torch.bool).scatter(1, others.topk(5).indices, True)
    return torch.where(hardest, torch.cos(torch.acos(c) - 0.06), c)


def inter_top_k(x, w, y):
    return softmax(32, exact(1, 0.2, "continuous"), lambda c, target: top_k(c, target, y))(x, w, y)


def linear(margin):
    def loss(x, w, y):
        z = x @ w.T
        return F.cross_entropy(z - margin * F.one_hot(y, C).double(), y)

    return loss


def adaface(x, w, y):
    length = x.norm(dim=1, keepdim=True).detach().clamp(1e-3, 100)
    quality = ((length - 20) / (100 + 1e-3) * 0.333).clamp(-1, 1)
    phi = lambda c: torch.cos((torch.acos(c) - 0.4 * quality).clamp(1e-3, math.pi - 1e-3)) - 0.4 - 0.4 * quality
    return softmax(64, phi)(x, w, y)


def magface(x, w, y):
    length = x.norm(dim=1, keepdim=True).clamp(10, 110)
    margin = (0.8 - 0.45) / (110 - 10) * (length - 10) + 0.45
    phi = lambda c: torch.where(c > 0, torch.cos(torch.acos(c) + margin), c)
    return softmax(64, phi)(x, w, y) + 35 * (1 / length + length / 110**2).mean()


def sphereface2(scale, margin, angular=False, factor=1.0, detached=False):
    adjusted = lambda c: 2 * ((c + 1) / 2) ** 3 - 1

    def loss(x, w, y):
        c, own = cosines(x, w), F.one_hot(y, C).bool()
        if angular:
            # wespeaker's continuation where the angle passes π
            moved = torch.where(own, exact(1, margin, "continuous")(c), torch.cos(torch.acos(c) - margin))
            z = scale * adjusted(moved)
        else:
            z = scale * (adjusted(c) + margin * (1 - 2 * own.double()))
        return factor * -torch.where(own, 0.7 * F.logsigmoid(z), 0.3 * F.logsigmoid(-z)).sum(1).mean()

    return loss


def angles(m):
    def loss(x, w, y):
        theta = torch.acos(cosines(x, w))
        z = (math.pi - 2 * (theta + m * F.one_hot(y, C).double())) / math.pi
        return F.cross_entropy(64 * z, y)

    return loss


def line(c):
    return c


FORMULAS = {
    "normface": softmax(64, line),
    "cosface": softmax(64, lambda c: c - 0.35),
    "arcface": softmax(64, exact(1, 0.5, "continuous")),
    "arcface_insightface": softmax(64, lambda c: c + (exact(1, 0.5, "none")(c) - c).detach()),
    "arcface_pml": softmax(64, exact(1, math.radians(28.6), "sine")),
    "arcface_speaker": softmax(32, exact(1, 0.2, "continuous")),
    "sphereface": softmax(30, exact(1.7, 0, "mirror")),
    "sphereface_raw": softmax(64, exact(1.35, 0, "none")),
    "ampface": softmax(64, lambda c: 0.35 * c),
    "ampface_rectified": softmax(64, lambda c: 0.35 * c, lambda c, target: c.clamp(min=0)),
    "chebyaam": softmax(30, chebyshev(0.2, 30)),
    "softmax": linear(0.0),
    "m_softmax": linear(0.5),
    "arcgrad": lambda x, w, y: F.cross_entropy(-30 * torch.acos(cosines(x, w)), y),
    "li_arcface": angles(0.4),
    # the state before the first step: t = 0
    "curricularface": softmax(64, exact(1, 0.5, "sine"), hard(lambda c: c * c)),
    "adaface": adaface,
    "magface": magface,
    "sphereface2": sphereface2(32, 0.2),
    "sphereface2_angular": sphereface2(32, 0.15, angular=True),
    "adacos": softmax(math.sqrt(2) * math.log(C - 1), line),
    "arcface_topk": inter_top_k,
    "arcface_filter": softmax(64, exact(1, 0.5, "continuous"), lambda c, target: torch.where(c > 0.4, torch.zeros_like(c), c)),
    "modified_softmax": by_length(line),
    "a_softmax": by_length(exact(4, 0, "mirror")),
    "mv_am": softmax(32, lambda c: c - 0.35, hard(lambda c: 1.2 * c + 0.2)),
    "mv_arc": softmax(32, exact(1, 0.5, "none"), hard(lambda c: 1.2 * c + 0.2)),
    "arcnegface": softmax(64, exact(1, 0.5, "sine"), arcneg),
}

# why plain autograd has no formula for them here
OTHERS = {
    "chebyaam_fit": "its coefficients are a least-squares fit",
    "arcgrad_series": "the slope is that of a series, the value is not",
    "elasticface_arc": "margins are drawn",
    "elasticface_arc_plus": "margins are drawn",
    "elasticface_cos": "margins are drawn",
    "elasticface_cos_plus": "margins are drawn",
    "sphereface2_opensphere": "its slope is detached",
}


def test_every_preset_is_listed():
    assert sorted([*FORMULAS, *OTHERS]) == sorted(name for name, _ in ms.presets())


@pytest.mark.parametrize("name", FORMULAS)
def test_preset(name):
    # lengths on both sides of MagFace's bounds, and where AdaFace's norms differ
    x, w, y = batch(seed=1, length=60.0 if name in ("magface", "adaface") else 1.0)
    expected = FORMULAS[name](x, w, y)
    expected.backward()
    head = MarginHead(C, D, name, device="reference", bias=False if name in ("softmax", "m_softmax") else None).double()
    head.eval()
    with torch.no_grad():
        head.weight.copy_(w)
    own = x.detach().clone().requires_grad_(True)
    loss = head(own, y)
    loss.backward()
    assert loss.dtype is torch.float64
    expected = expected.item()
    assert abs(loss.item() - expected) <= 1e-10 * max(1.0, abs(expected))
    for found, gradient in ((own.grad, x.grad), (head.weight.grad, w.grad)):
        assert float((found - gradient).abs().max()) <= 1e-9 * float(gradient.abs().max())


@pytest.mark.parametrize("name", ["arcface", "ampface", "sphereface2", "softmax", "magface", "chebyaam", "arcgrad"])
def test_gradcheck_through_the_reference(name):
    draw = torch.Generator().manual_seed(3)
    head = MarginHead(5, 4, ms.MarginSoftmax.preset(name, scale=4.0), device="reference").double()
    x = torch.randn(3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 4])
    parameters = [x, head.weight] + ([head.bias] if head.bias is not None else [])
    with torch.no_grad():
        head.weight.copy_(torch.randn(5, 4, generator=draw, dtype=torch.float64))

    def loss(*_):
        return head(x, y)

    assert torch.autograd.gradcheck(loss, parameters, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_check_names_the_fallback_that_explains_a_difference():
    def insightface_without_easy_margin(x, w, y):
        return FORMULAS["arcface_insightface"](x, w, y)

    assert check(insightface_without_easy_margin, "arcface_insightface", dim=64).agrees
    found = check(softmax(64, exact(1, 0.5, "sine")), "arcface", dim=64)
    assert not found.agrees and 'fallback="sine"' in found.explanation and "DIFFERS" in str(found)
    found = check(softmax(60, line), "arcface", dim=64)
    assert not found.agrees and "no other slope or fallback" in found.explanation


def test_check_takes_a_module():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(30, 64))

        def forward(self, x, y):
            return softmax(64, lambda c: c - 0.35)(x, self.weight, y)

    assert check(Own(), "cosface").agrees


def test_json_is_the_library_s():
    loss = ms.MarginSoftmax.chebyaam(m2=0.3)
    assert json.loads(loss.to_json())["target"]["unified"]["m2"] == 0.3
    assert ms.MarginSoftmax.from_json(loss.to_json()) == loss == ms.MarginSoftmax.from_dict(loss.to_dict())
