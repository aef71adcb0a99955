"""Convolutions and pools over one or two axes of positions.

Kernels have the channels of a position side by side. So an array of torch's shape (B, channels, positions...)
is kept as (B, positions..., channels) from the first convolution on, which nobody sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastrnn.program.axes import for_each
from fastrnn.program.lowering import lowers
from fastrnn.program.views import FLOATS, Patches, View, is_constant

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner


def channels_last(planner: Planner, value: Any) -> View:
    """A value (B, channels, positions...) as (B, positions..., channels), with channels side by side."""
    view = planner.view(value)
    turned = view.permute([0, *range(2, view.ndim), 1])
    if (turned.strides[-1] == view.itemsize or turned.shape[-1] == 1) and all(
        stride >= 0 and stride % view.itemsize == 0 for stride in turned.strides
    ):
        return turned
    return planner.copied(turned)


def channels_second(view: View) -> View:
    """The reverse: (B, channels, positions...)."""
    return view.permute([0, view.ndim - 1, *range(1, view.ndim - 1)])


def _check_numbers(planner: Planner, axes: int, least: int, *numbers: Any) -> None:
    """Check numbers of each axis of positions, on which compiled code relies."""
    for each in numbers:
        if len(each) != axes or not all(type(n) is int and least <= n < 2**31 for n in each):
            raise planner.error(f"{axes} numbers of at least {least}", f"{each}")


def _convolve(
    planner: Planner,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    axes: int,
    is_transposed: bool = False,
    output_padding: Any = 0,
) -> Any:
    from fastrnn.program.window_steps import ConvolutionStep, ConvolutionWeights

    constants = [array for array in (weight, bias) if array is not None]
    if x.dtype not in FLOATS or axes > 2:
        return NotImplemented
    if not all(is_constant(a) and a.dtype == x.dtype for a in constants):
        return NotImplemented
    is_batch = x.ndim == axes + 2
    view = planner.view(x)
    view = view if is_batch else view.unsqueeze(0)
    if view.size == 0:
        return NotImplemented
    taps = weight.shape[2:]
    has_rows_last = is_transposed and not weight.is_narrow
    stride, dilation = for_each(stride, axes), for_each(dilation, axes)
    before, after = _padding(padding, taps, dilation, axes)
    if before is None:
        return NotImplemented
    is_point = {*taps, *stride} == {1} and not any((*before, *after, *for_each(output_padding, axes)))
    patches = planner.patches.get(view.storage) if is_batch and is_point and groups == 1 else None
    if patches is not None and view.is_whole and view.is_contiguous and view.shape[2:] == patches.positions:
        turned = weight.permute([1, 0, 2, 3]) if has_rows_last else weight
        if turned.shape[1] == view.shape[1]:
            turned = turned.reshape((turned.shape[0], patches.source.shape[1], *patches.taps))
            return _convolve(
                planner, patches.source, turned, bias, patches.stride, patches.padding, patches.dilation, 1, 2
            )
    _check_numbers(planner, axes, 1, taps, stride, dilation)
    _check_numbers(planner, axes, 0, before, after)
    view, before, after = _unpadded(planner, view, before, after, stride if is_transposed else None)
    sizes = view.shape[2:]
    if type(groups) is not int or groups < 1 or weight.shape[0] % groups:
        raise planner.error(f"groups that divide {weight.shape[0]}", f"{groups}")
    channels = weight.shape[1] * groups if has_rows_last else weight.shape[0]
    expected = weight.shape[0] if has_rows_last else weight.shape[1] * groups
    if view.ndim != axes + 2 or view.shape[1] != expected:
        raise planner.error(f"{expected} channels and {axes} axes of positions", f"{x.shape}")
    if bias is not None and bias.shape != (channels,):
        raise planner.error(f"a bias of shape ({channels},)", f"{bias.shape}")
    if is_transposed:
        more = for_each(output_padding, axes)
        _check_numbers(planner, axes, 0, more)
        output = tuple(
            (n - 1) * s - b - a + d * (k - 1) + m + 1
            for n, s, b, a, d, k, m in zip(sizes, stride, before, after, dilation, taps, more, strict=True)
        )
    else:
        output = tuple(
            (n + b + a - d * (k - 1) - 1) // s + 1
            for n, s, b, a, d, k in zip(sizes, stride, before, after, dilation, taps, strict=True)
        )
    if min(output) < 1:
        raise planner.error("as many positions as the kernel has, or more", f"{sizes}")
    key = (
        "convolution",
        id(weight.storage.array),
        weight.shape,
        weight.strides,
        None if bias is None else id(bias.storage.array),
        groups,
        stride,
        dilation,
        before,
        is_transposed,
    )
    packed = planner.tools.packed
    if key not in packed:
        numbers = weight.weight()
        storages = {"input": numbers.storage} if weight.is_narrow else {}
        packed[key] = (
            ConvolutionWeights(
                planner.tools.pick(x.dtype, **storages).products[0],
                numbers,
                None if bias is None else bias.array(),
                groups,
                stride,
                dilation,
                before,
                is_transposed,
            ),
            constants,
        )
    source = channels_last(planner, view)
    target = planner.new(view.dtype, (view.shape[0], *output, channels))
    step = ConvolutionStep(
        planner.tools.kernels[x.dtype],
        packed[key][0],
        view.shape[0],
        sizes,
        output,
        source.strides[:-1],
        target.strides[:-1],
    )
    planner.add(step, [source], [target])
    result = channels_second(target)
    return result if is_batch else result.select(0, 0)


def _unpadded(
    planner: Planner, view: View, before: Any, after: Any, stride: Any
) -> tuple[View, tuple[int, ...], tuple[int, ...]]:
    """The array without zeros at the ends of its positions, and the padding that stands for them. A
    transposed convolution, which has a stride here, drops fewer outputs instead."""
    padded = planner.padded.get(view.storage)
    if padded is None or padded.whole != view or padded.source.size == 0:
        return view, before, after
    if any((*padded.before[:2], *padded.after[:2])):
        return view, before, after
    steps = [1] * len(before) if stride is None else [-s for s in stride]
    first, last = (
        tuple(own + step * more for own, step, more in zip(pad, steps, zeros[2:], strict=True))
        for pad, zeros in ((before, padded.before), (after, padded.after))
    )
    return (view, before, after) if min(*first, *last) < 0 else (padded.source, first, last)


def _padding(padding: Any, taps: Sequence[int], dilation: Sequence[int], axes: int) -> Any:
    """The padding before the first and after the last position of each axis."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    if isinstance(padding, str):
        return None, None
    return for_each(padding, axes), for_each(padding, axes)


