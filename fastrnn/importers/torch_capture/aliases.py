"""Which tensors share memory, and what each of them is after one of them was written.

A write to a view is written down as a new value of the tensor that owns the memory, with the written part
put in its place. The other views of it are taken anew when they are next read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class _Memory:
    """The memory that tensors share."""

    def __init__(self, base: torch.Tensor, value: Any) -> None:
        self.base = base
        self.value = value  # of the base
        self.version = 0


class _Known:
    """What is known of a tensor: its memory, how it is a view of the base, its value and since when."""

    def __init__(self, memory: _Memory, views: tuple[Any, ...], value: Any) -> None:
        self.memory, self.views, self.value = memory, views, value
        self.version = memory.version


class Aliases:
    """The values of tensors. ``emit(operator, arguments, shape, dtype)`` writes down an operator."""

    def __init__(self, emit: Callable[..., Any]) -> None:
        self._emit = emit
        self._known: dict[int, _Known] = {}
        self._kept: list[torch.Tensor] = []

    def is_known(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._known

    def is_shared(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        return a.untyped_storage()._cdata == b.untyped_storage()._cdata and self.is_known(a)

    def is_written(self, tensor: torch.Tensor) -> bool:
        known = self._known.get(id(tensor))
        return known is not None and known.memory.version > 0

    def add(self, tensor: torch.Tensor, value: Any) -> None:
        """A tensor with memory of its own."""
        self._set(tensor, _Known(_Memory(tensor, value), (), value))

    def share(self, tensor: torch.Tensor, source: torch.Tensor, _: None) -> None:
        """A tensor that is the same as another one."""
        known = self._known[id(source)]
        if tensor is not source:
            copy = _Known(known.memory, known.views, self.value(source))
            self._set(tensor, copy)

    def view(self, tensor: torch.Tensor, source: torch.Tensor, value: Any, view: Any) -> None:
        """A tensor that is a view of another one. view: (operator, arguments, which result, with tensors)."""
        if id(tensor) in self._known and tensor is source:
            return
        known = self._known[id(source)]
        operator, plain, index, _ = view
        step = (operator, plain, index, tuple(source.shape), tuple(tensor.shape), str(source.dtype)[6:])
        self._set(tensor, _Known(known.memory, (*known.views, step), value))

    def value(self, tensor: torch.Tensor) -> Any:
        known = self._known[id(tensor)]
        if known.version != known.memory.version:
            value = known.memory.value
            for operator, arguments, index, _, shape, dtype in known.views:
                name = next(iter(arguments))
                value = self._emit(operator, {**arguments, name: value}, shape, dtype)
                if index:
                    value = value._replace(result=index)
            known.value, known.version = value, known.memory.version
        return known.value

    def write(self, tensor: torch.Tensor, value: Any) -> None:
        """The tensor was written: it is this value now."""
        known = self._known[id(tensor)]
        memory = known.memory
        bases = [memory.value]  # of each view's source, from the outermost on
        for operator, arguments, index, _, shape, dtype in known.views[:-1]:
            name = next(iter(arguments))
            bases.append(
                self._emit(operator, {**arguments, name: bases[-1]}, shape, dtype)._replace(result=index)
            )
        inner = value
        for base, view in zip(reversed(bases), reversed(known.views), strict=False):
            inner = self._put_back(base, inner, view)
        memory.value = inner
        memory.version += 1
        known.value, known.version = value, memory.version

    def _set(self, tensor: torch.Tensor, known: _Known) -> None:
        self._known[id(tensor)] = known
        self._kept.append(tensor)

    def _put_back(self, base: Any, value: Any, view: Any) -> Any:
        """The source of a view, with the view's place taken by a value."""
        operator, arguments, index, shape, viewed, dtype = view
        rest = list(arguments.items())[1:]
        options = dict(rest)
        if operator == "select":
            made = {"self": base, "src": value, **options}
            return self._emit("select_scatter", made, shape, dtype)
        if operator in ("slice", "narrow"):
            if operator == "narrow":
                start = options["start"]
                options = {"dim": options["dim"], "start": start, "end": start + options["length"]}
            return self._emit("slice_scatter", {"self": base, "src": value, **options}, shape, dtype)
        if operator == "permute":
            dims = [d % len(shape) for d in options["dims"]]
            back = tuple(dims.index(d) for d in range(len(dims)))
            return self._emit("permute", {"self": value, "dims": back}, shape, dtype)
        if operator in ("transpose", "t"):
            return self._emit(operator, {"self": value, **options}, shape, dtype)
        if operator in (
            "view",
            "reshape",
            "_unsafe_view",
            "flatten",
            "unflatten",
            "unsqueeze",
            "squeeze",
            "contiguous",
            "view_as",
            "reshape_as",
            "_reshape_alias",
        ):
            return self._emit("reshape", {"self": value, "shape": shape}, shape, dtype)
        if operator in ("unbind", "chunk", "split", "split_with_sizes"):
            dim = options.get("dim", 0) % len(shape)
            if operator == "unbind":
                made = {"self": base, "src": value, "dim": dim, "index": index}
                return self._emit("select_scatter", made, shape, dtype)
            if operator == "split_with_sizes":
                start = sum(options["split_sizes"][:index])
            elif operator == "split":
                start = options["split_size"] * index
            else:
                start = -(-shape[dim] // options["chunks"]) * index
            made = {"self": base, "src": value, "dim": dim, "start": start, "end": start + viewed[dim]}
            return self._emit("slice_scatter", made, shape, dtype)
        from fastrnn.importers.torch_capture.recorder import Refused, where

        raise Refused(f"a write to what {operator} gives", where())
