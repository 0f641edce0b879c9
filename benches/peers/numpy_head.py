"""ArcFace forward and backward: numpy against this crate's CPU path, in turn in one run.

    pip install numpy
    cargo build --release --no-default-features --features cpu --example time_head
    python benches/peers/numpy_head.py [--shape 256 5994 192] [--rounds 15] [--budget 256] [--binary target/release/examples/time_head]

Both get the same data and must agree to 1e-4 before anything is timed. A round is one step of each, after a pause, since
BLAS threads spin for a while after a call; only the ratio of the best rounds means anything on a shared machine.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time

import numpy as np

SCALE, MARGIN = np.float32(64), np.float32(0.5)


def head(x, w, y):
    """Loss, dX and dW of ArcFace as one writes it in numpy: f32, in place where that helps, N x C temporaries."""
    rows = np.arange(len(y))
    rx = 1 / np.linalg.norm(x, axis=1, keepdims=True)
    rw = 1 / np.linalg.norm(w, axis=1, keepdims=True)
    ux, uw = x * rx, w * rw
    z = ux @ uw.T
    c = z[rows, y]
    s = np.sqrt(np.maximum((1 - c) * (1 + c), 0))
    above = c > -np.cos(MARGIN)
    phi = np.where(above, c * np.cos(MARGIN) - s * np.sin(MARGIN), c - (1 - np.cos(MARGIN)))
    slope = np.where(above, np.cos(MARGIN) + c * np.sin(MARGIN) / np.maximum(s, 1e-4), 1)
    z[rows, y] = phi
    z *= SCALE
    most = z.max(axis=1, keepdims=True)
    target = z[rows, y] - most[:, 0]
    z -= most
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - target).mean()
    z *= SCALE / len(y) / total
    z[rows, y] -= SCALE / len(y)
    z[rows, y] *= slope
    dx = z @ uw
    dx -= (dx * ux).sum(axis=1, keepdims=True) * ux
    dx *= rx
    dw = z.T @ ux
    dw -= (dw * uw).sum(axis=1, keepdims=True) * uw
    dw *= rw
    return loss, dx, dw


class Peer:
    """The crate's CPU path in a process of its own."""

    def __init__(self, binary, shape, budget, x, w, y, folder):
        for name, array in ("x", x), ("w", w), ("y", y):
            array.tofile(folder / name)
        files = [str(folder / name) for name in "xwy"]
        sizes = [str(size) for size in (*shape, budget)]
        self.process = subprocess.Popen(
            [binary, *sizes, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.folder, self.shape = folder, shape
        self.name = self.process.stdout.readline().removeprefix("ready ").strip()

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def step(self):
        ms, loss = self.ask("go")
        return float(ms), float(loss)

    def gradients(self):
        files = self.folder / "dx", self.folder / "dw"
        self.ask(f"write {files[0]} {files[1]}")
        n, c, d = self.shape
        return np.fromfile(files[0], np.float32).reshape(n, d), np.fromfile(files[1], np.float32).reshape(c, d)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    arguments.add_argument("--shape", nargs=3, type=int, default=(256, 5994, 192), metavar=("N", "C", "D"))
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--budget", type=int, default=256, help="MiB; too small for N*C values means recompute")
    arguments.add_argument("--binary", default=str(root / "target/release/examples/time_head"))
    args = arguments.parse_args()
    n, c, d = args.shape

    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((n, d), np.float32), rng.standard_normal((c, d), np.float32)
    y = rng.integers(0, c, n)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(args.binary, args.shape, args.budget, x, w, y, pathlib.Path(folder))
        loss, dx, dw = head(x, w, y)
        for _ in range(2):
            own = peer.step()[1]
        assert abs(own / loss - 1) < 1e-4, f"loss {own}, numpy {loss}"
        for what, ours, theirs in zip(("dX", "dW"), peer.gradients(), (dx, dw)):
            off = np.abs(ours - theirs).max() / np.abs(theirs).max()
            assert off < 1e-4, f"{what} differs by {off} of its largest element"
            print(f"{what} agrees to {off:.1e}")

        times = {"numpy": [], "crate": []}
        for _ in range(args.rounds):
            time.sleep(0.3)
            start = time.perf_counter()
            head(x, w, y)
            times["numpy"].append((time.perf_counter() - start) * 1e3)
            time.sleep(0.3)
            times["crate"].append(peer.step()[0])
        peer.process.stdin.close()
        peer.process.wait()
    print(f"N={n} C={c} D={d}, forward + backward, best / median of {args.rounds} alternating rounds")
    for name, label in ("numpy", f"numpy {np.__version__}"), ("crate", f"margin-softmax, {peer.name}"):
        print(f"  {label:34} {min(times[name]):7.1f} / {np.median(times[name]):7.1f} ms")
    best, median = (f(times["crate"]) / f(times["numpy"]) for f in (min, np.median))
    print(f"  ratio                              {best:7.2f} / {median:7.2f}")


if __name__ == "__main__":
    main()
