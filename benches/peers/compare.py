"""This crate and the same ArcFace head in other libraries, step by step in turn; see run.sh and benches/README.md.

Every peer is a process of its own with the same data (files), the same cores and as many threads. Each must agree with this
crate's CPU path to 1e-4 in the loss, dX and dW before anything is timed. A round is one step of each, after a pause, since
OpenMP and XLA threads spin for a while after a call. Only ratios inside one run mean anything on a shared machine.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from tqdm import tqdm

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
RESULTS = pathlib.Path(os.environ.get("MARGIN_SOFTMAX_RESULTS", HERE.parent / "results"))

SHAPES = {  # rows, classes, dim
    "small": (64, 1000, 128),
    "B": (256, 5994, 192),
    "A1": (512, 20_000, 512),
    "A": (512, 85_742, 512),
    "million": (64, 1_000_000, 64),
}
SWEEP = [(256, classes, 128) for classes in (1024, 4096, 16_384, 65_536, 262_144)]
ALIKE = 1e-4
# TF32 has 11 bits and bf16 8; times the scale of 64 that is no longer the same head
TOLERANCE = {"torch-cuda-tf32": 0.05, "torch-cuda-bf16": 0.5}
# a software adapter is a correctness device: no more than this many floating-point operations a step
SOFTWARE_MOST = 2e8


@dataclasses.dataclass
class Peer:
    """A process that computes steps; the lines are those of examples/time_head.rs."""

    name: str
    command: list
    kind: str = "cpu"  # what it is compared with: the crate's rows of the same kind
    want: str = "both"
    times: list = dataclasses.field(default_factory=list)
    device_times: list = dataclasses.field(default_factory=list)

    def start(self, shape, files, environment, cores):
        pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*map(str, self.command), *map(str, shape), *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            preexec_fn=pin,
        )
        self.about = self.answer()
        return self

    def answer(self):
        """The next line of JSON; a RuntimeError with the process' last words if it ends instead."""
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        code = self.process.wait()
        self.errors.seek(0)
        words = [line.strip() for line in self.errors if line.strip()]
        raise RuntimeError(words[-1] if words else f"ended with {code}")

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.answer()

    def step(self):
        answer = self.ask("step")
        self.times.append(answer["ms"])
        if answer["device_ms"] is not None:
            self.device_times.append(answer["device_ms"])
        return answer["loss"]

    def gradients(self, folder):
        """dX and dW, flat; empty where this peer has none."""
        files = folder / "dx", folder / "dw"
        for file in files:
            file.unlink(missing_ok=True)
        self.ask("write {} {}".format(*files))
        return [np.fromfile(file, np.float32) for file in files]

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def crate(name, *options, kind="cpu", want="both"):
    program = TARGET / "release/examples/time_head"
    return Peer(name, [program, "--device", kind, "--want", want, *options], kind, want)


