"""The ArcFace head (s = 64, m = 0.5), forward and backward in f32, in one of several libraries: a process that computes a
step when told to. compare.py starts it; the lines that they exchange are those of examples/time_head.rs.

    python heads.py <peer> <threads> <rows> <classes> <dim> <x.f32> <w.f32> <labels.i64>
    python heads.py list        the peers that this machine can run and, with the reason, those that it cannot: JSON

Each is written as a good user of that library would: no arccos, the target entry by its index, the scale on N x D instead of
N x C, buffers used again where the library has a way to.

Workspace, always the peak beyond inputs and both gradients while one step runs:
  numpy          tracemalloc, which sees every numpy buffer
  torch          the profiler's allocation events of one step; the libraries' packing buffers are not seen
  torch, CUDA    torch.cuda.max_memory_allocated
  jax            what XLA's memory analysis gives for temporaries
"""

import json
import sys
import time

import numpy as np

SCALE, MARGIN = 64.0, 0.5
COS, SIN = float(np.cos(MARGIN)), float(np.sin(MARGIN))


def target(xp, c):
    """cos(theta + m), and a line of slope 1 beyond pi - m; for libraries that differentiate it."""
    s = xp.sqrt(xp.clip((1 - c) * (1 + c), 1e-8, None))
    return xp.where(c > -COS, c * COS - s * SIN, c - (1 - COS))


class Numpy:
    """By hand, in place, every large buffer made once."""

    version = f"numpy {np.__version__}"

    def __init__(self, x, w, y, threads):
        import tracemalloc

        self.x, self.w, self.y = x, w, y
        tracemalloc.start()
        self.z = np.empty((len(x), len(w)), np.float32)
        self.uw, self.dw, self.dx = np.empty_like(w), np.empty_like(w), np.empty_like(x)
        self.compute()
        self.workspace = tracemalloc.get_traced_memory()[1] - self.dx.nbytes - self.dw.nbytes
        tracemalloc.stop()

    def step(self):
        start = time.perf_counter()
        self.compute()
        return (time.perf_counter() - start) * 1e3, None, self.loss

    def compute(self):
        x, w, y, z, uw, dx, dw = self.x, self.w, self.y, self.z, self.uw, self.dx, self.dw
        f, n, rows = np.float32, len(y), np.arange(len(y))
        cos, sin = f(COS), f(SIN)
        inverse = lambda v: 1 / np.sqrt(np.einsum("id,id->i", v, v))[:, None]
        rx, rw = inverse(x), inverse(w)
        ux = x * rx
        np.multiply(w, rw, out=uw)
        np.matmul(f(SCALE) * ux, uw.T, out=z)
        c = z[rows, y] / f(SCALE)
        s = np.sqrt(np.maximum((1 - c) * (1 + c), 0))
        above = c > -cos
        slope = np.where(above, cos + c * sin / np.maximum(s, f(1e-4)), f(1))
        aim = f(SCALE) * np.where(above, c * cos - s * sin, c - (1 - cos))
        z[rows, y] = aim
        most = z.max(axis=1, keepdims=True)
        z -= most
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        self.loss = float((np.log(total[:, 0]) + most[:, 0] - aim).mean())
        z *= f(SCALE / n) / total
        z[rows, y] = (z[rows, y] - f(SCALE / n)) * slope
        np.matmul(z, uw, out=dx)
        dx -= np.einsum("id,id->i", dx, ux)[:, None] * ux
        dx *= rx
        np.matmul(z.T, ux, out=dw)
        uw *= np.einsum("id,id->i", dw, uw)[:, None]
        dw -= uw
        dw *= rw

    def gradients(self):
        return self.dx, self.dw


