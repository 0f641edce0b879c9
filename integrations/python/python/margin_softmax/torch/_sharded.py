"""`ShardedMarginHead`: the classes of one head over the ranks of a process group.

Each rank holds a range of the classes with their rows of the weight, and calls the head with its own batch. The ranks exchange,
in a step of N rows in all, D values a row and R ranks:

========================  ===========================================================  ==========================
what                      bytes that a rank receives                                   grows with
========================  ===========================================================  ==========================
embeddings and labels     N·(D·4 + 8), half types N·(D·2 + 8)                          N·D
targets                   8·N·R (with inter-topk 16·k·N·R more, with AdaCos 16·N·R)    N·R
statistics                40·N·R                                                       N·R
gradient of embeddings    N·D·4: shares of its own rows, added in the order of ranks   N·D
headers                   4 × 664·R                                                    R
========================  ===========================================================  ==========================

Nothing grows with the number of classes, and no rank has N×C values beyond its ``budget``. A rank holds its rows of the weight
and their gradient, what its optimiser keeps of them, and the N embeddings of all ranks twice (with their gradient shares).

On paper, 10⁸ classes of 512 values on 64 ranks with 128 rows each (N = 8,192): a rank holds 1,562,500 classes, 3.2 GB of weight,
as much gradient, and as much again for momentum; with ``rate=0.1`` the gradient is 0.32 GB. It receives 17 MB of embeddings, 25
MB of targets and statistics and 17 MB of gradients a step, 59 MB: 5 ms at 100 Gbit/s. Its products are 6·N·C/R·D =
3.9·10¹³ operations where the cosines are kept, 8·N·C/R·D = 5.2·10¹³ where they are computed again; with ``rate=0.1`` a tenth.
Drawing a sample takes time in proportion to all classes on every rank, some 0.3 s for 10⁸.
"""

import json
import struct
from types import SimpleNamespace

import numpy as np
import torch

from .. import Head, Predictor, SampledHead, State
from .._native import merge_predictions, sample
from ._checkpoints import load_shards, save_shards
from ._exchange import Exchange, ShardError, columns, uncolumned
from ._head import MarginHead, Prediction, _Computation, _Inputs, _prediction, _spoil
from ._tensors import array, computed_in, optional, tensor

__all__ = ["ShardError", "ShardedMarginHead", "load_shards", "save_shards"]

_GRADIENTS = ("embeddings", "prototypes", "scale", "bias")
# classes whose initial values come from one seed, so that they do not depend on how classes are divided
_BLOCK = 4096


class _ShardedComputation(_Computation):
    """A step of all ranks: each of them calls `forward`, and `again` if one does."""

    sampler = None

    def forward(self, *parameters):
        self.sampler = self.head._sampler and dict(self.head._sampler)
        return super().forward(*parameters)

    def again(self, embeddings, weight, bias, scale, upstream):
        head = self.head
        current, head._sampler = head._sampler, self.sampler
        try:
            rows = upstream.detach() if self.by_rows else None
            out, _ = head._compute((embeddings, weight, bias, scale), self.inputs, self.wanted, self.state, rows)
        finally:
            head._sampler = current
        gradients = head._gradients(out, weight)
        if out.spoiled is not None:
            _spoil(gradients, out.spoiled)
        return gradients


class _Batch:
    """The rows of all ranks, and where those of this rank are."""

    def __init__(self, exchange, opened, counts, inputs):
        matrix, kinds, names = opened
        self.x, labels, *vectors = uncolumned(exchange.gather_rows(matrix, counts), kinds)
        vectors = dict(zip(names, vectors))
        first = sum(counts[: exchange.rank])
        self.own = slice(first, first + counts[exchange.rank])
        self.upstream, self.spoiled = vectors.get("upstream"), None
        if self.upstream is not None:
            finite = torch.isfinite(self.upstream)
            if not bool(finite.all()):
                # as the product with a row's gradient would be
                self.spoiled = ~finite[self.own]
                self.upstream = torch.where(finite, self.upstream, torch.zeros_like(self.upstream))
        margins = {name: vectors[f"row_margins[{name!r}]"] for name in inputs.row_margins or ()}
        self.inputs = _Inputs(labels, vectors.get("row_weights"), margins or None, inputs.divisor, None)


