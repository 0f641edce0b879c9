"""Draws the charts anew from the files in benches/results; `--png FOLDER` writes PNGs too, to look at.

    python benches/peers/charts.py [--png FOLDER]
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

BENCHES = pathlib.Path(__file__).resolve().parents[1]
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

# after Okabe and Ito, told apart with any kind of colour vision; the crate's rows are thick
STYLES = {
    "crate cpu keep": ("#0072b2", "this crate, keep"),
    "crate cpu recompute": ("#56b4e9", "this crate, recompute"),
    "numpy": ("#8c6e50", "numpy"),
    "torch": ("#d55e00", "PyTorch eager"),
    "torch-compile": ("#e69f00", "torch.compile"),
    "jax": ("#009e73", "JAX"),
    "burn flex": ("#cc79a7", "burn flex"),
}
OTHERS = ["#333333", "#946ac8", "#777777", "#b03060"]


def read(name):
    path = BENCHES / "results" / name
    if path.exists():
        return json.loads(path.read_text())
    print(f"no {path.relative_to(BENCHES.parent)}: its charts stay as they are")
    return []


def plain(value, _=None):
    """1000 as 1k, and no exponents."""
    for size, unit in (1e9, "G"), (1e6, "M"), (1e3, "k"):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def over_classes(rows, value, title, label, unit):
    """One line per peer over the number of classes, both axes logarithmic, named at its right end."""
    figure, axes = plt.subplots(figsize=(8.2, 5), layout="constrained")
    axes.set(xscale="log", yscale="log", title=title, xlabel="classes C", ylabel=label)
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
    axes.set_xticks(classes, [plain(c) if c % 1024 else f"{c // 1024}k" for c in classes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.03)

    # labels keep a line's height between them, in the order of the lines' ends
    figure.canvas.draw()
    (low, high), gap = axes.get_ylim(), 0.052
    place = lambda y: float(axes.transAxes.inverted().transform(axes.transData.transform((classes[-1], y)))[1])
    ends.sort(key=lambda end: end[0][1])
    heights = [place(end[0][1]) for end in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    if heights and heights[-1] > 1:
        heights[-1] = 1.0
        for i in reversed(range(len(heights) - 1)):
            heights[i] = min(heights[i], heights[i + 1] - gap)
    for height, (_, colour, text, own) in zip(heights, ends):
        axes.annotate(text, (1.015, height), xycoords="axes fraction", va="center", color=colour,
                      weight="bold" if own else "normal", annotation_clip=False)
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


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--png", type=pathlib.Path, help="a folder for PNGs of the same")
    png = arguments.parse_args().png
    figures = {}
    if sweep := read("sweep.json"):
        n, _, d = sweep[0]["shape"].split("x")
        setting = f"N = {n}, D = {d}, {sweep[0]['threads']} threads"
        figures["time_over_classes"] = over_classes(
            sweep, lambda r: r["best_ms"], f"ArcFace, forward + backward ({setting})", "best ms", "ms"
        )
        figures["workspace_over_classes"] = over_classes(
            sweep, lambda r: r["workspace_bytes"] / 1e6, f"Workspace beyond inputs and gradients ({setting})", "MB", "MB"
        )
    if losses := read("losses.json"):
        figures["time_per_loss"] = per_loss(losses)
    (BENCHES / "charts").mkdir(exist_ok=True)
    for name, figure in figures.items():
        path = BENCHES / "charts" / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        print(path.relative_to(BENCHES.parent))
        if png:
            figure.savefig(png / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
