"""Convolutions, their transposes, and images as columns of patches.

Sizes of outputs: https://docs.pytorch.org/docs/stable/nn.html#convolution-layers
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.narrow import NarrowWeight
from fastrnn.reference.narrow import make_product
from fastrnn.reference.operators.promotion import category, wide
from fastrnn.reference.operators.windows import Sizes, each, taps

Convolution: TypeAlias = Callable[..., Array]


def _check_operands(input: Array, weight: Array | NarrowWeight, bias: Array | None, axes: int) -> None:
    given = (input, bias) if isinstance(weight, NarrowWeight) else (input, weight, bias)
    dtypes = {str(array.dtype) for array in given if array is not None}
    if len(dtypes) > 1 or category(input.dtype) == 0:
        raise TypeError("Input, weight and bias must have one dtype, which is not bool.")
    if weight.ndim != axes + 2 or input.ndim not in (axes + 1, axes + 2):
        raise ValueError(f"The weight must have {axes + 2} axes, the input as many, or one less.")
    if 0 in weight.shape[1:] or 0 in input.shape[input.ndim - axes - 1 :]:
        raise ValueError("Only the batch may be empty.")


# ---------------------------------------------------------------- convolutions


def _convolve(
    input: Array,
    weight: Array | NarrowWeight,
    bias: Array | None,
    stride: int | Sizes,
    padding: int | Sizes | str,
    dilation: int | Sizes,
    groups: int,
    axes: int,
) -> Array:
    """Return the convolution over the last axes. (B, C, ...) with (O, C/groups, ...) is (B, O, ...)."""
    _check_operands(input, weight, bias, axes)
    steps, spread = each("stride", stride, axes, 1), each("dilation", dilation, axes, 1)
    kernel = weight.shape[2:]
    reach = [d * (k - 1) for d, k in zip(spread, kernel, strict=True)]
    edges = _edges(padding, reach, steps)
    x = input[None] if input.ndim == axes + 1 else input
    batch, channels = x.shape[:2]
    if groups < 1 or channels != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError("Channels must be groups times axis 1 of the weight, which divides into the groups.")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"The bias must have the shape {weight.shape[:1]}.")
    x = np.pad(x.astype(wide(x.dtype)), [(0, 0), (0, 0), *edges])
    count = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, steps, strict=True)]
    if min(count) < 1:
        raise ValueError("The kernel is larger than the padded input.")
    x = x.reshape(batch, groups, channels // groups, *x.shape[2:])
    if isinstance(weight, NarrowWeight):
        windows = np.stack([x[places] for _, places in taps(kernel, steps, spread, count)], 3)
        result = _narrow_products(windows, weight, bias, axes)
        return result.astype(input.dtype).reshape(*input.shape[: input.ndim - axes - 1], *result.shape[1:])
    w = weight.astype(x.dtype).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    result = np.zeros((batch, groups, weight.shape[0] // groups, *count), x.dtype)
    for tap, places in taps(kernel, steps, spread, count):
        result += np.einsum("bgc...,goc->bgo...", x[places], w[tap])
    result = result.reshape(batch, weight.shape[0], *count)
    if bias is not None:
        result += bias.reshape(-1, *[1] * axes)
    return result.astype(input.dtype).reshape(*input.shape[: input.ndim - axes - 1], *result.shape[1:])


def _narrow_products(windows: Array, weight: NarrowWeight, bias: Array | None, axes: int) -> Array:
    """Return the products of windows (B, groups, C / groups, taps, ...) with weights (O, C / groups, ...)."""
    groups, columns, count = windows.shape[1:4]
    part = weight.shape[0] // groups
    start = np.zeros(weight.shape[0]) if bias is None else bias
    results = []
    for group in range(groups):
        rows = slice(group * part, (group + 1) * part)
        own = weight.part(rows, lambda numbers: numbers.reshape(part, columns * count))
        places = np.moveaxis(windows[:, group], (1, 2), (-2, -1))
        y = make_product(own)(places.reshape(-1, columns * count), start[rows])
        results.append(np.moveaxis(y.reshape(*places.shape[:-2], part), -1, 1))
    return np.concatenate(results, 1)


def _edges(padding: int | Sizes | str, reach: Sizes, stride: Sizes) -> list[tuple[int, int]]:
    """Return how many zeros stand before and after each axis."""
    if not isinstance(padding, str):
        return [(edge, edge) for edge in each("padding", padding, len(reach), 0)]
    if padding not in ("same", "valid"):
        raise ValueError("padding must be numbers, 'same' or 'valid'.")
    if padding == "valid":
        return [(0, 0)] * len(reach)
    if max(stride) > 1:
        raise ValueError("Padding 'same' needs stride 1.")
    return [(total // 2, total - total // 2) for total in reach]


def _conv_over(axes: int) -> Convolution:
    """Return the operator over the last axes."""

    def conv(
        input: Array,
        weight: Array | NarrowWeight,
        bias: Array | None = None,
        stride: int | Sizes = 1,
        padding: int | Sizes | str = 0,
        dilation: int | Sizes = 1,
        groups: int = 1,
    ) -> Array:
        """Return the convolution over the last axes."""
        return _convolve(input, weight, bias, stride, padding, dilation, groups, axes)

    return conv


conv1d, conv2d, conv3d = map(_conv_over, (1, 2, 3))


# ---------------------------------------------------------------- transposed convolutions


def _convolve_transposed(
    input: Array,
    weight: Array | NarrowWeight,
    bias: Array | None,
    stride: int | Sizes,
    padding: int | Sizes,
    output_padding: int | Sizes,
    groups: int,
    dilation: int | Sizes,
    axes: int,
) -> Array:
    """Return the transpose of a convolution. (B, C, ...) with (C, O/groups, ...) is (B, O, ...)."""
    _check_operands(input, weight, bias, axes)
    steps, spread = each("stride", stride, axes, 1), each("dilation", dilation, axes, 1)
    edges, more = each("padding", padding, axes, 0), each("output_padding", output_padding, axes, 0)
    if any(extra >= max(s, d) for extra, s, d in zip(more, steps, spread, strict=True)):
        raise ValueError("output_padding must be smaller than stride or dilation.")
    x = input[None] if input.ndim == axes + 1 else input
    batch, channels, *count = x.shape
    kernel = weight.shape[2:]
    if isinstance(weight, NarrowWeight):  # with output rows first
        if groups < 1 or channels != weight.shape[1] * groups or weight.shape[0] % groups:
            raise ValueError("Channels must be groups times axis 1 of the narrow weight.")
        outputs = weight.shape[0] // groups
    else:
        if groups < 1 or channels != weight.shape[0] or channels % groups:
            raise ValueError("Channels must be axis 0 of the weight, and divide into the groups.")
        outputs = weight.shape[1]
    if bias is not None and bias.shape != (outputs * groups,):
        raise ValueError(f"The bias must have the shape {(outputs * groups,)}.")
    x = x.astype(wide(x.dtype)).reshape(batch, groups, channels // groups, *count)
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 + extra
        for n, s, d, k, extra in zip(count, steps, spread, kernel, more, strict=True)
    ]
    if any(size <= 2 * edge for size, edge in zip(sizes, edges, strict=True)):
        raise ValueError("The padding leaves no output.")
    inside: Any = (..., *(np.s_[edge : size - edge] for size, edge in zip(sizes, edges, strict=True)))
    if isinstance(weight, NarrowWeight):
        # What each output meets of the input at each tap: zeros where it is nothing.
        windows = np.zeros((batch, groups, channels // groups, math.prod(kernel), *sizes), x.dtype)
        for index, (_, places) in enumerate(taps(kernel, steps, spread, count)):
            windows[:, :, :, index][places] = x
        products = _narrow_products(windows[inside], weight, bias, axes)
        return products.astype(input.dtype).reshape(
            *input.shape[: input.ndim - axes - 1], *products.shape[1:]
        )
    w = weight.astype(x.dtype).reshape(groups, channels // groups, outputs, *kernel)
    full = np.zeros((batch, groups, outputs, *sizes), x.dtype)
    for tap, places in taps(kernel, steps, spread, count):
        full[places] += np.einsum("bgc...,gco->bgo...", x, w[tap])
    result: Array = full[inside]
    result = result.reshape(batch, groups * outputs, *result.shape[3:])
    if bias is not None:
        result = result + bias.reshape(-1, *[1] * axes)
    return result.astype(input.dtype).reshape(*input.shape[: input.ndim - axes - 1], *result.shape[1:])


def _conv_transpose_over(axes: int) -> Convolution:
    """Return the operator over the last axes."""

    def conv_transpose(
        input: Array,
        weight: Array | NarrowWeight,
        bias: Array | None = None,
        stride: int | Sizes = 1,
        padding: int | Sizes = 0,
        output_padding: int | Sizes = 0,
        groups: int = 1,
        dilation: int | Sizes = 1,
    ) -> Array:
        """Return the transpose of a convolution over the last axes."""
        return _convolve_transposed(
            input, weight, bias, stride, padding, output_padding, groups, dilation, axes
        )

    return conv_transpose


conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_conv_transpose_over, (1, 2, 3))


def convolution(
    input: Array,
    weight: Array | NarrowWeight,
    bias: Array | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    benchmark: bool = False,
    deterministic: bool = False,
    cudnn_enabled: bool = True,
    allow_tf32: bool = True,
) -> Array:
    """Return the convolution, or its transpose, over the axes of the weight after the first two."""
    axes = weight.ndim - 2
    if axes < 1:
        raise ValueError("The weight must have at least three axes.")
    if transposed:
        return _convolve_transposed(
            input, weight, bias, stride, padding, output_padding, groups, dilation, axes
        )
    return _convolve(input, weight, bias, stride, padding, dilation, groups, axes)


# ---------------------------------------------------------------- patches


def _patches(sizes: Sizes, kernel: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> list[int]:
    """Return the number of patches along each axis."""
    count = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(sizes, kernel, dilation, padding, stride, strict=True)
    ]
    if min(count) < 1:
        raise ValueError("The patch is larger than the padded image.")
    return count


def im2col(
    self: Array, kernel_size: int | Sizes, dilation: int | Sizes, padding: int | Sizes, stride: int | Sizes
) -> Array:
    """Return the patches of an image as columns: (B, C, H, W) to (B, C * taps, patches)."""
    kernel, steps = each("kernel_size", kernel_size, 2, 1), each("stride", stride, 2, 1)
    spread, edges = each("dilation", dilation, 2, 1), each("padding", padding, 2, 0)
    if self.ndim not in (3, 4) or 0 in self.shape[-3:]:
        raise ValueError("It takes an image (C, H, W), or a batch of them.")
    count = _patches(self.shape[-2:], kernel, spread, edges, steps)
    padded = np.pad(self, [(0, 0)] * (self.ndim - 2) + [(edge, edge) for edge in edges])
    columns = [padded[places] for _, places in taps(kernel, steps, spread, count)]
    rows = self.shape[-3] * len(columns)
    return np.stack(columns, -3).reshape(*self.shape[:-3], rows, count[0] * count[1])


def col2im(
    self: Array,
    output_size: int | Sizes,
    kernel_size: int | Sizes,
    dilation: int | Sizes,
    padding: int | Sizes,
    stride: int | Sizes,
) -> Array:
    """Return the image in which patches are summed where they lie: (B, C * taps, patches) to (B, C, H, W)."""
    sizes, kernel = each("output_size", output_size, 2, 1), each("kernel_size", kernel_size, 2, 1)
    spread, edges = each("dilation", dilation, 2, 1), each("padding", padding, 2, 0)
    steps = each("stride", stride, 2, 1)
    count, patch = _patches(sizes, kernel, spread, edges, steps), kernel[0] * kernel[1]
    if self.ndim not in (2, 3) or self.shape[-2] % patch or self.shape[-1] != count[0] * count[1]:
        raise ValueError(f"It takes a multiple of {patch} rows, and {count[0] * count[1]} columns.")
    columns = self.astype(wide(self.dtype)).reshape(*self.shape[:-2], self.shape[-2] // patch, patch, *count)
    padded = [size + 2 * edge for size, edge in zip(sizes, edges, strict=True)]
    image = np.zeros((*columns.shape[:-3], *padded), columns.dtype)
    for index, (_, places) in enumerate(taps(kernel, steps, spread, count)):
        image[places] += columns[..., index, :, :]
    inside: Any = (..., *(np.s_[edge : edge + size] for size, edge in zip(sizes, edges, strict=True)))
    result: Array = image[inside]
    return result.astype(self.dtype)


ALIASES = {"_convolution": "convolution"}
