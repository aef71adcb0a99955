"""Which tensors share memory, and what each of them is after one of them was written.

A write to a view is written down as a new value of the tensor that owns the memory, with the written part
put in its place. The other views of it are taken anew when they are next read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class View(NamedTuple):
    """How a tensor is a view of another one: its operator, with arguments, and which result it is."""

    operator: str
    arguments: dict[str, Any]
    result: int
    source_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str


class _Memory:
    """The memory that tensors share."""

    def __init__(self, value: Any) -> None:
        self.value = value  # of the tensor that owns it
        self.version = 0


class _Known:
    """A tensor: its memory, the tensor that it is a view of and how, its value and since when."""

    def __init__(self, memory: _Memory, source: _Known | None, view: View | None, value: Any) -> None:
        self.memory, self.source, self.view, self.value = memory, source, view, value
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
        self._set(tensor, _Known(_Memory(value), None, None, value))

    def share(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        """A tensor that is the same as another one."""
        known = self._known[id(source)]
        if tensor is not source:
            self._set(tensor, _Known(known.memory, known.source, known.view, self._value(known)))

    def view(self, tensor: torch.Tensor, source: torch.Tensor, value: Any, view: View) -> None:
        """A tensor that is a view of another one."""
        known = self._known[id(source)]
        self._set(tensor, _Known(known.memory, known, view, value))

    def value(self, tensor: torch.Tensor) -> Any:
        return self._value(self._known[id(tensor)])

    def write(self, tensor: torch.Tensor, value: Any) -> None:
        """The tensor was written: it is this value now."""
        known = self._known[id(tensor)]
        sources = []
        at = known
        while at.source is not None:
            sources.append((self._value(at.source), at))
            at = at.source
        whole = value
        for base, part in sources:
            assert part.view is not None
            whole = self._put_back(base, whole, part.view)
        known.memory.value = whole
        known.memory.version += 1
        known.value, known.version = value, known.memory.version

    def _value(self, known: _Known) -> Any:
        if known.version != known.memory.version:
            if known.source is None or known.view is None:
                known.value = known.memory.value
            else:
                known.value = self._viewed(self._value(known.source), known.view)
            known.version = known.memory.version
        return known.value

    def _viewed(self, value: Any, view: View) -> Any:
        name = next(iter(view.arguments))
        made = self._emit(view.operator, {**view.arguments, name: value}, view.shape, view.dtype)
        return made._replace(result=view.result)

    def _set(self, tensor: torch.Tensor, known: _Known) -> None:
        self._known[id(tensor)] = known
        self._kept.append(tensor)

    def _put_back(self, base: Any, value: Any, view: View) -> Any:
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
            "view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze", "contiguous",
            "view_as", "reshape_as", "_reshape_alias",
        ):  # fmt: skip
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
