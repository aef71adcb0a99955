"""The shapes of all values of a graph at given sizes, without computing them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastrnn.graph import Graph, Size
from fastrnn.program.planner import Planner, Toolbox
from fastrnn.program.views import dense_strides


class Form(NamedTuple):
    """The type and shape of a value."""

    dtype: str
    shape: tuple[int, ...]


def forms_at(graph: Graph, tools: Toolbox, sizes: Mapping[str, int]) -> dict[str, Form]:
    """Return the form of every value, those inside loops too, where the inputs have these sizes."""
    shapes = [shape_at(form.shape, sizes) for form in graph.inputs]
    strides = [
        dense_strides(shape, ITEM_BYTES[form.dtype]) for form, shape in zip(graph.inputs, shapes, strict=True)
    ]
    # What is packed for these sizes alone goes with them.
    passing: Any = ChainMap({}, tools.packed)
    planner = Planner(graph, tools._replace(packed=passing), shapes, strides, {})
    planner.run()
    return {name: Form(value.dtype, tuple(value.shape)) for name, value in planner.values.items()}


def shape_at(shape: tuple[int | str, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[size] if isinstance(size, str) else size for size in shape)


def number_at(size: Any, forms: Mapping[str, Form]) -> Any:
    """A size as a number; inside a loop, as a size that depends on its step alone."""
    if not isinstance(size, Size) or size.operator == "step":
        return size
    if size.operator == "dim":
        return forms[size.left].shape[size.right]
    left, right = number_at(size.left, forms), number_at(size.right, forms)
    if isinstance(left, Size) or isinstance(right, Size):
        return Size(size.operator, left, right)
    return Size(size.operator, left, right).evaluate(lambda part: part)


ITEM_BYTES = {
    "float32": 4, "float64": 8, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "complex64": 8, "complex128": 16,
}  # fmt: skip
