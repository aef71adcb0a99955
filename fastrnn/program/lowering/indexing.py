"""Rows of tables by their number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.program.fusion import chain
from fastrnn.program.lowering import lowers
from fastrnn.program.views import is_constant

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner


def check_range(planner: Planner, what: str, numbers: Any, low: int, high: int) -> None:
    """Check that all numbers of a C-contiguous array are from low to high: now, or in each call."""
    from fastrnn.program.executor import RangeStep

    where = planner.node.where if planner.node is not None else ""
    hint = f"At {where}" if where else ""
    step = RangeStep(planner.operator, what, low, high, numbers.size, numbers.dtype, hint)
    if numbers.is_constant:
        step.run(planner.contiguous(numbers).array())
    else:
        planner.check(step, numbers)


def gather_rows(planner: Planner, table: Any, index: Any, axis: int) -> Any:
    """The parts of a table along an axis that an index names; the index's axes take the place of that one."""
    from fastrnn.program.steps import GatherStep

    view, numbers = planner.view(table), planner.view(index)
    if numbers.dtype not in ("int64", "int32") or numbers.size == 0:
        return NotImplemented
    view = planner.contiguous(view)
    numbers = planner.contiguous(numbers)
    outer, inner = math.prod(view.shape[:axis]), math.prod(view.shape[axis + 1 :]) * view.itemsize
    size = view.shape[axis]
    check_range(planner, "indices", numbers, 0, size - 1)
    target = planner.new(view.dtype, (*view.shape[:axis], *numbers.shape, *view.shape[axis + 1 :]))
    count = numbers.size
    step = GatherStep(
        planner.tools.kernels["float32"],
        (outer, count, 1),
        size,
        inner,
        numbers.dtype,
        (size * inner, inner, 0),
        (0, numbers.itemsize, 0),
        (count * inner, inner, 0),
    )
    planner.add(step, [view, numbers], [target])
    return target


@lowers("embedding")
def embedding(
    planner: Planner,
    weight: Any,
    indices: Any,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    if is_constant(weight) and weight.is_narrow:
        return _narrow_rows(planner, weight, indices)
    return gather_rows(planner, weight, indices, 0)


def _narrow_rows(planner: Planner, table: Any, index: Any) -> Any:
    """The rows of a narrow table, as float32."""
    from fastrnn.operators.stateless import TokenRows
    from fastrnn.program.token_step import TokenStep

    numbers = planner.view(index)
    if numbers.dtype not in ("int64", "int32") or numbers.size == 0:
        return NotImplemented
    numbers = planner.contiguous(numbers, "int64")
    rows, features = table.shape
    check_range(planner, "indices", numbers, 0, rows - 1)
    target = planner.new("float32", (*numbers.shape, features))
    step = TokenStep(TokenRows(table.weight(), "float32", rows, features), numbers.size)
    planner.add(step, [numbers], [target])
    return target


@lowers("one_hot")
def one_hot(planner: Planner, self: Any, num_classes: int = -1) -> Any:
    if self.dtype != "int64" or num_classes < 1 or self.size == 0:
        return NotImplemented
    numbers = planner.contiguous(planner.view(self))
    check_range(planner, "classes", numbers, 0, num_classes - 1)
    classes = planner.constant(np.arange(num_classes))
    return chain(planner, "eq", (numbers.unsqueeze(numbers.ndim), classes), "int64", "int64")


@lowers("index_select")
def index_select(planner: Planner, self: Any, dim: int, index: Any) -> Any:
    if self.ndim == 0 or index.ndim != 1:
        return NotImplemented
    return gather_rows(planner, self, index, dim % self.ndim)


@lowers("gather")
def gather(planner: Planner, self: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    from fastrnn.program.steps import GatherStep

    view, numbers = planner.view(self), planner.view(index)
    if view.ndim == 0 or numbers.dtype != "int64" or numbers.size == 0:
        return NotImplemented
    axis = dim % view.ndim
    # The axes before and after must lie together, in table and index alike.
    if any(n != t for i, (n, t) in enumerate(zip(numbers.shape, view.shape, strict=True)) if i != axis):
        return NotImplemented
    view, numbers = planner.contiguous(view), planner.contiguous(numbers)
    outer, inner = math.prod(view.shape[:axis]), math.prod(view.shape[axis + 1 :])
    size, count = view.shape[axis], numbers.shape[axis]
    check_range(planner, "indices", numbers, 0, size - 1)
    target = planner.new(view.dtype, numbers.shape)
    item, whole = view.itemsize, numbers.itemsize
    step = GatherStep(
        planner.tools.kernels["float32"],
        (outer, count, inner),
        size,
        item,
        numbers.dtype,
        (size * inner * item, inner * item, item),
        (count * inner * whole, inner * whole, whole),
        (count * inner * item, inner * item, item),
    )
    planner.add(step, [view, numbers], [target])
    return target
