"""Checkpoints of heads by their classes: written by any number of ranks, read by any other."""

import json
import os
import secrets
from pathlib import Path

import torch

from .. import State

_MANIFEST, _FORMAT = "shards.json", 1


def save_shards(folder, head, optimizer=None):
    """Writes a head, and what an optimiser keeps of its parameters, as one file for each rank. Collective.

    Parameters
    ----------
    folder
        Seen by all ranks; made if it is not there. What it had before remains whole until the new checkpoint is complete.
    head
        A ``ShardedMarginHead``, or a ``MarginHead`` in the place of one rank that has all classes.
    optimizer
        Optional: momentum, Adam's moments and the like of the head's parameters are saved too. Learning rates and other settings
        of its groups are not.
    """
    folder = Path(folder)
    agree = _agreement(head)
    _, tokens = agree("save", lambda: (folder.mkdir(parents=True, exist_ok=True), [secrets.randbits(62)], {"folder": folder.name}))
    token = f"{tokens[0][0]:x}"
    own = _own(head)

    def write():
        _replace(folder / _name(own.start, own.stop, token), lambda path: torch.save(_content(head, optimizer), path))
        return None, [own.start, own.stop], {}

    _, ranges = agree("save", write)

    def complete():
        if own.start > 0:
            return None, [], {}
        files = [[*rank[:2], _name(*rank[:2], token)] for rank in sorted(ranges)]
        manifest = json.dumps({"format": _FORMAT, **_sizes(head), "shards": files}, indent=1)
        _replace(folder / _MANIFEST, lambda path: Path(path).write_text(manifest))
        for old in set(folder.glob("classes-*.pt")) - {folder / name for _, _, name in files}:
            old.unlink()
        return None, [], {}

    agree("save", complete)


def load_shards(folder, head, optimizer=None):
    """Reads a checkpoint of ``save_shards``, by any number of ranks, into a head of other ranges of the same classes. Collective.

    A rank opens only the files that have some of its classes, one at a time. On any error, on any rank, no rank has changed
    anything: where files are missing, overlap or leave a gap, where classes, dim, sub-centers or parameters differ, or where an
    optimiser is given and the checkpoint has nothing for it.
    """
    folder = Path(folder)
    agree = _agreement(head)

    def read():
        text = (folder / _MANIFEST).read_text()
        return _read(folder, _checked(folder, json.loads(text), head), head, optimizer), [], {"checkpoint": text}

    found, _ = agree("load", read)
    _apply(head, optimizer, *found)


def _agreement(head):
    """Has all ranks go on or raise together; of a head on one rank, the work alone."""
    exchange = getattr(head, "_exchanges", None)
    if exchange is not None:
        return exchange.agree

    def alone(_, work):
        result, numbers, _ = work()
        return result, [numbers]

    return alone


def _own(head):
    return head.classes if isinstance(head.classes, range) else range(head.classes)


def _sizes(head):
    total = getattr(head, "_total", head.classes)
    return {"classes": total, "dim": head.dim, "sub_centers": head.sub_centers}


def _name(first, end, token):
    return f"classes-{first}-{end}-{token}.pt"


