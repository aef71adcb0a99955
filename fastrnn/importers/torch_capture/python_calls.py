"""What torch does in Python before its operators run, written down in a form that does not depend on sizes.

Indexing leaves out slices that take a whole axis, and `contiguous` what is contiguous already, so that a
trace would have other operators where a size happens to be reached. `PythonCalls` runs these as operators.
It also sees when numbers leave tensors: `tolist` and `numpy`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

MAKE = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy}
LEAVE = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}


class PythonCalls(TorchFunctionMode):  # type: ignore[misc]  # torch may be absent where types are checked
    """Runs Python calls of torch for a `Recorder`.

    ``recorder.read(tensor, numbers)`` is told of numbers that leave a tensor, and ``recorder.returned`` gives
    the tensor from which numbers came if they are made a tensor again.
    """

    def __init__(self, recorder: Any) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__ and _is_plain(args[1]):
            return _taken(args[0], args[1])
        if func is torch.Tensor.__setitem__ and _is_plain(args[1]):
            return _put(*args)
        if func in MAKE and args and (source := self._recorder.returned(args[0])) is not None:
            dtype = kwargs.get("dtype")
            return source.to(dtype) if dtype is not None else source.clone()
        if func is torch.Tensor.contiguous:
            return torch.ops.aten.contiguous.default(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in LEAVE:
            self._recorder.read(args[0], result)
        return result


def _is_plain(index: Any) -> bool:
    """Whether an index is made of whole numbers, slices, None and Ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None
        or part is Ellipsis
        or (isinstance(part, (int, np.integer)) and not isinstance(part, bool))
        or (isinstance(part, slice) and all(_is_bound(b) for b in (part.start, part.stop, part.step)))
        for part in parts
    )


def _is_bound(bound: Any) -> bool:
    return bound is None or (isinstance(bound, (int, np.integer)) and not isinstance(bound, bool))


def _taken(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """tensor[index], with an operator for each part that is not all of an axis."""
    parts = index if isinstance(index, tuple) else (index,)
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > tensor.dim():
        raise IndexError(f"too many indices for tensor of dimension {tensor.dim()}")
    axis = 0
    result = tensor
    for part in parts:
        if part is Ellipsis:
            axis += tensor.dim() - used
        elif part is None:
            result = result.unsqueeze(axis)
            axis += 1
        elif isinstance(part, slice):
            if part != slice(None):
                start, stop, step = _bounds(part, result.size(axis))
                result = torch.ops.aten.slice.Tensor(result, axis, start, stop, step)
            axis += 1
        else:
            result = torch.ops.aten.select.int(result, axis, int(part))
    return torch.ops.aten.alias.default(result) if result is tensor else result


def _bounds(part: slice, size: int) -> tuple[int, int, int]:
    """The bounds of a slice, counted from the front: they hold where a bound from the end would be -0."""
    start = 0 if part.start is None else int(part.start)
    stop = sys.maxsize if part.stop is None else int(part.stop)
    step = 1 if part.step is None else int(part.step)
    if step < 1:
        raise ValueError("slice step must be positive")
    return max(start + size, 0) if start < 0 else start, max(stop + size, 0) if stop < 0 else stop, step


def _put(tensor: torch.Tensor, index: Any, value: Any) -> None:
    """tensor[index] = value"""
    target = _taken(tensor, index)
    if not isinstance(value, torch.Tensor):
        target.fill_(value)
        return
    while value.dim() > target.dim() and value.size(0) == 1:
        value = value.squeeze(0)
    target.copy_(value)
