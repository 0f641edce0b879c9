"""The k nearest classes beside faiss and numpy: 1,024 queries over 10⁶ prototypes of 128 values, in turn in one run.

faiss is IndexFlatIP over normalised prototypes; numpy takes 64 rows at a time: a product, argpartition, a sort of the k. Both get
prototypes that are normalised already, this crate normalises them in every call. The classes that come out are compared before
anything is printed. `run.sh --nearest` sets everything up.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="1024x1000000x128", help="rows x classes x dim")
    parser.add_argument("--count", type=int, default=10, help="k")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def program():
    """The bench's executable, as cargo names it."""
    command = ["cargo", "bench", "--no-run", "--message-format=json", "-p", "margin-softmax-benches", "--bench", "predict"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(found for line in lines if (found := json.loads(line).get("executable")))


def main():
    args = arguments()
    for name in ("OMP", "OPENBLAS", "MKL", "RAYON"):
        os.environ[f"{name}_NUM_THREADS"] = str(args.threads)
    import numpy as np

    try:
        import faiss
    except ImportError:
        faiss = None
        print("without faiss: it is not installed")
    rows, classes, dim = map(int, args.shape.split("x"))
    random = np.random.default_rng(1)
    x, w = (random.standard_normal((n, dim), dtype=np.float32) for n in (rows, classes))
    unit_x, unit_w = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, w))

    def with_numpy():
        found = []
        for at in range(0, rows, 64):
            cosines = unit_x[at : at + 64] @ unit_w.T
            best = np.argpartition(cosines, -args.count, axis=1)[:, -args.count :]
            order = np.argsort(-np.take_along_axis(cosines, best, 1), 1)
            found.append(np.take_along_axis(best, order, 1))
        return np.concatenate(found)

    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / name for name in ("x.f32", "w.f32")]
        for file, values in zip(files, (x, w)):
            values.tofile(file)
        command = [program(), "--peer", rows, classes, dim, args.count, *files]
        here = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def with_crate():
            here.stdin.write("call\n")
            here.stdin.flush()
            return float(here.stdout.readline())

        peers, classes_of = {"this crate": with_crate, "numpy": with_numpy}, {}
        if faiss:
            index = faiss.IndexFlatIP(dim)
            index.add(unit_w)
            peers["faiss"] = lambda: index.search(unit_x, args.count)[1]
        times = {name: [] for name in peers}
        for turn in range(args.rounds + 1):  # the first one warms up
            for name, call in peers.items():
                time.sleep(0.3)  # threads of OpenMP spin for a while
                start = time.perf_counter()
                answer = call()
                seconds = time.perf_counter() - start
                if name != "this crate":
                    classes_of[name] = answer
                else:
                    seconds = answer
                if turn > 0:
                    times[name].append(seconds)
            print(f"round {turn} of {args.rounds}", flush=True)
        answer = here.communicate()[0]
    classes_of["this crate"] = np.array([line.split() for line in answer.splitlines()], dtype=np.int64)

    expected = classes_of["numpy"]
    for name, found in classes_of.items():
        unlike = float((found != expected).mean())
        # neighbours closer than a rounding error may swap
        assert unlike < 1e-3, f"{name} and numpy differ in {unlike:.2%} of the classes"
    print(f"{args.shape}, k = {args.count}, {args.threads} threads; seconds")
    for name, all_times in times.items():
        ratio = statistics.median(t / own for t, own in zip(all_times, times["this crate"]))
        print(f"{name:12} best {min(all_times):7.2f}  median {statistics.median(all_times):7.2f}  of this crate's {ratio:5.2f}")


if __name__ == "__main__":
    main()
