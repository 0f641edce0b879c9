"""Exchanges between the ranks of a process group, each announced by a header that all of them read before they go on."""

import zlib

import torch
import torch.distributed as dist

_NUMBERS, _FIELDS, _MESSAGE = 8, 8, 64
_PHASES = ("make", "step", "targets", "statistics", "gradients", "upstream", "predict", "predicted", "save", "load")


class ShardError(RuntimeError):
    """A rank of a sharded head failed, has another loss or other sizes, is out of step, or did not answer. Every rank raises."""


class Exchange:
    """The collectives of one head: plain tensors, all_gather and all_to_all, the same order of sums on every rank.

    ``group``: a process group, None for the default one.
    """

    def __init__(self, group=None):
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("torch.distributed has no process group: call torch.distributed.init_process_group first")
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("this process is not in the group of the head")
        cuda = dist.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        self.count = 0

    def agree(self, phase, work):
        """Does local work, then tells the others how it went: every rank raises if one failed or differs.

        ``work`` returns a result, up to 8 int64 numbers, and a dict of up to 8 texts by names that must be alike on all ranks.
        Returns its result and the numbers of all ranks.
        """
        failure, result, numbers, fields = None, None, [], {}
        try:
            result, numbers, fields = work()
        except Exception as why:
            failure = why
        header = torch.zeros(3 + _NUMBERS + _FIELDS + _MESSAGE, dtype=torch.int64)
        header[:3] = torch.tensor([self.count, _PHASES.index(phase), int(failure is not None)])
        header[3 : 3 + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        hashes = [zlib.crc32(str(value).encode()) for value in fields.values()]
        header[3 + _NUMBERS : 3 + _NUMBERS + len(hashes)] = torch.tensor(hashes, dtype=torch.int64)
        if failure is not None:
            text = f"{type(failure).__name__}: {failure}".encode()[: 8 * _MESSAGE]
            header[-_MESSAGE:] = torch.frombuffer(bytearray(text.ljust(8 * _MESSAGE, b"\0")), dtype=torch.int64)
        self.count += 1
        headers = self.gather(header)
        if failure is not None:
            raise failure
        self._check(headers, list(fields))
        return result, [header[3 : 3 + _NUMBERS].tolist() for header in headers]

    def _check(self, headers, names):
        """Raises the same on every rank."""
        for rank, header in enumerate(headers):
            if header[2]:
                text = header[-_MESSAGE:].numpy().tobytes().rstrip(b"\0").decode(errors="replace")
                raise ShardError(f"rank {rank} failed: {text}")
        first = headers[0]
        for rank, header in enumerate(headers):
            if header[1] != first[1]:
                phases = _PHASES[header[1]], _PHASES[first[1]]
                raise ShardError(f"rank {rank} is out of step: it is at `{phases[0]}`, rank 0 at `{phases[1]}`")
            if header[0] != first[0]:
                raise ShardError(f"rank {rank} is out of step: it is at exchange {header[0]}, rank 0 at {first[0]}")
        for rank, header in enumerate(headers):
            for at, name in enumerate(names, 3 + _NUMBERS):
                if header[at] != first[at]:
                    raise ShardError(f"rank {rank} has another {name} than rank 0")

    def gather(self, tensor):
        """The tensor of every rank, all of one shape, in the order of the ranks."""
        if self.size == 1:
            return [tensor]
        mine = tensor.to(self.device).contiguous()
        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        self._call(dist.all_gather, all_of_them, mine)
        return [one.cpu() for one in all_of_them]

    def gather_rows(self, rows, counts):
        """Rows of bytes [n, B] of every rank, one after the other: ranks have different numbers of them, also none."""
        if self.size == 1:
            return rows
        padded = rows.new_zeros(max(1, max(counts)), rows.shape[1])
        padded[: len(rows)] = rows
        return torch.cat([part[:count] for part, count in zip(self.gather(padded), counts)])

    def scatter_rows(self, rows, counts):
        """Of rows [N, B] that each rank has for all of them, those of this rank by every rank: [ranks, n, B]."""
        own = counts[self.rank]
        if self.size == 1:
            return rows.unsqueeze(0)
        found = rows.new_empty(self.size * own, rows.shape[1], device=self.device)
        self._call(dist.all_to_all_single, found, rows.to(self.device).contiguous(), [own] * self.size, list(counts))
        return found.cpu().view(self.size, own, rows.shape[1])

    def _call(self, collective, *arguments):
        try:
            collective(*arguments, group=self.group)
        except RuntimeError as why:
            raise ShardError(f"rank {self.rank}: another rank is gone, or did not answer in time: {why}") from why


def columns(tensors):
    """Vectors [n] and matrices [n, …] of any types as one matrix of bytes [n, B]."""
    matrices = (tensor.detach().cpu() for tensor in tensors)
    return torch.cat([_bytes(one.unsqueeze(1) if one.dim() == 1 else one) for one in matrices], 1)


def _bytes(matrix):
    width = matrix.shape[1] * matrix.element_size()
    if matrix.numel() == 0:
        return torch.empty(len(matrix), width, dtype=torch.uint8)
    return matrix.contiguous().view(torch.uint8)


def uncolumned(matrix, kinds):
    """The tensors of such a matrix: `kinds` are their types and widths; a width of None is a vector."""
    tensors, first = [], 0
    for kind, width in kinds:
        size = (1 if width is None else width) * torch.empty(0, dtype=kind).element_size()
        part = matrix[:, first : first + size]
        shape = (len(matrix),) if width is None else (len(matrix), width)
        tensors.append(torch.empty(shape, dtype=kind) if part.numel() == 0 else part.contiguous().view(kind).reshape(shape))
        first += size
    return tensors
