"""Margin-softmax heads as PyTorch modules.

>>> import torch
>>> from margin_softmax.torch import MarginHead
>>> head = MarginHead(classes=10, dim=8, loss="arcface", device="cpu")
>>> loss = head(torch.randn(4, 8, requires_grad=True), torch.tensor([1, 2, 3, 4]))
>>> loss.backward()
>>> head.weight.grad.shape
torch.Size([10, 8])
"""

from ._head import Last, MarginHead, Prediction
from ._parity import Parity, check
from ._sampled import SampledMarginHead
from ._sharded import ShardedMarginHead, ShardError, load_shards, save_shards

__all__ = ["Last", "MarginHead", "Parity", "Prediction", "SampledMarginHead", "check"]
__all__ += ["ShardError", "ShardedMarginHead", "load_shards", "save_shards"]
