"""Draws the charts anew from the files in benches/results.

    python benches/peers/charts.py
    python benches/peers/charts.py --png FOLDER     PNGs too, to look at
    python benches/peers/charts.py --table          prints the tables of benches/README.md
"""

import argparse
import json
import math
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

BENCHES = pathlib.Path(__file__).resolve().parents[1]
PICTURES = BENCHES.parent / "pictures"
# dark ink on light paper of its own: readable on a page of any colour
plt.rcParams.update({
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "margin-softmax",  # the same bytes from the same numbers
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 11,
    "figure.facecolor": "#fcfcf9",
    "axes.facecolor": "#fcfcf9",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "grid.color": "#e4e4de",
    "axes.axisbelow": True,
})

# after Okabe and Ito, dark enough for text; the crate's rows are thick
STYLES = {
    "crate cpu keep": ("#0072b2", "this crate, keep"),
    "crate cpu recompute": ("#2f86b8", "this crate, recompute"),
    "numpy": ("#7a5c3e", "numpy"),
    "torch": ("#c04f00", "PyTorch eager"),
    "torch-compile": ("#a06c00", "torch.compile"),
    "jax": ("#007a58", "JAX"),
    "burn flex": ("#a8487f", "burn flex"),
}
OTHERS = ["#333333", "#946ac8", "#777777", "#b03060"]


def read(name):
    path = BENCHES / "results" / name
    if path.exists():
        return json.loads(path.read_text())
    print(f"no {path.relative_to(BENCHES.parent)}: its charts stay as they are")
    return []


def plain(value, _=None):
    """Three digits, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def classes_text(count):
    return f"{count // 1024}k" if count % 1024 == 0 else plain(count)


def over_classes(rows, value, title, setting, unit):
    """One line per peer over the number of classes, both axes logarithmic, named at its right end."""
    figure, axes = plt.subplots(figsize=(9.6, 5.2))
    figure.subplots_adjust(left=0.09, right=0.66, top=0.87, bottom=0.11)
    axes.set(xscale="log", yscale="log", xlabel="classes C", ylabel=unit)
    figure.text(0.02, 0.945, title, size=13, weight="bold")
    figure.text(0.02, 0.905, setting, color="#555555")
    ends, spare = [], iter(OTHERS)
    for name in [*STYLES, *sorted({row["peer"] for row in rows} - set(STYLES))]:
        points = sorted((int(r["shape"].split("x")[1]), value(r)) for r in rows if r["peer"] == name and value(r) > 0)
        if not points:
            continue
        colour, text = STYLES[name] if name in STYLES else (next(spare, "#333333"), name)
        own = name.startswith("crate")
        axes.plot(*zip(*points), color=colour, lw=2.8 if own else 1.6, marker="o", ms=5 if own else 3.5)
        ends.append([points[-1], colour, f"{text}  {plain(points[-1][1])} {unit}", own])
    classes = sorted({int(row["shape"].split("x")[1]) for row in rows})
    axes.set_xticks(classes, [classes_text(c) for c in classes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.03)

    # labels keep a line's height between them, in the order of the lines' ends, and a thin line leads to each
    figure.canvas.draw()
    gap = 0.058
    place = lambda y: axes.transAxes.inverted().transform(axes.transData.transform((classes[-1], y)))
    ends.sort(key=lambda end: end[0][1])
    actual = [float(place(end[0][1])[1]) for end in ends]
    last = float(place(1)[0])
    heights = list(actual)
    for _ in range(200):  # neighbours that are too close push each other apart
        for i in range(1, len(heights)):
            if (missing := gap - (heights[i] - heights[i - 1])) > 1e-6:
                heights[i] += missing / 2
                heights[i - 1] -= missing / 2
        heights[-1] = min(heights[-1], 0.98)
    for height, y, (_, colour, text, own) in zip(heights, actual, ends):
        axes.plot([last + 0.012, 1.035], [y, height], color=colour, lw=0.7, transform=axes.transAxes, clip_on=False)
        axes.text(1.045, height, text, va="center", color=colour, weight="bold" if own else "normal",
                  transform=axes.transAxes)
    return figure


def per_loss(rows):
    """One panel per backend and shape, one bar per loss, the losses in the order of the first panel's times."""
    panels = list(dict.fromkeys((row["backend"], row["shape"]) for row in rows))
    times = {(row["backend"], row["shape"], row["loss"]): row["median_ms"] for row in rows}
    names = list(dict.fromkeys(row["loss"] for row in rows))
    names.sort(key=lambda name: -times.get((*panels[0], name), 0))
    size = (2.4 + 3.4 * len(panels), 1.3 + 0.27 * len(names))
    figure, all_axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, panel in zip(all_axes[0], panels):
        values = [times.get((*panel, name), 0) for name in names]
        axes.barh(names, values, color="#56b4e9", height=0.7)
        for y, value in enumerate(values):
            axes.annotate(f"{value:.3g}" if value else "–", (value, y), (4, 0), textcoords="offset points",
                          va="center", fontsize=9, color="#333333")
        axes.set_title(f"{panel[0]}\n{panel[1].replace('x', ' × ')}", fontsize=10.5)
        axes.set_xlabel("ms, median")
        axes.margins(x=0.14, y=0.01)
        axes.grid(False, axis="y")
    figure.suptitle("Time of a step (forward + backward) per loss")
    return figure


def table(rows, title, cell):
    """Markdown: peers down, shapes across, both in the order of the file, the shapes by their work."""
    shapes = sorted({row["shape"] for row in rows}, key=lambda shape: math.prod(map(int, shape.split("x"))))
    cells = {(row["peer"], row["shape"]): cell(row) for row in rows}
    print(f"| {title} | " + " | ".join("×".join(f"{int(s):,}" for s in shape.split("x")) for shape in shapes) + " |")
    print("|---|" + "---|" * len(shapes))
    for peer in dict.fromkeys(row["peer"] for row in rows):
        print(f"| {peer} | " + " | ".join(cells.get((peer, shape), "") for shape in shapes) + " |")
    print()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--png", type=pathlib.Path, help="a folder for PNGs of the same")
    arguments.add_argument("--table", action="store_true", help="print tables, draw nothing")
    args = arguments.parse_args()
    png = args.png
    if args.table:
        rows = read("peers.json")
        table(rows, "best / median ms", lambda r: f"{plain(r['best_ms'])} / {plain(r['median_ms'])}")
        table(rows, "workspace MB", lambda r: plain(r["workspace_bytes"] / 1e6))
        table(rows, "GFLOP/s, best", lambda r: plain(r["gflops"]))
        return
    figures = {}
    if sweep := read("sweep.json"):
        n, _, d = sweep[0]["shape"].split("x")
        setting = f"ArcFace, forward + backward, f32; N = {n}, D = {d}; {sweep[0]['threads']} threads"
        figures["time_over_classes"] = over_classes(
            sweep, lambda r: r["best_ms"], "Time of a step over the number of classes", f"{setting}; best of the rounds", "ms"
        )
        figures["workspace_over_classes"] = over_classes(
            sweep, lambda r: r["workspace_bytes"] / 1e6, "Workspace over the number of classes", f"{setting}; beyond inputs and gradients", "MB"
        )
    if losses := read("losses.json"):
        figures["time_per_loss"] = per_loss(losses)
    PICTURES.mkdir(exist_ok=True)
    for name, figure in figures.items():
        path = PICTURES / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        print(path.relative_to(BENCHES.parent))
        if png:
            figure.savefig(png / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
