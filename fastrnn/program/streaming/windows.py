"""Rules of operators that look at steps beside each other: convolutions, pools, frames.

What a window looks back at is kept as a tail. A window that looks ahead gives its results later.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastrnn.graph import Node, Value
from fastrnn.program.axes import for_each
from fastrnn.program.streaming.follow import Followed, Rows, arrays_of, follows
from fastrnn.program.streaming.places import Place, changed_axis


class Window(NamedTuple):
    """A node whose results each come from steps beside each other.

    Attributes
    ----------
    node : Node
        Without padding of steps.
    source, argument : str
        The value that has the steps, and which argument it is.
    place : Place
        Where the results' steps are.
    span, stride : int
        From the first step of a window to its last one, both counted; from one window to the next.
    before, after : int
        Steps of padding.
    padding : float
        What they hold.
    """

    node: Node
    source: str
    argument: str
    place: Place
    span: int
    stride: int = 1
    before: int = 0
    after: int = 0
    padding: float = 0.0

    @property
    def ahead(self) -> int:
        return self.after

    def build(self, chunk: Any) -> None:
        name = self.node.outputs[0]
        key = f"{name}.tail"
        given = chunk.queue(key, self.source, self.before, self.after, self.padding, alone=True)
        skipped = min(chunk.number(f"{name}.skip"), given.steps)
        there = given.steps - skipped
        steps = max((there - self.span) // self.stride + 1, 0) if there >= self.span else 0
        first = steps * self.stride
        chunk.keep(key, given, skipped + min(first, there))
        chunk.set_number(f"{name}.skip", chunk.number(f"{name}.skip") - skipped + max(first - there, 0))
        end = skipped + first - self.stride + self.span
        used = chunk.part(given, skipped, end) if steps else chunk.part(given, 0, 0)
        chunk.give(name, self.place, steps, self.node, [used], [self.argument])


class Transposed(NamedTuple):
    """A transposed convolution or a fold along the steps. Each step of its results comes from several steps.

    Attributes
    ----------
    node : Node
        Without padding of steps.
    source : str
    axis : int
        Of the positions that are steps, counted from the first axis of positions.
    place : Place
    span, stride : int
        How many results one step has a share in; from the first of these to that of the next step.
    before : int
        How many results are left out before the first one.
    after : int
        How many results there are after those of the last step, beside its span. Negative: left out.
    argument : str
        The one that has the steps.
    """

    node: Node
    source: str
    axis: int
    place: Place
    span: int
    stride: int
    before: int
    after: int
    argument: str = "input"

    @property
    def ahead(self) -> int:
        return max(self.stride - self.span - self.after, 0)

    def build(self, chunk: Any) -> None:
        name = self.node.outputs[0]
        key = f"{name}.tail"
        given = chunk.queue(key, self.source, alone=True)
        # The next result, and how many are certain, counted from the first result of the first step here.
        following = chunk.number(f"{name}.next", self.before)
        whole = (given.steps - 1) * self.stride + self.span + self.after
        end = max(whole if chunk.is_last else min(given.steps * self.stride, whole), following)
        # Steps go that have no share in what follows. The next result, and those after the last step, stay
        # among those of steps that are here.
        most = given.steps - 1 if self.span + self.after > self.stride else given.steps
        gone = max(min(-(-(end - self.span + 1) // self.stride), end // self.stride, most), 0)
        made = self.node._replace(arguments=self._sized((given.steps - 1) * self.stride + self.span, end))
        chunk.give(name, self.place, end - following, made, [given], [self.argument], (following, end))
        chunk.keep(key, given, gone)
        chunk.set_number(f"{name}.next", end - gone * self.stride)

    def _sized(self, own: int, wanted: int) -> dict[str, Any]:
        """The arguments for as many results as are wanted, where the steps' own are fewer."""
        name = "output_size" if self.node.operator == "col2im" else "output_padding"
        sizes = list(self.node.arguments[name])
        sizes[self.axis] = max(own, wanted) if name == "output_size" else max(wanted - own, 0)
        return {**self.node.arguments, name: tuple(sizes)}


# ---------------------------------------------------------------- convolutions and pools