class Run:
    """What all shapes share: cores, environment, the GPU."""

    def __init__(self, args):
        self.args, self.missing = args, {}
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        self.cores = set(usable[: args.threads])
        self.environment = dict(os.environ)
        for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "LP"):
            self.environment[f"{name}_NUM_THREADS"] = str(args.threads)
        self.environment["JAX_PLATFORMS"] = "cpu"
        self.gpu = self.find_gpu()
        self.peers = list(self.others())
        self.missing_everywhere = self.missing

    # ---- who takes part

    def find_gpu(self):
        """The adapter's name, and whether it computes in software; None where there is none."""
        shape = 2, 2, 4
        with tempfile.TemporaryDirectory() as folder:
            files = [pathlib.Path(folder) / name for name in "xwy"]
            for file in files[:2]:
                np.ones((2, 4), np.float32).tofile(file)
            np.zeros(2, np.int64).tofile(files[2])
            try:
                peer = crate("crate gpu", "--adapter", self.args.adapter, kind="gpu")
                about = peer.start(shape, files, self.environment, self.cores).about
                peer.end()
                return about
            except (OSError, RuntimeError) as error:
                self.missing["crate gpu"] = str(error)

    def own(self, shape, full):
        """The rows of this crate."""
        n, c, _ = shape
        cosines = 4 * n * c
        # keep takes little more than all cosines; the smallest shapes need more than a tenth of that
        small, large = ["--budget", int(1.1 * cosines)], ["--budget", 2 * cosines + (256 << 20)]
        less = ["--budget", cosines * 3 // 20]
        for kind in ["cpu"] + ["gpu"] * bool(self.gpu):
            extra = ["--adapter", self.gpu["device"]] if kind == "gpu" else []
            name = f"crate {kind}"
            yield crate(f"{name} keep", *small, *extra, kind=kind), crate(f"{name} keep", *large, *extra, kind=kind)
            yield crate(f"{name} recompute", *less, *extra, kind=kind), None
            if full:
                for want, what in ("loss", "loss only"), ("dx", "dX only"), ("dw", "dW only"):
                    yield crate(f"{name} {what}", *large, *extra, kind=kind, want=want), None

    def others(self):
        listed = subprocess.run([sys.executable, HERE / "heads.py", "list"], capture_output=True, text=True, check=True)
        for name, why in json.loads(listed.stdout.splitlines()[-1]).items():
            if why:
                self.missing[name] = why
                continue
            kind = "gpu" if "cuda" in name else "cpu"
            yield Peer(name, [sys.executable, HERE / "heads.py", name, self.args.threads], kind)
        program = TARGET / "burn/release/burn-peer"
        if not program.exists():
            self.missing["burn"] = f"{program} is not built"
            return
        yield Peer("burn flex", [program, "flex", "-"])
        if self.gpu:
            yield Peer("burn wgpu", [program, "wgpu", self.gpu["device"]], "gpu")

    def wanted(self, peer):
        return not self.args.peers or any(re.search(part, peer.name) for part in self.args.peers.split(","))

    # ---- one shape

    def shape(self, shape, rounds, full=True):
        n, c, d = shape
        self.missing = dict(self.missing_everywhere)
        text = "x".join(map(str, shape))
        flop = 6 * n * c * d
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            rng = np.random.default_rng(0)
            files = [folder / name for name in "xwy"]
            rng.standard_normal((n, d), np.float32).tofile(files[0])
            rng.standard_normal((c, d), np.float32).tofile(files[1])
            rng.integers(0, c, n).tofile(files[2])

            running = []
            bar = tqdm(desc=text, bar_format="{desc} [{elapsed}]")
            try:
                self.start_all(running, shape, files, flop, full, bar)
                self.check(running, folder, text, bar)
                bar.close()
                # a log file gets a line now and then, a terminal every step
                live = sys.stderr.isatty()
                bar = tqdm(total=rounds * len(running), unit="step", mininterval=0.1 if live else 10)
                for number in range(rounds):
                    for peer in running:
                        bar.set_description(f"{text}, round {number + 1} of {rounds}, {peer.name}", refresh=live)
                        time.sleep(self.args.pause)
                        peer.step()
                        bar.update()
            finally:
                bar.close()
                for peer in running:
                    peer.end()
        return self.rows(running, shape, rounds)

    def start_all(self, running, shape, files, flop, full, bar):
        n, c, d = shape

        def start(peer):
            bar.set_description(f"{'x'.join(map(str, shape))}, starting {peer.name}")
            if peer.kind == "gpu" and self.gpu and self.gpu["software"] and flop > SOFTWARE_MOST:
                self.missing["GPU rows"] = f"{self.gpu['device']} computes in software: small shapes only"
                return None
            needed = 4 * (2 * (n * d + c * d) + 8 * n * c)
            if needed > available():
                self.missing[peer.name] = f"may need {needed / 1e9:.1f} GB, {available() / 1e9:.1f} are free"
                return None
            try:
                return peer.start(shape, files, self.environment, self.cores)
            except (OSError, RuntimeError) as error:
                self.missing[peer.name] = str(error)
                return None

        for peer, instead in self.own(shape, full):
            # the first row is what all others are compared with
            if running and not self.wanted(peer):
                continue
            started = start(peer)
            if started and instead and started.about["schedule"] != "keep":
                started.end()
                started = start(instead)
            if started:
                running.append(started)
        if not running:
            sys.exit(f"this crate does not run: {self.missing}")
        # a fresh one for every shape: a peer has its process and its times
        peers = [Peer(p.name, p.command, p.kind, p.want) for p in self.peers if self.wanted(p)]
        running += filter(None, map(start, peers))

    def check(self, running, folder, text, bar):
        """No time counts before all agree; twice, so that no first call is timed either."""
        expected = None
        for peer in list(running):
            bar.set_description(f"{text}, checking {peer.name}")
            peer.step()
            loss, (dx, dw) = peer.step(), peer.gradients(folder)
            peer.times, peer.device_times = [], []
            if expected is None:
                expected = loss, dx, dw
            off = [abs(loss / expected[0] - 1)]
            for part, found, right in (("dx", dx, expected[1]), ("dw", dw, expected[2])):
                if peer.want in ("both", part):
                    assert len(found) == len(right), f"{peer.name}: {part} has {len(found)} values"
                    off.append(float(np.abs(found - right).max() / np.abs(right).max()))
            peer.difference = max(off)
            # a NaN differs too
            if not peer.difference <= TOLERANCE.get(peer.name, ALIKE):
                why = f"differs by {off} in loss and gradients, of the largest element"
                if peer.name.startswith("crate"):
                    sys.exit(f"{text}: {peer.name} {why}")
                # one wrong peer does not cost the rows of the others
                self.missing[peer.name] = why
                running.remove(peer)
                peer.end()

    def rows(self, running, shape, rounds):
        n, c, d = shape
        best = {}
        for peer in running:
            if peer.name.startswith("crate") and peer.want == "both":
                best[peer.kind] = min(best.get(peer.kind, np.inf), min(peer.times))
        rows = []
        for peer in running:
            # products of N x D x C: one for the loss, one for each gradient
            products = {"loss": 1, "dx": 2, "dw": 2, "both": 3}[peer.want]
            row = {
                "shape": f"{n}x{c}x{d}",
                "peer": peer.name,
                "version": peer.about["version"],
                "device": peer.about.get("device", f"CPU, {self.args.threads} threads"),
                "schedule": peer.about.get("schedule", ""),
                "want": peer.want,
                "rounds": rounds,
                "best_ms": round(min(peer.times), 4),
                "median_ms": round(statistics.median(peer.times), 4),
                "device_best_ms": round(min(peer.device_times), 4) if peer.device_times else None,
                "ratio": round(min(peer.times) / best.get(peer.kind, np.nan), 3) if peer.kind in best else None,
                "workspace_bytes": peer.about["workspace_bytes"],
                "gflops": round(2 * products * n * c * d / min(peer.times) / 1e6, 1),
                "max_difference": peer.difference,
                "cpu": cpu_name(),
                "threads": self.args.threads,
                "date": datetime.date.today().isoformat(),
            }
            rows.append(row)
        return rows


def available():
    """Bytes that can still be had, where the system tells."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
        return int(found[1]) << 10
    except (OSError, TypeError):
        return float("inf")


def cpu_name():
    try:
        return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def print_table(rows):
    print(f"\n{rows[0]['shape']} (N x C x D), best / median ms of {rows[0]['rounds']} alternating rounds")
    print(f"  {'':22} {'best':>9} {'median':>9} {'ratio':>7} {'workspace MB':>13} {'GFLOP/s':>8} {'differs':>8}")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
        device = f"   {row['device_best_ms']:.3f} ms on the device" if row["device_best_ms"] is not None else ""
        print(
            f"  {row['peer']:22} {row['best_ms']:9.2f} {row['median_ms']:9.2f} {ratio:>7} "
            f"{row['workspace_bytes'] / 1e6:13.2f} {row['gflops']:8.1f} {row['max_difference']:8.0e}{device}"
        )
    sys.stdout.flush()


def print_growth(rows):
    """How this crate's time grows with the number of classes."""
    for name in sorted({row["peer"] for row in rows if row["peer"].startswith("crate")}):
        times = sorted((int(row["shape"].split("x")[1]), row["best_ms"]) for row in rows if row["peer"] == name)
        for (fewer, before), (more, after) in zip(times, times[1:]):
            print(f"  {name}: {more / fewer:.3g} times the classes ({more}) take {after / before:.2f} times as long")


def merge(path, rows):
    """New rows take the place of older ones of the same measurement; the file is written whole or not at all."""
    key = lambda row: tuple(row[k] for k in ("shape", "peer", "want", "device", "cpu", "threads"))
    old = json.loads(path.read_text()) if path.exists() else []
    merged = list(({key(row): row for row in old} | {key(row): row for row in rows}).values())
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text("[\n" + ",\n".join(json.dumps(row) for row in merged) + "\n]\n")
    new.replace(path)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shapes", help=f"of {', '.join(SHAPES)}, or as NxCxD; all if absent")
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments.add_argument("--pause", type=float, default=0.3, help="seconds before each step")
    arguments.add_argument("--peers", default="", help="parts of names (regular expressions), with commas between; all if absent")
    arguments.add_argument("--adapter", default="", help="a part of the GPU's name; the best there is if absent")
    arguments.add_argument("--sweep", action="store_true", help="time and workspace over the number of classes")
    arguments.add_argument("--quick", action="store_true", help="the small shape, three rounds, no file")
    args = arguments.parse_args()
    if args.quick:
        args.shapes, args.rounds = "small", 3
    shapes = []
    for name in args.shapes.split(",") if args.shapes else []:
        sizes = tuple(map(int, name.split("x"))) if re.fullmatch(r"\d+x\d+x\d+", name) else SHAPES.get(name)
        if sizes is None:
            arguments.error(f"no shape is called {name!r}; there are {', '.join(SHAPES)}")
        shapes.append(sizes)

    file = RESULTS / ("sweep.json" if args.sweep else "peers.json")
    run = Run(args)
    for shape in shapes or (SWEEP if args.sweep else SHAPES.values()):
        rounds = min(args.rounds, 5) if args.sweep and shape[1] > 50_000 else args.rounds
        rows = run.shape(shape, rounds, full=not args.sweep)
        print_table(rows)
        for name, why in run.missing.items():
            print(f"  without {name}: {why}")
        if not args.quick:
            merge(file, rows)
    if args.sweep and file.exists():
        print("\nTime over classes")
        print_growth(json.loads(file.read_text()))


if __name__ == "__main__":
    main()
