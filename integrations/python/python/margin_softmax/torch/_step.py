"""One step of a head as a node of autograd's graph."""

import torch


class _Once(torch.autograd.Function):
    """A gradient in a graph of gradients, which cannot be differentiated."""

    @staticmethod
    def forward(ctx, gradient, *inputs):
        return gradient

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError("the gradients of a margin head have no gradients of their own: no double backward through it")


class Step(torch.autograd.Function):
    """Loss and gradients in one call of the library; `backward` multiplies the gradients.

    Between the two it holds dL/dX, [N, D] float32, and dL/dW, as many float32 values as the weight has (of the sampled classes),
    and no N×C. They are those of the values at the time of the forward pass, whatever happens to the tensors later. The first
    `backward` hands them out; another one (`retain_graph=True`), and the one of `reduction="none"`, computes the step anew from
    the saved inputs, which must not have changed in between: autograd checks that.
    """

    @staticmethod
    def forward(ctx, embeddings, weight, bias, scale, step):
        inputs = (embeddings, weight, bias, scale)
        loss, ctx.gradients = step.forward(*inputs)
        ctx.step = step
        ctx.kinds = tuple(None if tensor is None else (tensor.dtype, tensor.device) for tensor in inputs)
        ctx.save_for_backward(*inputs)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        gradients, ctx.gradients = ctx.gradients, None
        with torch.no_grad():
            if gradients is None:
                gradients = ctx.step.again(*ctx.saved_tensors, upstream)
            # the gradients of single rows have their factors already
            factor = 1.0 if ctx.step.by_rows else float(upstream)
            wanted = zip(gradients, ctx.kinds, ctx.needs_input_grad)
            gradients = [_multiplied(gradient, factor, kind) if needed else None for gradient, kind, needed in wanted]
        if torch.is_grad_enabled():
            # asked for a graph of gradients (`create_graph=True`)
            inputs = [t for t in (upstream, *ctx.saved_tensors) if t is not None and t.requires_grad]
            gradients = [None if gradient is None else _Once.apply(gradient, *inputs) for gradient in gradients]
        return (*gradients, None)


def _multiplied(gradient, factor, kind):
    """A gradient that nobody else has, multiplied in float32 before it takes the type of its tensor."""
    if gradient is None:
        return None
    if factor != 1.0:
        (gradient._values() if gradient.is_sparse else gradient).mul_(factor)
    return gradient.to(dtype=kind[0], device=kind[1])