def _source(f: Followed, node: Node, argument: Any, axes: int) -> tuple[Place, int]:
    """The place of the steps, and which axis of positions it is; negative if it is none of these."""
    place = f.place(argument)
    others = [name for name in arrays_of(node) if name != argument.name and name in f.places]
    if place is None or others:
        f.refuse(node, f"{node.operator} with a weight for each step")
    first = len(f.shape(argument)) - axes
    position = place.axis - first
    if position < 0 and (first == 1 or place.axis == 1):
        f.refuse(node, f"{node.operator} with {f.steps_word} as channels")
    if position >= 0 and (place.is_same or place.before > 1):
        f.refuse(node, f"{node.operator} over an axis in which there is more than steps")
    return place, position


CONVOLUTIONS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution",
    "_convolution",
)  # fmt: skip


@follows(*CONVOLUTIONS)
def convolution(f: Followed, node: Node) -> Any:
    given, weight = node.arguments["input"], node.arguments["weight"]
    axes = len(f.shape(weight)) - 2
    place, position = _source(f, node, given, axes)
    if position < 0:
        return f.rows(f.fixed(node), [place])
    is_transposed = "transpose" in node.operator or bool(node.arguments.get("transposed", False))
    taps = f.shape(weight)[2:]
    stride, dilation = (for_each(f.number(node, name, 1), axes) for name in ("stride", "dilation"))
    span = (taps[position] - 1) * dilation[position] + 1
    padding = f.number(node, "padding", 0)
    changes: dict[str, Any] = {}
    if padding == "same":
        total = (span - 1) if not is_transposed else 0
        before, after = total // 2, total - total // 2
        others = tuple((d * (k - 1)) // 2 for d, k in zip(dilation, taps, strict=True))
        if any(d * (k - 1) % 2 for i, (d, k) in enumerate(zip(dilation, taps, strict=True)) if i != position):
            f.refuse(node, "a convolution whose other axes are padded unevenly")
    else:
        others = for_each(0 if padding == "valid" else padding, axes)
        before = after = others[position]
    changes["padding"] = tuple(0 if i == position else size for i, size in enumerate(others))
    out = place.at(place.axis)
    if is_transposed:
        more = for_each(f.number(node, "output_padding", 0), axes)
        if span == stride[position] == 1 and before == more[position] == 0:
            return f.rows(f.fixed(node), [out])
        changes["output_padding"] = more
        made = f.fixed(node, **changes)
        out = Place(place.axis)
        made_of = f.there(given.name, alone=True)
        step, after = stride[position], more[position] - before
        count = min(made_of * step, (made_of - 1) * step + span + after) - before
        f.put(node.outputs[0], out, given.name, count)  # type: ignore[arg-type]
        return Transposed(made, given.name, position, out, span, step, before, after)
    if span == stride[position] == 1 and before == after == 0:
        return f.rows(f.fixed(node), [out])
    return _window(f, f.fixed(node, **changes), "input", span, stride[position], before, after)


def _window(
    f: Followed, node: Node, argument: str, span: int, stride: int, before: int = 0, after: int = 0,
    padding: float = 0.0, out: Place | None = None,
) -> Window:  # fmt: skip
    source = node.arguments[argument].name
    out = Place(f.places[source].axis) if out is None else out
    count = (f.there(source, alone=True) + before - span) // stride + 1
    f.put(node.outputs[0], out, source, count, stride == 1)  # type: ignore[arg-type]
    return Window(node, source, argument, out, span, stride, before, after, padding)


POOLS = (
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices",
)  # fmt: skip


@follows(*POOLS)
def pool(f: Followed, node: Node) -> Any:
    given = node.arguments["self"]
    axes = int(node.operator.split("pool")[1][0])
    place, position = _source(f, node, given, axes)
    if position < 0:
        return f.rows(f.fixed(node), [place] * len(node.outputs))
    taps = for_each(f.number(node, "kernel_size"), axes)
    stride = for_each(f.number(node, "stride", None) or taps, axes)
    padding, dilation = (
        for_each(f.number(node, name, default), axes) for name, default in (("padding", 0), ("dilation", 1))
    )
    size = padding[position]
    span = (taps[position] - 1) * dilation[position] + 1
    if span == stride[position] == 1 and not size:
        return f.rows(f.fixed(node), [place] * len(node.outputs))
    is_average = node.operator.startswith("avg")
    if node.arguments.get("ceil_mode", False):
        f.refuse(node, f"{node.operator} over time with ceil_mode")
    if len(node.outputs) > 1 and node.outputs[1] is not None:
        f.refuse(node, f"the indices of {node.operator} over time")
    if is_average and size and not node.arguments.get("count_include_pad", True):
        f.refuse(node, f"{node.operator} that counts steps at the ends of the sequence")
    changes = {"padding": tuple(0 if i == position else p for i, p in enumerate(padding)), "stride": stride}
    least = 0.0 if is_average else float("-inf")
    made = f.fixed(node, **changes)
    return _window(f, made, "self", span, stride[position], size, size, least)


@follows("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_pool(f: Followed, node: Node) -> Rows:
    axes = int(node.operator.split("pool")[1][0])
    place, position = _source(f, node, node.arguments["self"], axes)
    if position >= 0:
        f.refuse(node, f"{node.operator} over time")
    return f.rows(f.fixed(node), [place] * len(node.outputs))


@follows("unfold", "unfold_copy")
def unfold(f: Followed, node: Node) -> Any:
    given = node.arguments["self"]
    place = f.place(given)
    assert place is not None
    axis = f.number(node, "dimension") % len(f.shape(given))
    if axis != place.axis:
        return f.rows(f.fixed(node), [place])
    if place.is_same or place.before > 1:
        f.refuse(node, "unfold over an axis in which there is more than steps")
    return _window(f, f.fixed(node), "self", f.number(node, "size"), f.number(node, "step"))


@follows("im2col")
def im2col(f: Followed, node: Node) -> Any:
    given = node.arguments["self"]
    place, position = _source(f, node, given, 2)
    if position < 0:
        return f.rows(f.fixed(node), [place])
    taps, gaps, pads, moves = (
        for_each(f.number(node, name), 2) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    other = 1 - position
    size = f.shape(given)[place.axis - position + other] + 2 * pads[other]
    count = (size - gaps[other] * (taps[other] - 1) - 1) // moves[other] + 1
    axis = len(f.shape(given)) - 2
    out = Place(axis, 1, count) if position == 0 else Place(axis, count, 1)
    span = (taps[position] - 1) * gaps[position] + 1
    if span == moves[position] == 1 and not pads[position] and place.is_alone:
        return f.rows(f.fixed(node), [out])
    changes = {"padding": tuple(0 if i == position else p for i, p in enumerate(pads))}
    made = f.fixed(node, **changes)
    return _window(f, made, "self", span, moves[position], pads[position], pads[position], out=out)


@follows("col2im")
def col2im(f: Followed, node: Node) -> Any:
    given, result = node.arguments["self"], node.outputs[0]
    place, shape = f.place(given), f.shape(given)
    assert result is not None
    if place is None:
        f.refuse(node, f"col2im with a number that depends on {f.length}")
    if place.axis < len(shape) - 2:
        return f.rows(f.fixed(node), [place])
    axis = changed_axis(*f.shapes(result))
    if axis is None or place.axis != len(shape) - 1 or not place.is_alone or place.is_same:
        f.refuse(node, "col2im over an axis in which there is more than steps")
    position = axis - (len(f.shape(Value(result))) - 2)
    taps, gaps, pads, moves = (
        for_each(f.number(node, name), 2) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    span, stride, before = (taps[position] - 1) * gaps[position] + 1, moves[position], pads[position]
    sizes = f.shape(Value(result))
    own = (shape[-1] - 1) * stride + span
    after = sizes[axis] + before - own
    there = f.there(given.name)
    count = min(there * stride, (there - 1) * stride + span + after) - before
    padding = tuple(0 if i == position else p for i, p in enumerate(pads))
    made = f.fixed(node, output_size=tuple(sizes[-2:]), padding=padding)
    out = Place(axis)
    f.put(result, out, given.name, count)
    return Transposed(made, given.name, position, out, span, stride, before, after, "self")


@follows("stft")
def stft(f: Followed, node: Node) -> Any:
    given = node.arguments["self"]
    place, ndim = f.place(given), len(f.shape(given))
    if place is None or f.place(node.arguments.get("window")) is not None:
        f.refuse(node, "stft with a window for each step")
    if place.axis != ndim - 1:
        return f.rows(f.fixed(node), [place])
    if place.is_same or place.before > 1 or node.arguments.get("center", False):
        f.refuse(node, "stft over time with center=True, which reflects the ends of the sequence")
    size = f.number(node, "n_fft")
    hop = f.number(node, "hop_length") or size // 4
    return _window(f, f.fixed(node), "self", size, hop, out=Place(ndim))
