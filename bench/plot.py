"""A result as two pictures: time per step over hidden size, and the roofline with our cases on it."""

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.cases import KINDS
from fastrnn.benchmark.table import duration

# Okabe and Ito's colours, which colour-blind readers can tell apart. Every line has its own marker too.
ENGINES = {
    "fastrnn": ("fastrnn", "#D55E00", "o"),
    "onnxruntime": ("ONNX Runtime", "#009E73", "s"),
    "openvino": ("OpenVINO", "#0072B2", "^"),
    "torch": ("PyTorch", "#CC79A7", "D"),
}
WORKS = {
    "one step": ("#D55E00", "o"),
    "100 steps, 1 row": ("#009E73", "^"),
    "8 rows": ("#CC79A7", "D"),
    "32 rows and more": ("#0072B2", "s"),
}
# Labels stay legible where they cross a line.
HALO = [withStroke(linewidth=2.5, foreground="white")]
INK, SOFT, GRID = "#222222", "#767676", "#E4E4E4"
STYLE = {
    "font.size": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "fastrnn",  # the same picture gives the same file
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def plot(result, folder):
    """Draw a result as steps and roofline, each as .svg and .png. Returns their paths.

    A picture that the result has no figures for is left out: steps without single steps, the roofline
    without the machine's limits.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, draw in (("steps", steps_figure), ("roofline", roofline_figure)):
            figure = draw(result)
            if figure is None:
                continue
            for ending, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
                path = Path(folder, f"{name}.{ending}")
                figure.savefig(path, bbox_inches="tight", pad_inches=0.15, **options)
                paths.append(path)
    return paths


# ---------------------------------------------------------------- time per step


def steps_figure(result):
    """A panel for each kind of layer: the time of a step over the hidden size, a line for each engine."""
    entries = [entry for entry in result["cases"] if entry["mode"] == "step" and entry["B"] == 1]
    kinds = [kind for kind in KINDS if any(entry["kind"] == kind for entry in entries)]
    if not kinds:
        return None
    figure, panels = _panels(len(kinds))
    for panel, kind in zip(panels, kinds, strict=True):
        chosen = sorted((e for e in entries if e["kind"] == kind), key=lambda e: e["hidden_size"])
        for name, (label, color, marker) in reversed(ENGINES.items()):
            _engine_line(panel, chosen, name, label, color, marker)
        for entry in chosen:
            if entry["peer_ratio"]:
                at = (entry["hidden_size"], entry["engines"]["fastrnn"]["microseconds"])
                text = f"{entry['peer_ratio']:.1f}x"
                _note(panel, text, at, (0, -8), color=ENGINES["fastrnn"][1], ha="center", va="top")
        panel.set_title(kind, loc="left")
        panel.set_xlabel("hidden size = input size")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        sizes = [entry["hidden_size"] for entry in chosen]
        panel.xaxis.set_major_locator(FixedLocator(sizes))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:.0f}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda us, _: _round_duration(us)))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.margins(x=0.07)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low / 1.7, high)  # room for the ratios under the lowest line
    panels[0].set_ylabel("time of one step of one sequence")
    versions = result["engines"]
    handles, labels = panels[0].get_legend_handles_labels()
    names = {label: f"{label} {versions[name]}" for name, (label, *_) in ENGINES.items() if name in versions}
    _legend(figure, handles[::-1], [names[label] for label in labels[::-1]])
    _caption(figure, result, "Medians, lower is better. Numbers: speed-up over the fastest other engine")
    return figure


def _engine_line(panel, entries, name, label, color, marker):
    points = [
        (entry["hidden_size"], entry["engines"][name]["microseconds"])
        for entry in entries
        if "microseconds" in entry["engines"].get(name, {})
    ]
    if not points:
        return
    is_ours = name == "fastrnn"
    panel.plot(
        *zip(*points, strict=True),
        color=color,
        marker=marker,
        label=label,
        linewidth=2.6 if is_ours else 1.5,
        markersize=6.5 if is_ours else 4.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=4 if is_ours else 3,
    )


def _round_duration(microseconds):
    number, unit = duration(microseconds).split()
    return f"{float(number):g} {unit.replace('us', 'µs')}"


# ---------------------------------------------------------------- roofline


def roofline_figure(result):
    """A panel for each kind of layer: operations per second over operations per byte, under the roofs."""
    limits = result["limits"]
    entries = [e for e in result["cases"] if e["against"] == "peers" and e["precision"] == "float32"]
    kinds = [kind for kind in KINDS if any(entry["kind"] == kind for entry in entries)]
    if limits is None or not kinds or result["threads"] > 1:
        return None
    figure, panels = _panels(len(kinds), height=5.4)
    peak = limits["gflops"]["float32"]
    points = [(e["flops"] / e["bytes"], e["gflops"]) for e in entries]
    right = 2.5 * max(peak / limits["bandwidth"][-1][1], *(x for x, _ in points))
    left, bottom = 0.125, min(y for _, y in points) / 1.6
    for panel, kind in zip(panels, kinds, strict=True):
        _roofs(panel, limits, left, right, bottom)
        for work, (color, marker) in WORKS.items():
            chosen = [e for e in entries if e["kind"] == kind and _work_of(e) == work]
            if chosen:
                _points(panel, chosen, work, color, marker)
        panel.set_title(kind, loc="left")
        panel.set_xlabel("operations per byte read or written")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xlim(left, right)
        panel.set_ylim(bottom, 1.5 * peak)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].set_ylabel("GFLOP/s")
    handles, labels = panels[0].get_legend_handles_labels()
    _legend(figure, handles, labels)
    words = "Higher is better. Grey lines: limits of the core. Labels: hidden sizes"
    _caption(figure, result, words)
    return figure


def _work_of(entry):
    if entry["mode"] == "step":
        return "one step"
    return "100 steps, 1 row" if entry["B"] == 1 else "8 rows" if entry["B"] < 32 else "32 rows and more"


def _roofs(panel, limits, left, right, bottom):
    """Draw the multiply-add peak, and below it a line for each level of the memory."""
    peak = limits["gflops"]["float32"]
    panel.plot([left, right], [peak, peak], color=SOFT, linewidth=1.6, zorder=2)
    _note(
        panel, f"multiply-add {peak:.0f} GFLOP/s", (right, peak), (-3, 4), color=SOFT, ha="right", va="bottom"
    )
    for level, speed in _levels(limits):
        edge = peak / speed
        x = np.array([left, min(edge, right)])
        panel.plot(x, x * speed, color=SOFT, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
        start = 1.12 * max(left, bottom / speed)  # where the line enters the panel
        panel.text(
            start,
            start * speed * 1.04,
            f"{level} {speed:.0f} GB/s",
            color=SOFT,
            fontsize=8,
            va="bottom",
            rotation=np.degrees(np.arctan(speed)),  # the slope of the line, in the units of the axes
            rotation_mode="anchor",
            transform_rotates_text=True,
            zorder=2,
        )


def _levels(limits):
    """Each level of the memory and its bandwidth, for a working set half as large as the level."""
    curve = dict(limits["bandwidth"])
    caches = limits["caches"] or {"L1": 2**15, "L2": 2**19, "L3": 2**24}
    for level, size in caches.items():
        half = 2 ** int(np.log2(size / 2) + 0.5)
        if half in curve:
            yield level, curve[half]
    yield "memory", curve[max(curve)]


def _points(panel, entries, work, color, marker):
    xs = [entry["flops"] / entry["bytes"] for entry in entries]
    ys = [entry["gflops"] for entry in entries]
    panel.scatter(
        xs, ys, s=42, color=color, marker=marker, label=work, edgecolors="white", linewidths=0.8, zorder=4
    )
    # Points of one kind of work lie above each other, so their labels are pushed apart.
    heights = _spread([np.log2(y) for y in ys], 0.21)
    for entry, x, y, height in zip(entries, xs, ys, heights, strict=True):
        panel.annotate(
            _size_label(entry),
            (x, y),
            (1.27 * max(xs) if max(xs) < 2 * x else 1.27 * x, 2**height),
            fontsize=8,
            va="center",
            path_effects=HALO,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
            zorder=5,
        )


def _size_label(entry):
    stack = f"{entry['num_layers']} x " if entry["num_layers"] > 1 else ""
    return f"{stack}{entry['hidden_size']}{' both ways' if entry['bidirectional'] else ''}"


def _spread(heights, gap):
    """Heights in the same order, moved apart until each is at least a gap above the one below."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, float)
    for _ in range(50):
        for low, high in pairwise(order):
            lack = gap - (placed[high] - placed[low])
            if lack > 0:
                placed[low] -= lack / 2
                placed[high] += lack / 2
    return placed


# ---------------------------------------------------------------- shared by both


def _panels(count, height=4.6):
    figure = Figure(figsize=(4.2 * count, height), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for panel in panels:
        panel.grid(color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _note(panel, text, at, offset, **options):
    panel.annotate(
        text, at, offset, textcoords="offset points", fontsize=8, zorder=5, path_effects=HALO, **options
    )


def _legend(figure, handles, labels):
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)


def _caption(figure, result, words):
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    figure.supxlabel(
        f"{words}.  {result['processor']}, {threads}, float32.", fontsize=8.5, color=SOFT, x=0.01, ha="left"
    )
