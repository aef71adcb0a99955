"""Operators of shapes: views wherever no element has to move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.program.axes import axis_of, listed, moved, slice_bounds, swapped
from fastrnn.program.lowering import lowers
from fastrnn.program.types import result_type
from fastrnn.program.views import Padded, StepNumber, View

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner


def reshaped(planner: Planner, value: Any, shape: Sequence[int]) -> View:
    """A value in another shape, in which one size may be -1."""
    view = planner.view(value)
    shape = list(shape)
    if -1 in shape:
        known = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = view.size // known if known else 0
    if math.prod(shape) != view.size:
        raise planner.error(f"{view.size} elements, those of shape {view.shape}", f"shape {tuple(shape)}")
    result = view.reshape(shape) or planner.contiguous(view).reshape(shape)
    assert result is not None
    return result


@lowers("view", "reshape", "_unsafe_view", "_reshape_alias")
def reshape(planner: Planner, self: Any, shape: Any = None, size: Any = None, **_: Any) -> Any:
    size = shape if size is None else size
    if not isinstance(size, tuple) or any(isinstance(n, StepNumber) for n in size):
        return NotImplemented  # a view as another type
    return reshaped(planner, self, size)


@lowers("view_as", "reshape_as")
def reshape_as(planner: Planner, self: Any, other: Any) -> Any:
    return reshaped(planner, self, other.shape)


@lowers("flatten")
def flatten(planner: Planner, self: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    if self.ndim == 0:
        return reshaped(planner, self, (1,))
    start, end = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
    shape = self.shape
    return reshaped(planner, self, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@lowers("ravel")
def ravel(planner: Planner, self: Any) -> Any:
    return reshaped(planner, self, (self.size,))


@lowers("unflatten")
def unflatten(planner: Planner, self: Any, dim: int, sizes: Any) -> Any:
    axis = axis_of(dim, self.ndim)
    sizes = list(sizes)
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = self.shape[axis] // known
    return reshaped(planner, self, (*self.shape[:axis], *sizes, *self.shape[axis + 1 :]))


@lowers("permute")
def permute(planner: Planner, self: Any, dims: Any) -> Any:
    return planner.view(self).permute([axis_of(dim, self.ndim) for dim in dims])


@lowers("transpose", "swapaxes", "swapdims")
def transpose(
    planner: Planner, self: Any, dim0: int = 0, dim1: int = 0, axis0: Any = None, axis1: Any = None
) -> Any:
    first, second = dim0 if axis0 is None else axis0, dim1 if axis1 is None else axis1
    return planner.view(self).permute(swapped(self.ndim, first, second))


@lowers("t", "numpy_T", "mT")
def turned(planner: Planner, self: Any) -> Any:
    axes = list(range(self.ndim))
    if planner.operator == "mT":
        axes[-1], axes[-2] = axes[-2], axes[-1]
    else:
        axes.reverse()
    return planner.view(self).permute(axes)


@lowers("movedim", "moveaxis")
def movedim(planner: Planner, self: Any, source: Any, destination: Any) -> Any:
    return planner.view(self).permute(moved(self.ndim, source, destination))


@lowers("squeeze")
def squeeze(planner: Planner, self: Any, dim: Any = None) -> Any:
    view = planner.view(self)
    axes = range(view.ndim) if dim is None else [axis_of(d, view.ndim) for d in listed(dim)]
    kept = [axis for axis in range(view.ndim) if axis not in axes or view.shape[axis] != 1]
    return view.replace(
        shape=tuple(view.shape[axis] for axis in kept), strides=tuple(view.strides[axis] for axis in kept)
    )


@lowers("unsqueeze")
def unsqueeze(planner: Planner, self: Any, dim: int) -> Any:
    return planner.view(self).unsqueeze(dim % (self.ndim + 1))


@lowers("expand", "broadcast_to")
def expand(planner: Planner, self: Any, size: Any, implicit: bool = False) -> Any:
    more = len(size) - self.ndim
    shape = [
        own if wanted == -1 else wanted for wanted, own in zip(size, (*[1] * more, *self.shape), strict=True)
    ]
    return planner.view(self).expand(shape)


@lowers("expand_as")
def expand_as(planner: Planner, self: Any, other: Any) -> Any:
    return planner.view(self).expand(other.shape)


@lowers("select")
def select(planner: Planner, self: Any, dim: int, index: Any) -> Any:
    axis = axis_of(dim, self.ndim)
    if isinstance(index, int) and not -self.shape[axis] <= index < self.shape[axis]:
        raise planner.error(f"an index of an axis of size {self.shape[axis]}", f"{index}")
    return planner.view(self).select(axis, index)


@lowers("slice")
def slice_(
    planner: Planner, self: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    axis = axis_of(dim, self.ndim)
    size = self.shape[axis]
    if isinstance(start, StepNumber) or isinstance(end, StepNumber):
        if (
            not (isinstance(start, StepNumber) and isinstance(end, StepNumber))
            or start.slope != end.slope
            or step != 1
        ):
            return NotImplemented
        return planner.view(self).slice(axis, start, end.first - start.first)
    start, end = slice_bounds(start, end, size)
    return planner.view(self).slice(axis, start, -(-(end - start) // step), step)


@lowers("narrow")
def narrow(planner: Planner, self: Any, dim: int, start: Any, length: Any) -> Any:
    if not isinstance(start, (int, StepNumber)) or not isinstance(length, int):
        return NotImplemented
    axis = axis_of(dim, self.ndim)
    if isinstance(start, int) and start < 0:
        start += self.shape[axis]
    return planner.view(self).slice(axis, start, length)


@lowers("chunk")
def chunk(planner: Planner, self: Any, chunks: int, dim: int = 0) -> Any:
    axis = axis_of(dim, self.ndim)
    return split(planner, self, max(1, -(-self.shape[axis] // chunks)), dim)


@lowers("split", "split_with_sizes")
def split(planner: Planner, self: Any, split_size: Any = None, dim: int = 0, split_sizes: Any = None) -> Any:
    view = planner.view(self)
    axis = axis_of(dim, view.ndim)
    total = view.shape[axis]
    sizes = split_size if split_sizes is None else split_sizes
    if not isinstance(sizes, tuple):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    parts, start = [], 0
    for size in sizes:
        parts.append(view.slice(axis, start, size))
        start += size
    return parts


@lowers("unbind")
def unbind(planner: Planner, self: Any, dim: int = 0) -> Any:
    view = planner.view(self)
    axis = axis_of(dim, view.ndim)
    return [view.select(axis, index) for index in range(view.shape[axis])]


@lowers("flip")
def flip(planner: Planner, self: Any, dims: Any) -> Any:
    view = planner.view(self)
    for dim in dims:
        view = view.flip(axis_of(dim, view.ndim))
    return view


@lowers("unfold")
def unfold(planner: Planner, self: Any, dimension: int, size: int, step: int) -> Any:
    view = planner.view(self)
    if view.ndim == 0:
        return NotImplemented
    axis = axis_of(dimension, view.ndim)
    count = (view.shape[axis] - size) // step + 1
    if count < 1:
        raise planner.error(f"at least {size} elements", f"{view.shape[axis]}")
    stride = view.strides[axis]
    return view.replace(
        shape=(*view.shape[:axis], count, *view.shape[axis + 1 :], size),
        strides=(*view.strides[:axis], stride * step, *view.strides[axis + 1 :], stride),
    )


@lowers("detach", "alias", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh", "positive")
def same(planner: Planner, self: Any = None, input: Any = None, p: float = 0.5, train: bool = False) -> Any:
    return NotImplemented if train else self if input is None else input


@lowers("contiguous", "clone")
def contiguous(planner: Planner, self: Any, memory_format: Any = None) -> Any:
    return self  # no operator can tell where elements lie


@lowers("resolve_conj", "resolve_neg")
def resolved(planner: Planner, self: Any) -> Any:
    return self


# ---------------------------------------------------------------- what copies


@lowers("cat", "concat", "concatenate")
def cat(planner: Planner, tensors: Any, dim: int = 0) -> Any:
    views = [planner.view(tensor) for tensor in tensors]
    views = [view for view in views if view.shape != (0,)] or views[:1]
    dtype = result_type(views)
    if len(views) == 1 and views[0].dtype == dtype:
        return views[0]
    axis = axis_of(dim, views[0].ndim)
    shape = list(views[0].shape)
    shape[axis] = sum(view.shape[axis] for view in views)
    if any((*v.shape[:axis], *v.shape[axis + 1 :]) != (*shape[:axis], *shape[axis + 1 :]) for v in views):
        raise planner.error(
            f"arrays that agree but for axis {axis}", " and ".join(str(v.shape) for v in views)
        )
    target = planner.new(dtype, shape, _layout(views))
    start = 0
    for view in views:
        size = view.shape[axis]
        planner.copy(view, target.slice(axis, start, size))
        start += size
    return target


@lowers("stack")
def stack(planner: Planner, tensors: Any, dim: int = 0) -> Any:
    views = [planner.view(tensor) for tensor in tensors]
    axis = dim % (views[0].ndim + 1)
    if any(view.shape != views[0].shape for view in views):
        raise planner.error("arrays of one shape", " and ".join(str(view.shape) for view in views))
    return cat(planner, tuple(view.unsqueeze(axis) for view in views), axis)


def _layout(views: Sequence[View]) -> list[int]:
    """The order of axes in memory of the largest view."""
    view = max(views, key=lambda view: view.size)
    return sorted(range(view.ndim), key=lambda axis: -abs(view.strides[axis]))


@lowers("constant_pad_nd", "pad")
def constant_pad(planner: Planner, self: Any, pad: Any, mode: str = "constant", value: Any = 0) -> Any:
    if mode != "constant":
        return padded_otherwise(planner, self, pad, mode)
    view = planner.view(self)
    value = 0 if value is None else value
    shape = list(view.shape)
    starts = [0] * view.ndim
    for i in range(len(pad) // 2):
        axis = view.ndim - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before < 0:
            view = view.slice(axis, -before, view.shape[axis] + before)
        if after < 0:
            view = view.slice(axis, 0, view.shape[axis] + after)
        starts[axis] = max(before, 0)
        shape[axis] = view.shape[axis] + max(before, 0) + max(after, 0)
    if tuple(shape) == view.shape:
        return view
    target = planner.new(view.dtype, shape, _layout([view]))
    # The borders, one axis after the other, and then the middle.
    middle = target
    for axis in range(view.ndim):
        end = starts[axis] + view.shape[axis]
        for start, size in ((0, starts[axis]), (end, shape[axis] - end)):
            if size:
                fill(planner, middle.slice(axis, start, size), value)
        middle = middle.slice(axis, starts[axis], view.shape[axis])
    planner.copy(view, middle)
    if value == 0 and not planner.is_in_loop:
        ends = [n - start - own for n, start, own in zip(shape, starts, view.shape, strict=True)]
        planner.padded[target.storage] = Padded(target, view, tuple(starts), tuple(ends))
    return target


def fill(planner: Planner, target: View, value: Any) -> None:
    """Set all elements of a view."""
    source = planner.constant(np.asarray(value).astype(target.dtype)).expand(target.shape)
    planner.copy(source, target)


def padded_otherwise(planner: Planner, self: Any, pad: Any, mode: str) -> Any:
    """Reflection, replication and circular padding: parts of the array beside it."""
    view = planner.view(self)
    for i in range(len(pad) // 2):
        axis = view.ndim - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        size = view.shape[axis]
        if before < 0 or after < 0 or (mode == "reflect" and max(before, after) >= size):
            return NotImplemented
        if mode == "circular" and max(before, after) > size:
            return NotImplemented
        if before == after == 0:
            continue
        if mode == "reflect":
            first = view.slice(axis, 1, before).flip(axis) if before else None
            last = view.slice(axis, size - 1 - after, after).flip(axis) if after else None
        elif mode == "replicate":
            first = _repeated(view.slice(axis, 0, 1), axis, before) if before else None
            last = _repeated(view.slice(axis, size - 1, 1), axis, after) if after else None
        elif mode == "circular":
            first = view.slice(axis, size - before, before) if before else None
            last = view.slice(axis, 0, after) if after else None
        else:
            return NotImplemented
        view = cat(planner, tuple(part for part in (first, view, last) if part is not None), axis)
    return view


def _repeated(view: View, axis: int, count: int) -> View:
    return view.replace(
        shape=(*view.shape[:axis], count, *view.shape[axis + 1 :]),
        strides=(*view.strides[:axis], 0, *view.strides[axis + 1 :]),
    )


@lowers("reflection_pad1d", "reflection_pad2d")
def reflection_pad(planner: Planner, self: Any, padding: Any) -> Any:
    return padded_otherwise(planner, self, padding, "reflect")


@lowers("replication_pad1d", "replication_pad2d")
def replication_pad(planner: Planner, self: Any, padding: Any) -> Any:
    return padded_otherwise(planner, self, padding, "replicate")


@lowers("slice_scatter")
def slice_scatter(
    planner: Planner, self: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    return _scattered(planner, self, src, lambda view: slice_(planner, view, dim, start, end, step))


@lowers("select_scatter")
def select_scatter(planner: Planner, self: Any, src: Any, dim: int, index: Any) -> Any:
    return _scattered(planner, self, src, lambda view: select(planner, view, dim, index))


def _scattered(planner: Planner, self: Any, src: Any, place: Any) -> Any:
    view = planner.view(self)
    target = planner.new(view.dtype, view.shape, _layout([view]))
    part = place(target)
    if part is NotImplemented:
        return NotImplemented
    planner.copy(view, target)
    planner.copy(planner.view(src).expand(part.shape), part)
    return target


@lowers("copy")
def copy(planner: Planner, self: Any, src: Any, non_blocking: bool = False) -> Any:
    from fastrnn.program.lowering.elementwise import to_type

    view = planner.view(src)
    converted = to_type(planner, view, self.dtype)
    return NotImplemented if converted is NotImplemented else planner.view(converted).expand(self.shape)


@lowers("repeat")
def repeat(planner: Planner, self: Any, repeats: Any) -> Any:
    view = planner.view(self)
    more = len(repeats) - view.ndim
    for _ in range(more):
        view = view.unsqueeze(0)
    inner = view
    for axis in reversed(range(view.ndim)):
        inner = inner.unsqueeze(axis)
    shape: list[int] = []
    for count, size in zip(repeats, view.shape, strict=True):
        shape += [count, size]
    return reshaped(planner, inner.expand(shape), [c * s for c, s in zip(repeats, view.shape, strict=True)])


@lowers("tile")
def tile(planner: Planner, self: Any, dims: Any) -> Any:
    return repeat(planner, self, (*[1] * (self.ndim - len(dims)), *dims))


@lowers("repeat_interleave")
def repeat_interleave(
    planner: Planner, self: Any = None, repeats: Any = None, dim: Any = None, output_size: Any = None
) -> Any:
    if not isinstance(repeats, int) or self is None or dim is None:
        return NotImplemented
    view = planner.view(self)
    axis = axis_of(dim, view.ndim)
    inner = view.unsqueeze(axis + 1)
    shape = (*view.shape[: axis + 1], repeats, *view.shape[axis + 1 :])
    return reshaped(
        planner,
        inner.expand(shape),
        (*view.shape[:axis], view.shape[axis] * repeats, *view.shape[axis + 1 :]),
    )


@lowers("roll")
def roll(planner: Planner, self: Any, shifts: Any, dims: Any = ()) -> Any:
    if dims == ():
        return NotImplemented
    view = planner.view(self)
    for shift, dim in zip(listed(shifts), listed(dims), strict=True):
        axis = axis_of(dim, view.ndim)
        size = view.shape[axis]
        at = size - shift % size if size else 0
        if at != size:
            view = cat(planner, (view.slice(axis, at, size - at), view.slice(axis, 0, at)), axis)
    return view