class _Call:
    """The native calls of a step on one rank: a shard, and the arguments that all of them take."""

    def __init__(self, module, parameters, batch, wanted, state):
        _, weight, bias, scale = parameters
        changed, rows = module._in_force(bias, scale), max(1, len(batch.x))
        labels, w, self.classes, self.places = array(batch.inputs.labels), array(weight), None, None
        self.arguments = module._arguments(torch.float32, batch.inputs, bias, batch.upstream)
        if module.rate is None or not module.training:
            self.head = module._native(rows, wanted)
            if changed is not None:
                self.head.update(changed)
            self.head.state = state
        else:
            labels, w = self._sampled(module, changed or module._loss, labels, w, (rows, wanted), state)
        self.arrays = array(batch.x), w, labels

    def _sampled(self, module, loss, labels, w, sizes, state):
        """A head of the sampled classes, whose number differs from step to step on a rank."""
        sampler, ranges = module._sampler, module._ranges
        found, labels, ignored = sample(
            labels, module._total, sampler["rate"], sampler["seed"], sampler["step"], ignore_index=loss.ignore_index
        )
        self.classes = found
        places = [tuple(found.searchsorted((own.start, own.stop))) for own in ranges]
        for rank, (first, end) in enumerate(places):
            if first == end:
                raise ValueError(f"rank {rank} has none of the sampled classes of this step: give it more classes, or take a larger rate")
        first, end = (int(place) for place in places[module._rank])
        self.places = found[first:end] - ranges[module._rank].start
        given = self.arguments
        if given["class_weights"] is not None:
            given["class_weights"] = given["class_weights"][found]
        if given["class_margins"] is not None:
            given["class_margins"] = {name: values[found] for name, values in given["class_margins"].items()}
        if given["bias"] is not None:
            given["bias"] = given["bias"][self.places]
        loss = loss if ignored == loss.ignore_index else loss.replace(ignore_index=ignored)
        self.head = module._shard(loss, sizes, len(found), (first, end))
        self.head.state = _with_classes(state, len(found))
        return labels, w[self.places]

    def __call__(self, name, *exchanged):
        return getattr(self.head, name)(*self.arrays, *exchanged, **self.arguments)


def _with_classes(state, classes):
    return State.from_dict(dict(state.to_dict(), classes=classes))


