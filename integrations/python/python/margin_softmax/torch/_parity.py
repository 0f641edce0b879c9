"""Parity: somebody's own head beside this library."""

from typing import NamedTuple, Optional

import torch

from .. import Head, MarginSoftmax
from ._tensors import array


class Parity(NamedTuple):
    """How far a head is from the float64 reference: differences over the largest value of each."""

    loss: float
    grad_embeddings: float
    grad_prototypes: float
    tolerance: float
    explanation: Optional[str]

    @property
    def agrees(self):
        """Whether all three are within the tolerance."""
        return max(self.loss, self.grad_embeddings, self.grad_prototypes) <= self.tolerance

    def __str__(self):
        rows = [("loss", self.loss), ("dX", self.grad_embeddings), ("dW", self.grad_prototypes)]
        lines = [f"{name:5} {found:9.2e}  {'ok' if found <= self.tolerance else 'DIFFERS'}" for name, found in rows]
        return "\n".join(lines + ([self.explanation] if self.explanation else []))


def _difference(found, expected):
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _reference(loss, x, w, labels):
    head = Head(loss, len(x), w.shape[0], x.shape[1], device="reference", sub_centers=w.shape[1] if w.dim() == 3 else 1)
    return head.evaluate(array(x.double()), array(w.double()), array(labels))


def check(function, loss, *, rows=16, classes=50, dim=32, sub_centers=1, embeddings=None, weight=None, labels=None, seed=0, tolerance=1e-4):
    """Runs a head of one's own beside this library's float64 reference and says what differs.

    Parameters
    ----------
    function
        Called as ``function(embeddings, weight, labels)`` with float32 tensors [N, D], [C, D] and [N]; returns the loss, from which
        autograd finds the gradients. Or a module with a parameter ``weight`` of that shape, called as
        ``module(embeddings, labels)``.
    loss
        A ``MarginSoftmax`` or the name of a preset: what the function should compute.
    embeddings, weight, labels
        A batch of one's own; drawn where they are absent, so that angles from next to 0 to next to π occur.
    tolerance
        The largest difference, relative to the largest value, that counts as agreement.

    Where the loss agrees and gradients do not, other slopes and fallbacks of the same margins are tried, and the one that
    explains all three is named.
    """
    loss = MarginSoftmax.preset(loss) if isinstance(loss, str) else loss
    draw = torch.Generator().manual_seed(seed)
    shape = (classes, dim) if sub_centers == 1 else (classes, sub_centers, dim)
    module = function if isinstance(function, torch.nn.Module) else None
    if weight is None:
        weight = module.weight.detach().clone() if module is not None else torch.randn(shape, generator=draw)
    if labels is None:
        labels = torch.randint(weight.shape[0], (rows,), generator=draw)
    if embeddings is None:
        own = weight[labels] if weight.dim() == 2 else weight[labels, 0]
        own = own / own.norm(dim=1, keepdim=True)
        noise = torch.randn(own.shape, generator=draw) / own.shape[1] ** 0.5
        # from along the own prototype to against it
        share = torch.linspace(1.0, -1.0, len(labels)).unsqueeze(1)
        embeddings = 3.0 * (share * own + (1.0 - share.abs() + 0.05) * noise)
    x = embeddings.detach().float().clone().requires_grad_(True)
    w = weight.detach().float().clone()
    if module is None:
        w.requires_grad_(True)
        value = function(x, w, labels)
    else:
        with torch.no_grad():
            module.weight.copy_(w)
        w = module.weight
        value = module(x, labels)
    if value.dim() != 0:
        raise ValueError(f"the function returned shape {list(value.shape)}, expected one number")
    own = (value.detach(), *torch.autograd.grad(value, (x, w)))

    def differences(candidate):
        expected = _reference(candidate, x.detach(), w.detach(), labels)
        return [_difference(a, b) for a, b in zip(own, (expected.loss, expected.grad_embeddings, expected.grad_prototypes))]

    found = differences(loss)
    explanation = _explained(loss, differences, tolerance) if max(found) > tolerance else None
    return Parity(*found, tolerance, explanation)


def _explained(loss, differences, tolerance):
    """The slope and fallback under which all agrees."""
    for slope in ("analytic", "detached"):
        for fallback in ("continuous", "sine", "mirror", "none", "easy"):
            try:
                other = loss.replace(slope=slope, fallback=fallback)
                agrees = max(differences(other)) <= tolerance
            except (TypeError, ValueError):
                # this loss has no such curve
                continue
            if agrees and other != loss:
                return f'it is the loss with slope="{slope}", fallback="{fallback}"'
    return "no other slope or fallback of these margins explains it"
