"""Tensors as numpy arrays and back."""

import numpy as np
import torch

_HALVES = (torch.float16, torch.bfloat16)


def array(tensor):
    """The values of a tensor as a numpy array, bfloat16 as its bits. Without a copy for a contiguous tensor of the CPU."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def optional(tensor, dtype):
    """An optional tensor as an array of the type that the head computes in."""
    return None if tensor is None else array(tensor.to(dtype))


def computed_in(embeddings, weight):
    """float64 for a reference that was given doubles, else float32."""
    kinds = {embeddings.dtype, weight.dtype}
    if kinds == {torch.float64}:
        return torch.float64
    if torch.float64 in kinds:
        raise TypeError(f"embeddings are {embeddings.dtype}, the weight is {weight.dtype}: both must be float64, or neither")
    for name, tensor in (("embeddings", embeddings), ("weight", weight)):
        if tensor.dtype is not torch.float32 and tensor.dtype not in _HALVES:
            raise TypeError(f"`{name}` is {tensor.dtype}, expected float32, float16, bfloat16 or float64")
    return torch.float32


def tensor(values, like=None):
    """An array as a tensor that shares its memory; moved to the device of `like`."""
    if values is None:
        return None
    made = torch.from_numpy(values)
    return made if like is None or like.device.type == "cpu" else made.to(like.device)
