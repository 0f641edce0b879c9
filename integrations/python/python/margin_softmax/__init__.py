"""Margin-softmax heads over numpy arrays: losses, analytic gradients, predictions, in bounded memory.

``MarginSoftmax`` is a loss, ``Head`` computes it with its gradients, ``SampledHead`` on a sample of the classes, ``Predictor`` finds
the nearest classes of embeddings without labels. ``margin_softmax.torch`` has the same as PyTorch modules.

>>> import numpy as np, margin_softmax as ms
>>> loss = ms.MarginSoftmax.arcface(m2=0.5, scale=30.0)
>>> head = ms.Head(loss, rows=2, classes=3, dim=4, device="cpu")
>>> x = np.array([[0.1, 0.9, 0.0, 0.2], [0.7, 0.1, 0.3, 0.0]], np.float32)
>>> out = head.evaluate(x, np.eye(3, 4, dtype=np.float32), np.array([1, 0]))
>>> out.grad_embeddings.shape, out.grad_prototypes.shape
((2, 4), (3, 4))
"""

from . import theory, verification
from ._native import (
    BatchReport,
    Cancelled,
    CenterLoss,
    ClassCenters,
    ClassMap,
    CollapseDetector,
    DeviceError,
    Head,
    MarginSoftmax,
    Monitor,
    Output,
    Predictions,
    Predictor,
    Regularizer,
    SampledHead,
    State,
    __version__,
    adapters,
    count_margins,
    get_num_threads,
    mean_pair_angle,
    mean_prototype,
    new_prototypes,
    presets,
    scheduled,
    set_num_threads,
)

__all__ = [
    "BatchReport",
    "Cancelled",
    "CenterLoss",
    "ClassCenters",
    "ClassMap",
    "CollapseDetector",
    "DeviceError",
    "Head",
    "MarginSoftmax",
    "Monitor",
    "Output",
    "Predictions",
    "Predictor",
    "Regularizer",
    "SampledHead",
    "State",
    "__version__",
    "adapters",
    "count_margins",
    "get_num_threads",
    "mean_pair_angle",
    "mean_prototype",
    "new_prototypes",
    "presets",
    "scheduled",
    "set_num_threads",
    "theory",
    "verification",
]


def _constructor(name, source):
    def preset(**numbers):
        return MarginSoftmax.preset(name, **numbers)

    preset.__name__ = name
    preset.__qualname__ = f"MarginSoftmax.{name}"
    preset.__doc__ = f"The preset `{name}`, its numbers from: {source}. Keywords replace numbers by their names."
    return staticmethod(preset)


for _name, _source in presets():
    setattr(MarginSoftmax, _name, _constructor(_name, _source))
del _name, _source