class Torch:
    """Autograd; `kind` is "", "compile", and on a GPU one of "cuda", "cuda tf32", "cuda bf16", "cuda compile"."""

    def __init__(self, x, w, y, threads, kind=""):
        import torch

        self.torch, self.kind = torch, kind
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = "tf32" in kind
        self.cuda = "cuda" in kind
        device = "cuda" if self.cuda else "cpu"
        self.version = f"torch {torch.__version__}" + (f", {torch.cuda.get_device_name()}" if self.cuda else "")
        self.x, self.w, self.y = (torch.from_numpy(a).to(device) for a in (x, w, y))
        self.x.requires_grad_(), self.w.requires_grad_()
        self.head = torch.compile(self.forward, dynamic=False) if "compile" in kind else self.forward
        for _ in range(3):
            self.compute()
        self.workspace = self.measure()

    def forward(self, x, w, y):
        torch = self.torch
        F = torch.nn.functional
        at = torch.arange(len(y), device=y.device), y
        z = F.linear(SCALE * F.normalize(x), F.normalize(w))
        raw = z[at]
        z.index_put_(at, SCALE * target(torch, raw / SCALE) - raw, accumulate=True)
        return F.cross_entropy(z, y)

    def compute(self):
        self.found = None  # the gradients of the step before are not workspace
        with self.torch.autocast("cuda", self.torch.bfloat16, enabled="bf16" in self.kind):
            loss = self.head(self.x, self.w, self.y)
        self.found = (loss.detach(), *self.torch.autograd.grad(loss, (self.x, self.w)))

    def step(self):
        if not self.cuda:
            start = time.perf_counter()
            self.compute()
            return (time.perf_counter() - start) * 1e3, None, float(self.found[0])
        cuda = self.torch.cuda
        first, last = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        cuda.synchronize()
        start = time.perf_counter()
        first.record()
        self.compute()
        last.record()
        cuda.synchronize()
        return (time.perf_counter() - start) * 1e3, first.elapsed_time(last), float(self.found[0])

    def measure(self):
        torch, gradients = self.torch, self.x.nbytes + self.w.nbytes
        if self.cuda:
            self.found = None
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.compute()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before - gradients
        self.found = None
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as run:
            self.compute()
        events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
        live = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
        return int(live.max()) - gradients

    def gradients(self):
        return (g.float().cpu().numpy() for g in self.found[1:])


class Jax:
    """jit of value_and_grad; XLA takes as many threads as the process has cores."""

    def __init__(self, x, w, y, threads):
        import jax
        import jax.numpy as jnp

        self.version = f"jax {jax.__version__}"
        self.block = jax.block_until_ready

        def loss(x, w, y):
            unit = lambda v: v * jax.lax.rsqrt(jnp.sum(v * v, axis=1, keepdims=True))
            z = (SCALE * unit(x)) @ unit(w).T
            at = y[:, None]
            aim = SCALE * target(jnp, jnp.take_along_axis(z, at, 1) / SCALE)
            z = jnp.put_along_axis(z, at, aim, 1, inplace=False)
            return jnp.mean(jax.nn.logsumexp(z, axis=1) - aim[:, 0])

        self.data = tuple(jnp.asarray(a) for a in (x, w, y.astype(np.int32)))
        self.run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*self.data).compile()
        self.workspace = self.run.memory_analysis().temp_size_in_bytes

    def step(self):
        self.found = None
        start = time.perf_counter()
        self.found = self.block(self.run(*self.data))
        return (time.perf_counter() - start) * 1e3, None, float(self.found[0])

    def gradients(self):
        return (np.asarray(g) for g in self.found[1])


PEERS = {
    "numpy": Numpy,
    "torch": Torch,
    "torch-compile": lambda *a: Torch(*a, "compile"),
    "jax": Jax,
    "torch-cuda": lambda *a: Torch(*a, "cuda"),
    "torch-cuda-tf32": lambda *a: Torch(*a, "cuda tf32"),
    "torch-cuda-bf16": lambda *a: Torch(*a, "cuda bf16"),
    "torch-cuda-compile": lambda *a: Torch(*a, "cuda compile"),
}


def available():
    """Each peer with the reason why it cannot run, or none."""
    missing = {}
    for name in ("torch", "jax"):
        try:
            __import__(name)
        except ImportError as error:
            missing[name] = f"{error}; pip install {name}"
    no_torch, no_cuda = missing.get("torch"), missing.get("torch")
    if not no_torch:
        import torch

        no_cuda = None if torch.cuda.is_available() else "torch sees no CUDA GPU"
    why = {"numpy": None, "torch": no_torch, "torch-compile": no_torch, "jax": missing.get("jax")}
    return {name: why.get(name, no_cuda) for name in PEERS}


def main():
    if sys.argv[1:] == ["list"]:
        print(json.dumps(available()))
        return
    name, threads, n, c, d = sys.argv[1], *map(int, sys.argv[2:6])
    x, w = (np.fromfile(path, np.float32).reshape(-1, d) for path in sys.argv[6:8])
    y = np.fromfile(sys.argv[8], np.int64)
    assert x.shape == (n, d) and w.shape == (c, d) and y.shape == (n,), "the files do not have this shape"
    say = lambda answer: print(json.dumps(answer), flush=True)
    peer = PEERS[name](x, w, y, threads)
    say({"version": peer.version, "workspace_bytes": peer.workspace})
    for line in sys.stdin:
        match line.split():
            case ["step"]:
                ms, device_ms, loss = peer.step()
                say({"ms": ms, "device_ms": device_ms, "loss": loss})
            case ["write", *paths]:
                for path, gradient in zip(paths, peer.gradients()):
                    np.ascontiguousarray(gradient, np.float32).tofile(path)
                say({})
            case _:
                sys.exit(f"{line!r} is neither step nor write <dx> <dw>")


if __name__ == "__main__":
    main()
