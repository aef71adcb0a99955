"""How tensors are nested in arguments and results: as data."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from fastrnn.errors import brief, message

PLAIN = (bool, int, float, complex, str, type(None))


def describe(where: str, value: Any, leaves: list[torch.Tensor]) -> Any:
    """Return the structure of a value and append its tensors to ``leaves``, in order.

    Raises
    ------
    TypeError
        It holds something else than tensors, plain values and containers of them.
    """
    if isinstance(value, torch.Tensor):
        leaves.append(value)
        return {"array": len(leaves) - 1}
    if isinstance(value, PLAIN):
        return {"constant": value}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": [list(value._fields), [describe(where, part, leaves) for part in value]]}
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [describe(where, part, leaves) for part in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: describe(where, part, leaves) for key, part in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return describe(where, fields, leaves)
    raise TypeError(message(where, "tensors in tuples, lists and dicts", brief(value)))


def axes_of(dynamic: Any, structure: Any, where: str) -> Iterator[dict[int, str]]:
    """Yield the named axes of each tensor of a structure, as ``dynamic`` says, which is nested alike."""
    ((kind, content),) = structure.items()
    if kind == "array":
        if dynamic is None:
            yield {}
        elif isinstance(dynamic, dict) and all(isinstance(axis, int) for axis in dynamic):
            yield {axis: str(name) for axis, name in dynamic.items()}
        else:
            raise TypeError(message(where, "dynamic to name axes, as {0: 'B'}", brief(dynamic)))
    elif kind == "constant":
        return
    else:
        parts = (
            list(content.items())
            if kind == "dict"
            else list(enumerate(content[1] if kind == "named" else content))
        )
        for key, part in parts:
            if dynamic is None:
                inner = None
            elif kind == "dict":
                inner = dynamic.get(key) if isinstance(dynamic, dict) else None
            elif isinstance(dynamic, (tuple, list)):
                inner = dynamic[key] if key < len(dynamic) else None
            else:
                raise TypeError(message(where, "dynamic nested as the arguments are", brief(dynamic)))
            yield from axes_of(inner, part, where)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors of a nested value, in order. Other values are left out."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in _parts(value) for tensor in tensors_of(part)]


def with_tensors(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Return a nested value of the same types with other tensors, which are taken in order."""
    if isinstance(value, torch.Tensor):
        return next(tensors)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(with_tensors(part, tensors) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(with_tensors(part, tensors) for part in value)
    if isinstance(value, deque):
        return deque((with_tensors(part, tensors) for part in value), value.maxlen)
    if isinstance(value, dict):
        made = copy.copy(value)
        made.update((key, with_tensors(part, tensors)) for key, part in value.items())
        return made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: with_tensors(getattr(value, field.name), tensors)
            for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (tuple, list, deque)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return []