class ShardedMarginHead(MarginHead):
    """A margin-softmax head whose classes are divided over the ranks of a ``torch.distributed`` process group.

    Every rank makes it with the same arguments and calls it with its own batch, of as many rows as it has (also none). It gets
    the loss of the global batch, the same on all ranks, and the gradients of that loss: of its own embeddings, of its own
    rows of ``weight``, and, the same on all ranks, of ``scale`` and of the one bias of a binary link. Calling the head,
    ``predict``, a second ``backward`` and, with ``reduction="none"``, every ``backward`` are collective: all ranks must call.

    ``head.classes`` is the ``range`` of this rank's classes, ``head.weight`` [C of this rank, D]. Labels are those of all classes.

    Parameters
    ----------
    classes, dim, loss
        As of ``MarginHead``: of all ranks.
    group
        The process group; default None, the one of ``init_process_group``. Its backend carries the exchange: gloo, MPI, NCCL.
    ranges
        The classes of each rank: ranges or pairs (first, end), in the order of the ranks; together they must be all classes once, none
        of them empty. Default: even parts.
    rate
        Partial FC: a step sees the classes of the global batch, and of the others so many at random as are missing to this share
        of all classes, 0 < rate ≤ 1. The draw is the same for any division. The gradient of ``weight`` is then a sparse
        tensor, as that of ``SampledMarginHead``. An evaluation sees all classes, and its gradient is dense. Each step makes a native
        head anew, since the number of sampled classes of a rank differs from step to step. Default None: all classes.
    averaged
        True if the gradients of the backbone are averaged over the ranks, as ``DistributedDataParallel`` does: the gradient of the
        embeddings is then multiplied by the number of ranks, so that the average is the gradient of the global loss. Default False.
    seed
        Of the draws of ``rate`` and of ElasticFace; default 0.
    class_weights, class_margins
        [C] of all classes, on every rank.

    The others are those of ``MarginHead``, without ``predictions`` and ``soft_labels``, which shards do not exchange, and without double
    tensors. The initial weight depends on rank 0's generator alone, and not on how the classes are divided.

    Every exchange begins with a header that says at which exchange the rank is, with which loss, sizes and state, and whether its
    local work failed: if ranks differ, or one fails, all of them raise, ``ShardError`` on those that did nothing wrong. If a rank is
    gone, the others raise ``ShardError`` within the timeout of the group.
    """

    _made = False

    def __init__(self, classes, dim, loss="arcface", group=None, ranges=None, *, rate=None, averaged=False, seed=0, **options):
        self._group, self._exchanges = group, Exchange(group)
        self._rank, self.rate, self.averaged = self._exchanges.rank, rate, averaged
        self._sampler = None if rate is None else {"rate": float(rate), "seed": seed, "step": 0}

        def make():
            for name in ("predictions", "soft_labels"):
                if options.get(name) is not None:
                    raise ValueError(f"`{name}` is not for shards, which exchange one target of a row and no predictions")
            self._total, self._ranges = classes, _ranges(classes, ranges, self._exchanges.size)
            super(ShardedMarginHead, self).__init__(classes, dim, loss, seed=seed, **options)
            self.classes = self._ranges[self._rank]
            if rate is not None:
                # refuses a rate
                sample(np.zeros(0, np.int64), 1, rate, seed, 0)
                if self._loss.scale_follows:
                    # which begins by the number of sampled classes
                    sampled = SampledHead(self._loss, 1, classes, dim, rate, seed=seed, want=(), sub_centers=self.sub_centers, device="cpu")
                    self._state = sampled.state.replace(seed=seed)
            return None, [int(torch.randint(2**62, ()))], self._alike()

        _, drawn = self._exchanges.agree("make", make)
        self._made = True
        self._draw(drawn[0][0])

    def _held(self):
        return len(self._ranges[self._rank])

    def _alike(self, loss=None, state=None):
        """What must be the same on all ranks."""
        state = state or self._state
        return {
            "loss": (loss or self._loss).to_json(),
            "shape (classes, dim, sub-centers, ranges)": (self._total, self.dim, self.sub_centers, self._ranges),
            "mode (training, rate)": (self.training, self.rate, self.averaged),
            "state": (state.step, state.seed, self._sampler),
            "choice of parameters": [self.bias is None, self.scale is None, self.class_weights is None],
        }

    def reset_parameters(self):
        """Draws the weight as ``MarginHead`` does; collective: the seed is drawn by rank 0."""
        if self._made:
            drawn = int(torch.randint(2**62, ()))
            self._draw(self._exchanges.agree("make", lambda: (None, [drawn], {}))[1][0][0])

    @torch.no_grad()
    def _draw(self, seed):
        own, bound = self.classes, self.dim**-0.5
        generator = torch.Generator()
        for block in range(own.start // _BLOCK, (own.stop - 1) // _BLOCK + 1):
            generator.manual_seed((seed + block) % 2**32)
            part = torch.empty(_BLOCK, *self.weight.shape[1:])
            bias = torch.empty(_BLOCK)
            if self._loss.is_linear:
                part.uniform_(-bound, bound, generator=generator)
                bias.uniform_(-bound, bound, generator=generator)
            else:
                part.normal_(0.0, bound, generator=generator)
            first, end = max(own.start, block * _BLOCK), min(own.stop, (block + 1) * _BLOCK)
            to, of = slice(first - own.start, end - own.start), slice(first - block * _BLOCK, end - block * _BLOCK)
            self.weight[to] = part[of].to(self.weight)
            if self._loss.is_linear and self.bias is not None:
                self.bias[to] = bias[of].to(self.bias)
        if self.bias is not None and not self._loss.is_linear:
            self.bias.fill_(json.loads(self._loss.to_json())["link"]["binary"]["bias"])

    # ---- state

    def get_extra_state(self):
        own = [self.classes.start, self.classes.stop, self._total]
        return dict(super().get_extra_state(), classes=own, sampler=self._sampler and json.dumps(self._sampler))

    def set_extra_state(self, extra):
        if extra["classes"] != [self.classes.start, self.classes.stop, self._total]:
            raise ValueError(f"this state is of the classes {extra['classes']}: load_shards divides a checkpoint anew")
        super().set_extra_state(extra)
        self._sampler = extra["sampler"] and json.loads(extra["sampler"])

    def extra_repr(self):
        return f"classes={self.classes} of {self._total}, dim={self.dim}, rank={self._rank} of {self._exchanges.size}, loss={self._loss.to_json()}"

    # ---- a step

    def forward(self, embeddings, labels, *, row_weights=None, row_margins=None, divisor=None):
        """The loss of the batch of all ranks; with ``reduction="none"`` those of this rank's rows [n]. Collective.

        Parameters
        ----------
        embeddings
            [n, D] of this rank: float32, float16 or bfloat16, the same type on all ranks.
        labels
            [n]: integers, 0 ≤ label < C of all classes, or the loss' ``ignore_index``.
        row_weights, row_margins
            As of ``MarginHead``, of this rank's rows: given by all ranks or by none.
        divisor
            What the mean is divided by, the same on all ranks.
        """
        return self._step(embeddings, _Inputs(labels, row_weights, row_margins, divisor, None))

    def _check_embeddings(self, embeddings):
        """Left to the exchange, so that all ranks hear of it."""

    def _computation(self, inputs, wanted):
        return _ShardedComputation(self, inputs, wanted)

    def _shard(self, loss, sizes, classes, own):
        rows, wanted = sizes
        options = dict(self._settings(wanted), soft_labels=None)
        return Head(loss, rows, classes, self.dim, range=own, **options)

    def _make(self, rows, wanted):
        own = self._ranges[self._rank]
        return self._shard(self._loss, (rows, wanted), self._total, (own.start, own.stop))

    def _compute(self, parameters, inputs, wanted, state=None, upstream=None):
        exchange, moves = self._exchanges, state is None and self.training
        at = self._state if state is None else state
        phase = "step" if upstream is None else "upstream"
        opened, numbers = exchange.agree(phase, lambda: self._opened(parameters, inputs, wanted, at, upstream))
        _check_states([_doubles(rank[2:6]) for rank in numbers])
        counts, asked = [rank[0] for rank in numbers], _asked(numbers, wanted)
        batch = _Batch(exchange, opened, counts, inputs)

        def targets():
            call = _Call(self, parameters, batch, asked, at)
            return _vector(call, call("targets"))

        (call, vector), _ = exchange.agree("targets", targets)
        merged = [part.numpy() for part in exchange.gather(vector)]

        def statistics():
            if moves:
                call("follow", merged)
            return _vector(call, call("statistics", merged))

        (_, vector), _ = exchange.agree("statistics", statistics)
        sums = [part.numpy() for part in exchange.gather(vector)]

        def gradients():
            out = call("gradients", merged, sums)
            bias = 0.0 if self._loss.is_linear or out.grad_bias is None else float(out.grad_bias[0])
            return out, _bits(out.grad_scale or 0.0, bias), {}

        out, numbers = exchange.agree("gradients", gradients)
        found = self._found(out, call, batch, numbers, counts)
        if state is not None:
            return found, state
        if moves:
            moved = call.head.state
            self._state = moved if call.classes is None else _with_classes(moved, self._total)
            if self._sampler is not None:
                self._sampler = dict(self._sampler, step=self._sampler["step"] + 1)
        self._keep(found, self._state)
        return found, self._state.replace(step=self._state.step - 1) if moves else self._state

    def _opened(self, parameters, inputs, wanted, state, upstream):
        """This rank's rows as bytes, with their types; checked, so that an error names the rank that has it."""
        embeddings, weight, bias, scale = parameters
        super()._check_embeddings(embeddings)
        if computed_in(embeddings, weight) is torch.float64:
            raise TypeError("shards take no float64: embeddings and weight must be float32, float16 or bfloat16")
        rows, loss = len(embeddings), self._in_force(bias, scale) or self._loss
        labels = inputs.labels.detach().cpu()
        if labels.shape != (rows,):
            raise ValueError(f"`labels` has shape {list(labels.shape)}, expected [{rows}]")
        if labels.dtype.is_floating_point or labels.dtype in (torch.bool, torch.complex64, torch.complex128):
            raise TypeError(f"`labels` is {labels.dtype}, expected integers")
        labels = labels.long()
        wrong = (labels < 0) | (labels >= self._total)
        if loss.ignore_index is not None:
            wrong &= labels != loss.ignore_index
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"row {row} has label {int(labels[row])}, but there are only {self._total} classes")
        vectors = {"row_weights": inputs.row_weights, "upstream": upstream}
        vectors.update({f"row_margins[{name!r}]": values for name, values in (inputs.row_margins or {}).items()})
        vectors = {name: values for name, values in vectors.items() if values is not None}
        for name, values in vectors.items():
            if values.shape != (rows,):
                raise ValueError(f"`{name}` has shape {list(values.shape)}, expected [{rows}]")
        kinds = [(embeddings.dtype, self.dim), (torch.int64, None)] + [(torch.float32, None)] * len(vectors)
        matrix = columns([embeddings, labels, *(values.float() for values in vectors.values())])
        alike = self._alike(loss, state)
        alike["kind of batch (type of the embeddings, vectors of rows, divisor)"] = embeddings.dtype, list(vectors), inputs.divisor
        mask = sum(1 << at for at, name in enumerate(_GRADIENTS) if name in wanted)
        followed = _bits(state.hardness, state.norm_mean, state.norm_deviation, state.scale)
        return (matrix, kinds, list(vectors)), [rows, mask, *followed], alike

    def _found(self, out, call, batch, numbers, counts):
        """The results of this rank, with the sums over the ranks."""
        scale, bias = (sum(one) for one in zip(*(_doubles(rank[:2]) for rank in numbers)))
        grad_bias = out.grad_bias
        if grad_bias is not None and not self._loss.is_linear:
            grad_bias = torch.tensor([bias], dtype=torch.float32).numpy()
        own = batch.own
        rows = {name: getattr(out, name) for name in ("row_losses", "target_cosines", "other_cosines", "log_sum_exps")}
        return SimpleNamespace(
            loss=out.loss,
            grad_embeddings=self._embedding_gradient(out, counts),
            grad_prototypes=out.grad_prototypes,
            grad_scale=None if out.grad_scale is None else scale,
            grad_bias=grad_bias,
            counts=out.counts,
            predictions=None,
            classes=call.classes,
            places=call.places,
            spoiled=batch.spoiled,
            **{name: None if values is None else values[own].copy() for name, values in rows.items()},
        )

    def _embedding_gradient(self, out, counts):
        """The shares of all ranks in the gradients of this rank's rows, added in the order of the ranks."""
        if out.grad_embeddings is None:
            return None
        shares = self._exchanges.scatter_rows(tensor(out.grad_embeddings), counts)
        total = shares[0].clone()
        for share in shares[1:]:
            total += share
        return (total.mul_(self._exchanges.size) if self.averaged else total).numpy()

    def _weight_gradient(self, out, weight):
        if out.grad_prototypes is None or out.places is None:
            return tensor(out.grad_prototypes)
        indices = tensor(out.places).unsqueeze(0)
        return torch.sparse_coo_tensor(indices, tensor(out.grad_prototypes), weight.shape)._coalesced_(True)

    def _gradients(self, out, weight):
        embeddings, prototypes, bias, scale = super()._gradients(out, weight)
        if bias is not None and out.places is not None and self._loss.is_linear:
            bias = torch.zeros(self._held()).index_copy_(0, tensor(out.places), bias)
        return embeddings, prototypes, bias, scale

    # ---- inference

    @torch.no_grad()
    def predict(self, embeddings, k=1):
        """The k nearest of all classes for this rank's rows [n, D], 1 ≤ k ≤ 64, as ``MarginHead.predict``. Collective.

        A rank receives the embeddings of all ranks, and of each rank 16·k + 4 bytes for each of its own rows.
        """
        exchange = self._exchanges

        def opened():
            super(ShardedMarginHead, self)._check_embeddings(embeddings)
            alike = self._alike(self._in_force(self.bias, self.scale))
            return columns([embeddings]), [len(embeddings)], dict(alike, k=k, type=embeddings.dtype)

        matrix, numbers = exchange.agree("predict", opened)
        counts = [rank[0] for rank in numbers]
        (x,) = uncolumned(exchange.gather_rows(matrix, counts), [(embeddings.dtype, self.dim)])

        def predicted():
            found = self._predictor(len(x), k).predict(array(x), array(self.weight), self._class_bias())
            values = [tensor(found.classes).int(), tensor(found.sub_centers).int(), tensor(found.cosines), tensor(found.log_probabilities)]
            values += [] if found.log_sum_exps is None else [tensor(found.log_sum_exps)]
            return columns(values), [found.non_finite_rows, found.non_finite_prototypes, len(values)], {}

        matrix, numbers = exchange.agree("predicted", predicted)
        kinds = [(torch.int32, k)] * 2 + [(torch.float32, k)] * 2 + [(torch.float32, None)] * (numbers[0][2] - 4)
        parts = zip(exchange.scatter_rows(matrix, counts), self._ranges, numbers)
        merged = merge_predictions([_part(part, kinds, own, of) for part, own, of in parts], self._total)
        return Prediction(*(values.to(embeddings.device) for values in _prediction(merged)))

    def _class_bias(self):
        return optional(self.bias, torch.float32) if self._loss.is_linear else None

    def _predictor(self, rows, k):
        known, made = self._predictors.get(k, (0, None))
        changed = self._in_force(self.bias, self.scale)
        if known < max(1, rows) or changed is not None:
            names = ("sub_centers", "device", "budget", "threads", "tile", "preset", "work_per_submit")
            options = {name: self._options[name] for name in names}
            own = (self.classes.start, self.classes.stop)
            made = Predictor(changed or self._loss, max(1, rows), self._total, self.dim, k, range=own, **options)
            if changed is None:
                self._predictors[k] = max(1, rows), made
        made.set_state(self._state)
        return made

    def cosines(self, embeddings, classes=None):
        """The cosines of these embeddings and this rank's classes, [n, C of this rank], or those of them whose numbers the tensor
        ``classes`` has. Nothing is exchanged."""
        if classes is not None:
            classes = classes - self.classes.start
            if bool(((classes < 0) | (classes >= self._held())).any()):
                raise ValueError(f"`classes` must be in {self.classes}, which this rank holds")
        return super().cosines(embeddings, classes)


