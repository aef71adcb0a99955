"""Projections, which have packed weights, and products of matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.narrow import NarrowWeight
from fastrnn.program.lowering import lowers
from fastrnn.program.lowering.elementwise import same_type
from fastrnn.program.lowering.shapes import reshaped
from fastrnn.program.views import FLOATS, View, is_constant

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner

MOST_BATCH_AXES = 4


def packed_dense(planner: Planner, weight: Any, bias: Any, key: Any = None) -> Any:
    """The packed cell of constant weights (out, in), wide or narrow, and a bias (out,) or None."""
    from fastrnn.engine.packing import pack_dense

    packed = planner.tools.packed
    key = (id(weight), id(bias)) if key is None else key
    if key not in packed:
        rows: Any = weight
        if isinstance(weight, NarrowWeight):
            picked = planner.tools.pick("float32", input=weight.storage)
        else:
            picked, rows = planner.tools.pick(weight.dtype.name), np.ascontiguousarray(weight)
        # The arrays stay, so that no other one gets their id.
        packed[key] = pack_dense(picked.products[0], rows, bias), weight, bias
    return packed[key][0]


def dense(planner: Planner, value: Any, weight: Any, bias: Any, key: Any = None) -> Any:
    """x (..., in) times weight (out, in), plus bias: arrays, constant."""
    from fastrnn.program.product_steps import DenseStep

    view = planner.view(value)
    out, size = weight.shape
    if view.ndim == 0 or view.shape[-1] != size:
        raise planner.error(f"{size} features", f"an array of shape {view.shape}")
    if bias is not None and bias.shape != (out,):
        raise planner.error(f"a bias of shape ({out},)", f"{bias.shape}")
    packed = packed_dense(planner, weight, bias, key)
    # Rows are taken in the order in which they lie.
    order = sorted(
        range(view.ndim - 1), key=lambda axis: -abs(view.strides[axis]) if view.shape[axis] != 1 else 0
    )
    turned = view.permute([*order, view.ndim - 1])
    rows = _rows(turned)
    if rows is None or view.strides[-1] != view.itemsize:
        turned = planner.contiguous(turned)
        rows = (1, turned.size // size, 0, size * view.itemsize)
    batches, n, batch_stride, row_stride = rows
    target = planner.new(view.dtype, (*turned.shape[:-1], out))
    itemsize = view.itemsize
    row = out * itemsize
    step = DenseStep(packed, n, row_stride // itemsize, out, batches, batch_stride, n * row)
    planner.add(step, [turned], [target])
    return target.permute([*(order.index(axis) for axis in range(len(order))), view.ndim - 1])


def _rows(view: View) -> tuple[int, int, int, int] | None:
    """Rows of the last axis: batches, rows of each, and the bytes from one batch and row to the next.

    None: they do not lie that way.
    """
    itemsize = view.itemsize
    row = view.shape[-1] * itemsize
    axes = [
        (size, stride) for size, stride in zip(view.shape[:-1], view.strides[:-1], strict=True) if size != 1
    ]
    merged: list[list[int]] = []
    for size, stride in axes:
        if merged and merged[-1][1] == size * stride:
            merged[-1] = [merged[-1][0] * size, stride]
        else:
            merged.append([size, stride])
    if not merged:
        return 1, 1, 0, row
    if any(stride % itemsize or stride < row for _, stride in merged):
        return None
    if len(merged) == 1:
        return 1, merged[0][0], 0, merged[0][1]
    if len(merged) == 2:
        return merged[0][0], merged[1][0], merged[0][1], merged[1][1]
    return None


@lowers("linear")
def linear(planner: Planner, input: Any, weight: Any, bias: Any = None) -> Any:
    if input.dtype not in FLOATS or input.ndim < 1 or weight.ndim != 2 or weight.dtype != input.dtype:
        return NotImplemented
    if not (bias is None or is_constant(bias)) and is_constant(weight) and weight.is_narrow:
        return same_type(planner, "add", linear(planner, input, weight), bias)
    if not is_constant(weight) or not (bias is None or is_constant(bias)):
        product = matmul(planner, input, planner.view(weight).permute([1, 0]))
        return (
            product if bias is None or product is NotImplemented else same_type(planner, "add", product, bias)
        )
    key = ("linear", id(weight.storage.array), weight.offset, weight.strides, bias and id(bias.storage.array))
    return dense(planner, input, weight.weight(), None if bias is None else bias.array(), key)


@lowers("addmm")
def addmm(planner: Planner, self: Any, mat1: Any, mat2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    if beta != 1 or alpha != 1:
        return NotImplemented
    if is_constant(mat2) and is_constant(self) and self.ndim == 1 and self.shape[0] == mat2.shape[1]:
        return linear(planner, mat1, mat2.permute([1, 0]), self)
    product = matmul(planner, mat1, mat2)
    return NotImplemented if product is NotImplemented else same_type(planner, "add", product, self)


@lowers("baddbmm")
def baddbmm(planner: Planner, self: Any, batch1: Any, batch2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    product = matmul(planner, batch1, batch2)
    if product is NotImplemented:
        return NotImplemented
    if alpha != 1:
        product = same_type(planner, "mul", product, float(alpha))
    if beta == 0:
        return product
    return same_type(
        planner, "add", product, self if beta == 1 else same_type(planner, "mul", self, float(beta))
    )


@lowers("mm", "bmm", "matmul", "mv", "dot")
def matmul(
    planner: Planner, self: Any, other: Any = None, mat2: Any = None, vec: Any = None, tensor: Any = None
) -> Any:
    other = next((array for array in (other, mat2, vec, tensor) if array is not None), None)
    if other is None:
        return NotImplemented
    if self.dtype != other.dtype or self.dtype not in FLOATS:
        return NotImplemented
    a, b = planner.view(self), planner.view(other)
    if a.ndim == 1 or b.ndim == 1:
        left = a.unsqueeze(0) if a.ndim == 1 else a
        right = b.unsqueeze(1) if b.ndim == 1 else b
        result = matmul(planner, left, right)
        if result is NotImplemented:
            return result
        if b.ndim == 1:
            result = result.select(result.ndim - 1, 0)
        return result.select(result.ndim - (1 if b.ndim == 1 else 2), 0) if a.ndim == 1 else result
    if b.is_constant and b.ndim == 2:
        key = ("matmul", id(b.storage.array), b.offset, b.strides)
        return dense(planner, a, b.array().T, None, key)
    return _product(planner, a, b)


def _product(planner: Planner, a: View, b: View) -> Any:
    """A product of two arrays that a call is given or computes."""
    from fastrnn.program.product_steps import MatmulStep

    if a.shape[-1] != b.shape[-2]:
        raise planner.error(f"{a.shape[-1]} rows in the second matrix", f"{b.shape[-2]}")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if b.ndim == 2 and math.prod(batch) > 1:
        # One product of all rows.
        rows = reshaped(planner, a, (a.size // a.shape[-1], a.shape[-1]))
        flat = _product(planner, rows, b)
        return reshaped(planner, flat, (*a.shape[:-1], b.shape[-1]))
    left, right = _plain(planner, a), _plain(planner, b)
    left, right = left.expand((*batch, *a.shape[-2:])), right.expand((*batch, *b.shape[-2:]))
    if len(batch) > MOST_BATCH_AXES:
        return NotImplemented
    m, n = a.shape[-2], b.shape[-1]
    target = planner.new(a.dtype, (*batch, m, n))
    step = MatmulStep(
        planner.tools.kernels[a.dtype],
        tuple(batch),
        m,
        n,
        a.shape[-1],
        left.strides,
        right.strides,
        target.strides,
    )
    planner.add(step, [left, right], [target])
    return target


def _plain(planner: Planner, view: View) -> View:
    """A matrix, or a batch of them, one of whose last two axes lies without gaps."""
    itemsize = view.itemsize
    if itemsize in view.strides[-2:] and all(s >= 0 and s % itemsize == 0 for s in view.strides):
        return view
    if view.shape[-1] == 1 or view.shape[-2] == 1:
        return view if all(s >= 0 and s % itemsize == 0 for s in view.strides) else planner.copied(view)
    return planner.copied(view)


@lowers("outer")
def outer(planner: Planner, self: Any, vec2: Any) -> Any:
    return same_type(planner, "mul", planner.view(self).unsqueeze(1), planner.view(vec2).unsqueeze(0))