@lowers("conv1d", "conv2d")
def conv(
    planner: Planner,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    return _convolve(planner, input, weight, bias, stride, padding, dilation, groups, weight.ndim - 2)


@lowers("conv_transpose1d", "conv_transpose2d")
def conv_transpose(
    planner: Planner,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    axes = weight.ndim - 2
    return _convolve(
        planner, input, weight, bias, stride, padding, dilation, groups, axes, True, output_padding
    )


# ---------------------------------------------------------------- pools


def _pool(
    planner: Planner,
    pooling: str,
    x: Any,
    taps: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    axes: int,
    counts_padding: bool = True,
    divisor: Any = None,
) -> Any:
    from fastrnn.program.window_steps import PoolStep

    if x.dtype not in FLOATS or axes > 2 or ceil_mode:
        return NotImplemented
    is_batch = x.ndim == axes + 2
    view = planner.view(x)
    view = view if is_batch else view.unsqueeze(0)
    taps = for_each(taps, axes)
    stride = taps if stride in (None, ()) else for_each(stride, axes)
    before, dilation = for_each(padding, axes), for_each(dilation, axes)
    sizes = view.shape[2:]
    _check_numbers(planner, axes, 1, taps, stride, dilation)
    _check_numbers(planner, axes, 0, before)
    output = tuple(
        (n + 2 * b - d * (k - 1) - 1) // s + 1
        for n, b, d, k, s in zip(sizes, before, dilation, taps, stride, strict=True)
    )
    if min(output) < 1 or view.size == 0:
        return NotImplemented
    source = channels_last(planner, view)
    target = planner.new(view.dtype, (view.shape[0], *output, view.shape[1]))
    step = PoolStep(
        planner.tools.kernels[x.dtype],
        pooling,
        view.shape[0],
        view.shape[1],
        sizes,
        output,
        taps,
        stride,
        dilation,
        before,
        source.strides[:-1],
        target.strides[:-1],
        None,
        bool(counts_padding),
        float(divisor or 0),
    )
    planner.add(step, [source], [target])
    result = channels_second(target)
    return result if is_batch else result.select(0, 0)


@lowers("max_pool1d", "max_pool2d")
def max_pool(
    planner: Planner,
    self: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    axes = _pool_axes(planner)
    return _pool(planner, "max", self, kernel_size, stride, padding, dilation, ceil_mode, axes)


@lowers("avg_pool1d", "avg_pool2d")
def avg_pool(
    planner: Planner,
    self: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    axes = _pool_axes(planner)
    return _pool(
        planner,
        "average",
        self,
        kernel_size,
        stride,
        padding,
        1,
        ceil_mode,
        axes,
        count_include_pad,
        divisor_override,
    )


def _pool_axes(planner: Planner) -> int:
    return 1 if planner.operator.endswith("1d") else 2


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_avg_pool(planner: Planner, self: Any, output_size: Any) -> Any:
    from fastrnn.program.lowering.reductions import reduce

    axes = _pool_axes(planner)
    wanted = for_each(output_size, axes)
    view = planner.view(self)
    sizes = view.shape[view.ndim - axes :]
    wanted = tuple(n if w is None else w for w, n in zip(wanted, sizes, strict=True))
    if all(w == 1 for w in wanted) and view.dtype in FLOATS:
        return reduce(planner, "mean", view, range(view.ndim - axes, view.ndim), True, view.dtype)
    if all(n % w == 0 for w, n in zip(wanted, sizes, strict=True)):
        taps = tuple(n // w for w, n in zip(wanted, sizes, strict=True))
        return _pool(planner, "average", view, taps, None, 0, 1, False, axes)
    return NotImplemented


@lowers("im2col")
def im2col(planner: Planner, self: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """The patches that a convolution meets, (B, channels * taps, positions): a view, once padded."""
    from fastrnn.program.lowering.shapes import constant_pad, reshaped

    view = planner.view(self)
    is_batch = view.ndim == 4
    view = view if is_batch else view.unsqueeze(0)
    source = view
    taps, gaps, pads, moves = (for_each(v, 2) for v in (kernel_size, dilation, padding, stride))
    if any(pads):
        view = constant_pad(planner, view, (pads[1], pads[1], pads[0], pads[0]))
    count = [
        (view.shape[2 + axis] - gaps[axis] * (taps[axis] - 1) - 1) // moves[axis] + 1 for axis in range(2)
    ]
    if min(count) < 1:
        return NotImplemented
    b, c, h, w = view.strides
    patches = view.replace(
        shape=(*view.shape[:2], *taps, *count),
        strides=(b, c, h * gaps[0], w * gaps[1], h * moves[0], w * moves[1]),
    )
    shape = (view.shape[0], view.shape[1] * taps[0] * taps[1], count[0] * count[1])
    result = reshaped(planner, patches, shape)
    if result.storage is not view.storage and not planner.is_in_loop:
        planner.patches[result.storage] = Patches(source, taps, moves, pads, gaps, tuple(count))
    return result if is_batch else result.select(0, 0)