def _part(matrix, kinds, own, numbers):
    """What one rank predicted, as the library takes it."""
    classes, sub_centers, cosines, log_probabilities, *sums = (values.numpy() for values in uncolumned(matrix, kinds))
    return SimpleNamespace(
        range=(own.start, own.stop),
        classes=classes,
        sub_centers=sub_centers,
        cosines=cosines,
        log_probabilities=log_probabilities,
        log_sum_exps=sums[0] if sums else None,
        non_finite_rows=numbers[0],
        non_finite_prototypes=numbers[1],
    )


def _ranges(classes, given, size):
    """The classes of each rank, checked."""
    if given is None:
        given = [(rank * classes // size, (rank + 1) * classes // size) for rank in range(size)]
    given = [own if isinstance(own, range) else range(*own) for own in given]
    if len(given) != size:
        raise ValueError(f"`ranges` has {len(given)} ranges, but there are {size} ranks")
    for rank, own in enumerate(given):
        if own.step != 1 or len(own) == 0:
            raise ValueError(f"rank {rank} has no class: its range is {own}")
    end = 0
    for own in sorted(given, key=lambda own: own.start):
        if own.start != end:
            raise ValueError(f"`ranges` must be the classes 0 to {classes - 1}, each once; found {own} where {end} must begin")
        end = own.stop
    if end != classes:
        raise ValueError(f"`ranges` must be the classes 0 to {classes - 1}, each once; they end at {end}")
    return given


def _asked(numbers, wanted):
    """What the native head computes: the gradients that any rank needs of all, and those of its own classes."""
    mask = 0
    for rank in numbers:
        mask |= rank[1]
    return tuple(name for at, name in enumerate(_GRADIENTS) if (name in wanted if name == "prototypes" else mask >> at & 1))


def _vector(call, values):
    values = torch.from_numpy(values)
    return (call, values), [], {"number of values": len(values)}


def _bits(*doubles):
    """Doubles as integers of the header."""
    return list(struct.unpack(f"{len(doubles)}q", struct.pack(f"{len(doubles)}d", *doubles)))


def _doubles(numbers):
    return struct.unpack(f"{len(numbers)}d", struct.pack(f"{len(numbers)}q", *numbers))


def _check_states(states):
    """Refuses states that differ by more than the last bits, in which machines of different kinds may differ."""
    for rank, state in enumerate(states):
        if any(abs(own - first) > 1e-9 * abs(first) for own, first in zip(state, states[0])):
            raise ShardError(f"rank {rank} has another state than rank 0: {state} in the place of {states[0]}")
