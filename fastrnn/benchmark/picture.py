"""Time against error as a picture: characters for a terminal, and SVG."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from string import ascii_uppercase, digits
from typing import Any

from fastrnn.benchmark.table import duration

Points = Sequence[Mapping[str, Any]]

MARKS = digits[1:] + ascii_uppercase
COLUMNS, ROWS = 50, 12
# Errors below are drawn there: a logarithm has no 0.
SMALLEST_ERROR = 1e-9

# The SVG: the size of a panel, the room around it, and a colour for each engine, as in the house's plots.
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 300, 80, 46, 54
COLORS = {"fastrnn": "#D55E00", "onnxruntime": "#009E73", "openvino": "#0072B2", "torch": "#CC79A7"}
INK, SOFT, GRID = "#222222", "#767676", "#E4E4E4"


def marks_of(points: Points) -> str:
    """A character for each point."""
    return (MARKS * (1 + len(points) // len(MARKS)))[: len(points)]


class Axis:
    """A logarithmic axis from one number to another, with room at both ends."""

    def __init__(self, values: Sequence[float]) -> None:
        logs = [math.log10(value) for value in values]
        room = max(0.05 * (max(logs) - min(logs)), 0.02)
        self.low, self.high = min(logs) - room, max(logs) + room

    def place(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        return (math.log10(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers on the axis: powers of 10. With fewer than two of them also 2 and 5 times those."""
        for steps in ((1,), (1, 2, 5)):
            exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
            values = [step * 10.0**exponent for exponent in exponents for step in steps]
            inside = [value for value in values if 0 <= self.place(value) <= 1]
            if len(inside) > 1:
                break
        return inside


def _axes(points: Points) -> tuple[Axis, Axis]:
    times = Axis([point["microseconds"] for point in points])
    return times, Axis([_error(point) for point in points])


def _error(point: Mapping[str, Any]) -> float:
    return max(float(point["error"]), SMALLEST_ERROR)


# ---------------------------------------------------------------- characters


def scatter(points: Points) -> Iterator[str]:
    """Lines of characters: time to the right, error upwards, and a mark for each point. 60 columns wide.

    Where several points fall on one place, "*" stands for them.
    """
    times, errors = _axes(points)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for mark, point in zip(marks_of(points), points, strict=True):
        row = ROWS - 1 - round(errors.place(_error(point)) * (ROWS - 1))
        column = round(times.place(point["microseconds"]) * (COLUMNS - 1))
        grid[row][column] = mark if grid[row][column] == " " else "*"
    labels = {ROWS - 1 - round(errors.place(tick) * (ROWS - 1)): f"{tick:.0e}" for tick in errors.ticks()}
    yield "error"
    for index, line in enumerate(grid):
        yield f"{labels.get(index, ''):>6} |{''.join(line)}".rstrip()
    yield f"{'':6} +{'-' * COLUMNS}"
    below = [" "] * (COLUMNS + 2)
    for tick in times.ticks():
        text, begin = f"{duration(tick)}", round(times.place(tick) * (COLUMNS - 1))
        begin = min(begin, len(below) - len(text))
        if "".join(below[max(0, begin - 1) : begin + len(text) + 1]).strip() == "":
            below[begin : begin + len(text)] = text
    yield f"{'':8}{''.join(below)}".rstrip()


# ---------------------------------------------------------------- SVG


def svg(result: Mapping[str, Any]) -> str:
    """The result of `bench_precisions` as an SVG: a panel for each work."""
    panels = [
        (work["name"], [point for point in work["points"] if "microseconds" in point])
        for work in result["works"]
    ]
    panel_height = TOP + HEIGHT + BOTTOM
    width, height = LEFT + WIDTH + 150, 34 + len(panels) * panel_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(LEFT, 22, f"{result['processor']}, one thread each. Lower left is better.", SOFT),
    ]
    for index, (name, points) in enumerate(panels):
        parts.append(f'<g transform="translate({LEFT} {34 + index * panel_height + TOP})">')
        parts += _panel(name, points)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, points: Points) -> Iterator[str]:
    times, errors = _axes(points)
    yield _text(0, -16, name, INK, "font-weight='bold' font-size='14'")
    for tick in errors.ticks():
        y = HEIGHT * (1 - errors.place(tick))
        yield f'<line x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
        yield _text(-8, y + 4, f"{tick:.0e}", INK, "text-anchor='end'")
    for tick in times.ticks():
        x = WIDTH * times.place(tick)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="{GRID}"/>'
        yield _text(x, HEIGHT + 18, duration(tick), INK, "text-anchor='middle'")
    yield f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="{SOFT}"/>'
    yield _text(WIDTH / 2, HEIGHT + 38, "time", SOFT, "text-anchor='middle'")
    yield _text(-8, -16, "largest error", SOFT, "text-anchor='end'")
    taken: list[tuple[float, float]] = []
    for point in points:
        x, y = WIDTH * times.place(point["microseconds"]), HEIGHT * (1 - errors.place(_error(point)))
        color = COLORS.get(point["engine"], SOFT)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"/>'
        below = y + 4
        while any(abs(x - other) < 150 and abs(below - line) < 13 for other, line in taken):
            below += 13
        taken.append((x, below))
        yield _text(x + 9, below, f"{point['engine']} {point['precision']}", color)


def _text(x: float, y: float, text: str, color: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" {more}>{escape(text)}</text>'
