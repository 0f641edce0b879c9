"""`MarginHead`: a margin-softmax head as a PyTorch module."""

import json
from typing import NamedTuple, Optional

import torch
from torch import nn

from .. import Head, MarginSoftmax, Predictor, State
from ._step import Step
from ._tensors import array, computed_in, optional, tensor

_MARGINS = ("m0", "m1", "m2", "m3")

# the library's calls are no graph that torch.compile could look into: it computes up to here and goes on behind
_uncompiled = torch.compiler.disable if hasattr(torch, "compiler") else lambda function: function


class Prediction(NamedTuple):
    """The k nearest classes of every row, best first; a class of -1 where a row is not finite."""

    classes: torch.Tensor
    cosines: torch.Tensor
    log_probabilities: torch.Tensor
    sub_centers: torch.Tensor


class Last(NamedTuple):
    """What the last step found beside its loss: tensors on the CPU, and counts of the rows that were left out."""

    row_losses: torch.Tensor
    target_cosines: torch.Tensor
    other_cosines: torch.Tensor
    log_sum_exps: Optional[torch.Tensor]
    predictions: Optional[Prediction]
    counts: dict
    classes: Optional[torch.Tensor]


def _prediction(found):
    if found is None:
        return None
    return Prediction(*(tensor(values) for values in (found.classes, found.cosines, found.log_probabilities, found.sub_centers)))


class _Inputs(NamedTuple):
    """Everything of a batch that has no gradient, as tensors."""

    labels: torch.Tensor
    row_weights: Optional[torch.Tensor]
    row_margins: Optional[dict]
    divisor: Optional[float]
    soft_labels: Optional[tuple]


class _Computation:
    """A step of a module: computed once in the forward pass, and anew where its gradients are asked for again."""

    def __init__(self, head, inputs, wanted):
        self.head = head
        self.inputs = inputs
        self.wanted = wanted
        self.by_rows = head.loss.reduction == "none"
        self.state = None

    def forward(self, embeddings, weight, bias, scale):
        """The loss, and the gradients unless they depend on the gradients of single rows."""
        wanted = () if self.by_rows else self.wanted
        out, self.state = self.head._compute((embeddings, weight, bias, scale), self.inputs, wanted)
        kind = torch.float64 if computed_in(embeddings, weight) is torch.float64 else torch.float32
        if self.by_rows:
            return tensor(out.row_losses, embeddings), None
        loss = torch.tensor(out.loss, dtype=kind, device=embeddings.device)
        return loss, self.head._gradients(out, weight)

    def again(self, embeddings, weight, bias, scale, upstream):
        """The gradients at the state of the forward pass."""
        given = (embeddings, weight, bias, scale)
        if not self.by_rows:
            out, _ = self.head._compute(given, self.inputs, self.wanted, self.state)
            return self.head._gradients(out, weight)
        upstream = upstream.detach().to("cpu", computed_in(embeddings, weight))
        finite = torch.isfinite(upstream)
        out, _ = self.head._compute(given, self.inputs, self.wanted, self.state, torch.where(finite, upstream, torch.zeros_like(upstream)))
        gradients = self.head._gradients(out, weight)
        if not bool(finite.all()):
            # as the product with a row's gradient would be
            _spoil(gradients, ~finite)
        return gradients


def _spoil(gradients, rows):
    """NaN wherever the gradient of one of these rows takes part."""
    embeddings, *rest = gradients
    if embeddings is not None:
        embeddings[rows] = float("nan")
    for gradient in rest:
        if gradient is not None:
            (gradient._values() if gradient.is_sparse else gradient).fill_(float("nan"))