def _replace(path, write):
    """Writes a file whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    write(part)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _parameters(head):
    """By name: each parameter, and whether it has a row for each class."""
    found = {"weight": (head.weight, True)}
    if head.bias is not None:
        found["bias"] = head.bias, head.loss.is_linear
    if head.scale is not None:
        found["scale"] = head.scale, False
    return found


def _content(head, optimizer):
    """The file of one rank: tensors with a row for each of its classes, and what is the same on all ranks."""
    own, by_class, whole = _own(head), {}, {}
    for name, (parameter, divided) in _parameters(head).items():
        (by_class if divided else whole)[name] = parameter.detach()
        state = {} if optimizer is None else optimizer.state.get(parameter, {})
        for key, value in state.items():
            rows = divided and torch.is_tensor(value) and value.shape == parameter.shape
            (by_class if rows else whole)[f"optimizer.{name}.{key}"] = value
    whole.update({name: values for name, values in head.named_buffers() if name.startswith("class_")})
    return {
        "format": _FORMAT,
        **_sizes(head),
        "range": [own.start, own.stop],
        "by_class": by_class,
        "whole": whole,
        "optimizer": optimizer is not None,
        "state": json.dumps(head.state.to_dict()),
        "sampler": json.dumps(getattr(head, "_sampler", None)),
    }


def _checked(folder, manifest, head):
    """The files of a manifest, in the order of their classes: all classes once, and all there."""
    expected = dict(_sizes(head), format=_FORMAT)
    for name, value in expected.items():
        if manifest.get(name) != value:
            raise ValueError(f"the checkpoint has {name} {manifest.get(name)}, the head {value}")
    end = 0
    for first, stop, name in sorted(manifest["shards"]):
        if first != end or stop <= first:
            raise ValueError(f"`{name}` begins at class {first} where {end} must begin: the files must have all classes once")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"`{folder / name}` is missing, with the classes {first} to {stop - 1}")
        end = stop
    if end != manifest["classes"]:
        raise ValueError(f"the files end at class {end}, but there are {manifest['classes']} classes")
    return sorted(manifest["shards"])


def _read(folder, files, head, optimizer):
    """This rank's part of every tensor, and what is the same on all ranks."""
    own, parts, last = _own(head), {}, None
    for first, end, name in files:
        here = range(max(first, own.start), min(end, own.stop))
        if len(here) == 0:
            continue
        content = torch.load(folder / name, map_location="cpu", weights_only=True)
        if content["range"] != [first, end] or any(content[key] != value for key, value in _sizes(head).items()):
            raise ValueError(f"`{name}` is not the file that the manifest says")
        for key, values in content["by_class"].items():
            if len(values) != end - first:
                raise ValueError(f"`{key}` of `{name}` has {len(values)} rows for {end - first} classes")
            parts.setdefault(key, []).append(values[here.start - first : here.stop - first].clone())
        last = content
    by_class = {key: torch.cat(values) for key, values in parts.items()}
    short = [key for key, values in by_class.items() if len(values) != len(own)]
    if short:
        raise ValueError(f"not every file has `{short[0]}`")
    _check_parameters(head, optimizer, by_class, last)
    state, sampler = State.from_dict(json.loads(last["state"])), json.loads(last["sampler"])
    head._make(1, ("embeddings", "prototypes")).state = state
    return by_class, last["whole"], state, sampler


def _check_parameters(head, optimizer, by_class, content):
    whole, parameters = content["whole"], _parameters(head)
    saved = {name for name in (*by_class, *whole) if "." not in name and not name.startswith("class_")}
    if saved != set(parameters):
        raise ValueError(f"the checkpoint has the parameters {sorted(saved)}, the head {sorted(parameters)}")
    for name, (parameter, divided) in parameters.items():
        found = (by_class if divided else whole).get(name)
        if found is None or found.shape != parameter.shape:
            raise ValueError(f"`{name}` of the checkpoint does not have the shape {list(parameter.shape)} for these classes")
    for name, values in head.named_buffers():
        if name.startswith("class_") and (name not in whole or whole[name].shape != values.shape):
            raise ValueError(f"the checkpoint has no `{name}`, which the head has")
    if optimizer is None:
        return
    if not content["optimizer"]:
        raise ValueError("the checkpoint was saved without an optimiser")
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, (parameter, _) in parameters.items():
        if id(parameter) not in known:
            raise ValueError(f"the optimiser does not have the head's `{name}`")


@torch.no_grad()
def _apply(head, optimizer, by_class, whole, state, sampler):
    both = {**by_class, **whole}
    for name, (parameter, _) in _parameters(head).items():
        parameter.copy_(both[name])
        if optimizer is None:
            continue
        start = f"optimizer.{name}."
        kept = {key[len(start) :]: value for key, value in both.items() if key.startswith(start)}
        # a counter of steps stays where the optimiser had it
        moved = {key: value.to(parameter.device) if torch.is_tensor(value) and value.dim() else value for key, value in kept.items()}
        if moved:
            optimizer.state[parameter] = moved
        else:
            optimizer.state.pop(parameter, None)
    for name, values in head.named_buffers():
        if name in whole:
            values.copy_(whole[name])
    head.state = state
    if sampler is not None and getattr(head, "_sampler", None) is not None:
        head._sampler = sampler
