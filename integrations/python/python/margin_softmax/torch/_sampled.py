"""`SampledMarginHead`: a head that trains on a sample of the classes."""

import json

import torch

from .. import SampledHead
from ._head import MarginHead, _Computation
from ._tensors import tensor


class _SampledComputation(_Computation):
    """A step over sampled classes, which are drawn in the forward pass."""

    sampler = None

    def forward(self, *parameters):
        self.sampler = dict(self.head._sampler)
        return super().forward(*parameters)

    def again(self, *parameters):
        current, self.head._sampler = self.head._sampler, self.sampler
        try:
            return super().again(*parameters)
        finally:
            self.head._sampler = current


class SampledMarginHead(MarginHead):
    """Partial FC: a step sees the classes of its batch, and of the others so many at random as are missing to ``rate``.

    The gradient of ``weight`` is a sparse tensor of the sampled classes, each there once, as ``torch.optim.SGD`` and
    ``torch.optim.SparseAdam`` take it: classes that were not sampled have no gradient. (With momentum, SGD goes on moving
    them; insightface lets them rest, as SparseAdam does.) In evaluation mode all classes are seen, and the gradient is sparse
    too. ``head.last.classes`` has the classes of the last step.

    Parameters
    ----------
    rate
        The share of the classes, 0 < rate ≤ 1; insightface: 0.1 for large sets.
    seed
        Of the draws.

    The others are those of ``MarginHead``.
    """

    def __init__(self, classes, dim, loss="arcface", *, rate=0.1, seed=0, **options):
        self._sampler = {"rate": rate, "seed": seed, "step": 0}
        super().__init__(classes, dim, loss, seed=seed, **options)

    def _make(self, rows, wanted):
        options = dict(self._settings(wanted), predictions=self._predictions)
        head = SampledHead(self._loss, rows, self.classes, self.dim, self._sampler["rate"], seed=self._sampler["seed"], **options)
        return _Sampled(self, head, rows)

    def _computation(self, inputs, wanted):
        return _SampledComputation(self, inputs, wanted)

    def _weight_gradient(self, out, weight):
        if out.grad_prototypes is None:
            return None
        indices = tensor(out.classes).unsqueeze(0)
        return torch.sparse_coo_tensor(indices, tensor(out.grad_prototypes), weight.shape)._coalesced_(True)

    def get_extra_state(self):
        return dict(super().get_extra_state(), sampler=json.dumps(self._sampler))

    def set_extra_state(self, extra):
        super().set_extra_state(extra)
        self._sampler = json.loads(extra["sampler"])


class _Sampled:
    """A native sampled head with the calls of a whole one; its draws follow the module's."""

    def __init__(self, module, head, rows):
        self.module = module
        self.head = head
        self.rows = rows

    @property
    def state(self):
        return self.head.state

    @state.setter
    def state(self, state):
        self.head.state = state
        self.head.sampler = self.module._sampler

    def update(self, loss):
        self.head.update(loss)

    def train(self, *arrays, **arguments):
        out = self.head.train(*arrays, **arguments)
        self.module._sampler = self.head.sampler
        return out

    def evaluate(self, *arrays, **arguments):
        return self.head.evaluate(*arrays, over="sampled" if self.module.training else "all", **arguments)