class MarginHead(nn.Module):
    """A classification head with a margin-softmax loss: embeddings and labels in, the loss out, exact gradients behind it.

    ``weight`` [C, D] (with sub-centers [C, K, D]) is a parameter like any other. No N×C matrix is made beyond ``budget``.

    Parameters
    ----------
    classes, dim
        C and D.
    loss
        A ``MarginSoftmax``, or the name of a preset (``"arcface"``).
    sub_centers
        Prototypes of a class, K; default 1.
    device
        What computes: ``"best"`` (a hardware GPU, else the CPU), ``"cpu"``, ``"gpu"``, ``"reference"`` (float64, slow, for checks), or part
        of an adapter's name. Tensors of any torch device are taken; those that are not on the CPU are copied through the
        host, embeddings, weight and gradients once a step.
    budget
        The most bytes of workspace; default 256 MiB.
    threads
        Threads of the CPU path; default ``margin_softmax.get_num_threads()``.
    bias
        For a linear head (``"softmax"``): a bias of each class; default True. For a binary link (SphereFace2): its one bias is a
        parameter; default False.
    learnable_scale
        The scale is a parameter; default False.
    class_weights
        [C], as ``weight`` of ``torch.nn.functional.cross_entropy``.
    class_margins
        A dict of [C] tensors by the names m0 to m3, in the place of the loss' own.
    predictions
        k: the k nearest classes of each row come out with a step, in ``head.last``; default none.
    soft_labels
        The most targets of a row that ``soft_labels`` of a call may bring, 1 to 16; default none.
    filter, tile, preset, work_per_submit
        As of ``margin_softmax.Head``.
    seed
        Of the draws of ElasticFace; default 0.

    In training mode the state of losses that follow their batches (AdaCos, AdaFace, CurricularFace, ElasticFace) moves with each
    call, as the running statistics of a batch norm do, also under ``torch.no_grad()``. ``state_dict`` carries it.
    Double tensors are taken by ``device="reference"``. One module is not for several threads at a time.
    """

    def __init__(
        self,
        classes,
        dim,
        loss="arcface",
        *,
        sub_centers=1,
        device="best",
        budget=None,
        threads=None,
        bias=None,
        learnable_scale=False,
        class_weights=None,
        class_margins=None,
        predictions=None,
        soft_labels=None,
        filter=None,
        tile=None,
        preset=None,
        work_per_submit=None,
        seed=0,
    ):
        super().__init__()
        self._loss = MarginSoftmax.preset(loss) if isinstance(loss, str) else loss
        if not isinstance(self._loss, MarginSoftmax):
            raise TypeError("`loss` must be a MarginSoftmax or the name of a preset")
        self.classes, self.dim, self.sub_centers = classes, dim, sub_centers
        self._options = {
            "sub_centers": sub_centers,
            "device": device,
            "budget": budget,
            "threads": threads,
            "soft_labels": soft_labels,
            "filter": filter,
            "tile": tile,
            "preset": preset,
            "work_per_submit": work_per_submit,
        }
        self._predictions = predictions
        self._clear()
        # refuses what does not fit before anything is allocated; a head for no rows takes next to no memory
        self._state = self._make(1, ("embeddings", "prototypes")).state.replace(seed=seed)
        held = self._held()
        shape = (held, dim) if sub_centers == 1 else (held, sub_centers, dim)
        self.weight = nn.Parameter(torch.empty(shape))
        self._add_bias(bias)
        if learnable_scale and self._loss.scale_follows:
            raise ValueError("dynamic AdaCos sets the scale: it cannot be learned")
        self.scale = nn.Parameter(torch.tensor(float(self._loss.scale))) if learnable_scale else None
        self.register_buffer("class_weights", _vector("class_weights", class_weights, classes))
        margins = dict(class_margins or {})
        for name in _MARGINS:
            self.register_buffer(f"class_{name}", _vector(f"class_margins[{name!r}]", margins.pop(name, None), classes))
        if margins:
            raise ValueError(f"`{next(iter(margins))}` is not a known margin; known are: m0, m1, m2, m3")
        self._seen = None
        self.reset_parameters()

    def _held(self):
        """How many classes `weight` has."""
        return self.classes

    def _add_bias(self, bias):
        linear, binary = self._loss.is_linear, self._loss.is_binary
        if bias and not (linear or binary):
            raise ValueError("only a linear head or a binary link has a bias")
        bias = linear if bias is None else bias
        self.bias = nn.Parameter(torch.zeros(self._held() if linear else 1)) if bias else None

    def reset_parameters(self):
        """Draws the weight: normal with deviation 1/√D, so about of length 1; for a linear head as ``nn.Linear`` does.

        The gradient of a prototype goes with its inverse length, so a step of SGD moves prototypes by their own length. (insightface
        draws with deviation 0.01: a length of 0.23 at D = 512.)
        """
        with torch.no_grad():
            if self._loss.is_linear:
                bound = self.dim**-0.5
                self.weight.uniform_(-bound, bound)
                if self.bias is not None:
                    self.bias.uniform_(-bound, bound)
                return
            self.weight.normal_(0.0, self.dim**-0.5)
            if self.bias is not None:
                self.bias.fill_(json.loads(self._loss.to_json())["link"]["binary"]["bias"])

    # ---- loss and state

    @property
    def loss(self):
        """The loss. A new one may have other margins, another scale or reduction: ``head.loss = head.loss.replace(m2=0.4)``."""
        return self._loss

    @loss.setter
    def loss(self, loss):
        if loss == self._loss:
            return
        for head in self._heads.values():
            try:
                head.update(loss)
            except ValueError:
                # it needs other kernels, or is no loss of these sizes
                self._clear()
                break
        previous, self._loss = self._loss, loss
        if not self._heads:
            try:
                self._make(1, ("embeddings", "prototypes"))
            except Exception:
                self._loss = previous
                raise
        self._predictors.clear()

    @property
    def state(self):
        """The state of the loss: step, seed and running statistics."""
        return self._state

    @state.setter
    def state(self, state):
        self._state = state if isinstance(state, State) else State.from_dict(state)

    def get_extra_state(self):
        return {"state": json.dumps(self._state.to_dict()), "loss": self._loss.to_json()}

    def set_extra_state(self, extra):
        state = State.from_dict(json.loads(extra["state"]))
        # refuses that of another number of classes
        self._make(1, ("embeddings", "prototypes")).state = state
        self._state = state

    def extra_repr(self):
        return f"classes={self.classes}, dim={self.dim}, sub_centers={self.sub_centers}, device={self._options['device']!r}, loss={self._loss.to_json()}"

    # native heads hold threads and devices: a copy makes its own
    def __getstate__(self):
        kept = self.__dict__.copy()
        kept.update(_heads={}, _predictors={}, _seen=None)
        return kept

    def _clear(self):
        self._heads, self._predictors = {}, {}

    # ---- a step

    @_uncompiled
    def forward(self, embeddings, labels, *, row_weights=None, row_margins=None, divisor=None, soft_labels=None):
        """The loss of a batch: a number, with ``reduction="none"`` one for each row [N], 0 for ignored rows.

        Parameters
        ----------
        embeddings
            [N, D]: float32, float16 or bfloat16; need not be normalised.
        labels
            [N]: integers, 0 ≤ label < C, or the loss' ``ignore_index``.
        row_weights
            [N], a factor on each row's loss and on its share of the mean.
        row_margins
            A dict of [N] tensors by the names m0 to m3.
        divisor
            What the mean is divided by, in the place of the sum of the weights: for accumulation over micro-batches.
        soft_labels
            A pair of tensors [N, T]: classes (negative: no target) and weights.
        """
        inputs = _Inputs(labels, row_weights, row_margins, divisor, soft_labels)
        return self._step(embeddings, inputs)

    def _step(self, embeddings, inputs):
        self._check_embeddings(embeddings)
        parameters = (embeddings, self.weight, self.bias, self.scale)
        names = ("embeddings", "prototypes", "bias", "scale")
        grad = torch.is_grad_enabled()
        wanted = tuple(name for name, t in zip(names, parameters) if grad and t is not None and t.requires_grad)
        return Step.apply(*parameters, self._computation(inputs, wanted))

    def _check_embeddings(self, embeddings):
        if embeddings.dim() != 2 or embeddings.shape[1] != self.dim:
            raise ValueError(f"`embeddings` has shape {list(embeddings.shape)}, expected [N, {self.dim}]")

    def _computation(self, inputs, wanted):
        return _Computation(self, inputs, wanted)

    def _settings(self, wanted):
        """The options of a native head with these gradients: a filter is for those of embeddings and prototypes."""
        filters = {"embeddings", "prototypes"} | ({"bias"} if self._loss.is_linear else set())
        return dict(self._options, want=wanted, filter=None if filters.isdisjoint(wanted) else self._options["filter"])

    def _make(self, rows, wanted):
        return Head(self._loss, rows, self.classes, self.dim, predictions=self._predictions, **self._settings(wanted))

    def _native(self, rows, wanted):
        """A head of the library for so many rows and these gradients, kept for the next batch."""
        head = self._heads.get(wanted)
        if head is None or head.rows < rows:
            head = self._heads[wanted] = self._make(rows, wanted)
        return head

    def _in_force(self, bias, scale):
        """The loss with the values of the parameters that are numbers of it."""
        numbers = {}
        if scale is not None:
            numbers["scale"] = float(scale.detach())
        if bias is not None and not self._loss.is_linear:
            link = json.loads(self._loss.to_json())["link"]
            link["binary"]["bias"] = float(bias.detach())
            numbers["link"] = link
        return self._loss.replace(**numbers) if numbers else None

    def _arguments(self, kind, inputs, bias, upstream):
        """The arrays of a call beside embeddings, prototypes and labels."""
        margins = {name: getattr(self, f"class_{name}") for name in _MARGINS}
        margins = {name: optional(values, kind) for name, values in margins.items() if values is not None}
        soft = inputs.soft_labels
        rows = inputs.row_margins
        return {
            "class_weights": optional(self.class_weights, kind),
            "class_margins": margins or None,
            "row_weights": optional(inputs.row_weights, kind),
            "row_margins": None if rows is None else {name: optional(values, kind) for name, values in rows.items()},
            "divisor": None if inputs.divisor is None else float(inputs.divisor),
            "soft_labels": None if soft is None else (array(soft[0]), optional(soft[1], kind)),
            "bias": optional(bias, kind) if self._loss.is_linear else None,
            "upstream": optional(upstream, kind),
        }

    def _compute(self, parameters, inputs, wanted, state=None, upstream=None):
        """Calls the library: in the forward pass at the module's state, which a training step moves; else at `state`."""
        embeddings, weight, bias, scale = parameters
        kind = computed_in(embeddings, weight)
        head = self._native(embeddings.shape[0], wanted)
        in_force = self._in_force(bias, scale)
        if in_force is not None:
            head.update(in_force)
        arguments = self._arguments(kind, inputs, bias, upstream)
        arrays = array(embeddings), array(weight), array(inputs.labels)
        head.state = self._state if state is None else state
        if state is not None:
            return head.evaluate(*arrays, **arguments), state
        if not self.training:
            out = head.evaluate(*arrays, **arguments)
            self._keep(out, self._state)
            return out, self._state
        out = head.train(*arrays, **arguments)
        state = head.state
        self._keep(out, state)
        # the draws of the step that was
        return out, state.replace(step=state.step - 1)

    @property
    def last(self):
        """What the last step found beside its loss, a `Last`; None before the first one."""
        if self._seen is None:
            return None
        *vectors, predictions, counts, classes = self._seen
        return Last(*map(tensor, vectors), _prediction(predictions), counts, tensor(classes))

    def _keep(self, out, state):
        """The state behind a step and, without its gradients, what it found: past the `__setattr__` of modules, which looks for
        parameters."""
        vectors = out.row_losses, out.target_cosines, out.other_cosines, out.log_sum_exps
        self.__dict__.update(_seen=(*vectors, out.predictions, out.counts, out.classes), _state=state)

    def _gradients(self, out, weight):
        """The gradients of embeddings, weight, bias and scale, None where they were not wanted."""
        scale = None if out.grad_scale is None else torch.tensor(out.grad_scale, dtype=torch.float64)
        return tensor(out.grad_embeddings), self._weight_gradient(out, weight), tensor(out.grad_bias), scale

    def _weight_gradient(self, out, weight):
        return tensor(out.grad_prototypes)

    # ---- inference

    @torch.no_grad()
    def predict(self, embeddings, k=1):
        """The k nearest classes of each row, 1 ≤ k ≤ 64, with cosines and log-probabilities (without margin).

        Classes are looked at chunk by chunk, within the budget: no N×C. Half types are widened in a copy.
        """
        rows = embeddings.shape[0]
        predictor = self._predictors.get(k)
        if predictor is None or predictor[0] < rows:
            kept = ("sub_centers", "device", "budget", "threads", "tile", "preset", "work_per_submit")
            options = {name: self._options[name] for name in kept}
            loss = self._in_force(self.bias, self.scale) or self._loss
            predictor = rows, Predictor(loss, rows, self.classes, self.dim, k, **options)
            if self.scale is None and (self.bias is None or self._loss.is_linear):
                self._predictors[k] = predictor
        predictor[1].set_state(self._state)
        bias = optional(self.bias, torch.float32) if self._loss.is_linear else None
        found = predictor[1].predict(array(embeddings), array(self.weight), bias)
        return Prediction(*(values.to(embeddings.device) for values in _prediction(found)))

    @torch.no_grad()
    def cosines(self, embeddings, classes=None):
        """The cosines of embeddings and classes, float32: [N, C], or [N, S] for a tensor of S class numbers. Of a class with
        sub-centers the largest. Beside the result it takes a chunk of the weight at a time."""
        x = nn.functional.normalize(embeddings.float(), eps=1e-12)
        weight = self.weight if classes is None else None
        count = len(self.weight) if classes is None else len(classes)
        found = x.new_empty(x.shape[0], count)
        chunk = max(1, (1 << 22) // (self.dim * self.sub_centers))
        for first in range(0, count, chunk):
            part = slice(first, first + chunk)
            w = weight[part] if classes is None else self.weight[classes[part]]
            w = nn.functional.normalize(w.to(x.device).float(), dim=-1, eps=1e-12)
            c = x @ w.reshape(-1, self.dim).T
            found[:, part] = c if self.sub_centers == 1 else c.reshape(len(x), -1, self.sub_centers).amax(2)
        return found


def _vector(name, values, length):
    """A vector of float32 of this length."""
    if values is None:
        return None
    values = torch.as_tensor(values, dtype=torch.float32).detach().clone()
    if values.shape != (length,):
        raise ValueError(f"`{name}` has shape {list(values.shape)}, expected [{length}]")
    return values
