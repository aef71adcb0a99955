"""How arrays are nested in what a program takes and returns, as data.

An array is ``{"array": i}``, its number. Anything else that is no container is ``{"constant": value}``.
Containers are ``{"tuple": [...]}``, ``{"list": [...]}``, ``{"dict": {...}}`` and, for a tuple with names,
``{"named": [names, [...]]}``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from fastrnn.errors import FormatError, brief, message

MOST_LEVELS = 32
PLAIN = (bool, int, float, complex, str)
CONTAINERS = ("tuple", "list", "dict", "named")


def rebuild(structure: Any, leaves: list[Any]) -> Any:
    """Return the value of a structure, with these leaves."""
    ((kind, content),) = structure.items()
    if kind == "array":
        return leaves[content]
    if kind == "constant":
        return content
    if kind == "dict":
        return {key: rebuild(part, leaves) for key, part in content.items()}
    if kind == "named":
        return tuple(rebuild(part, leaves) for part in content[1])
    return (tuple if kind == "tuple" else list)(rebuild(part, leaves) for part in content)


def names_of(structure: Any, path: str) -> Iterator[str]:
    """Yield a name for each tensor of a structure: "state.0"."""
    ((kind, content),) = structure.items()
    if kind == "array":
        yield path
    elif kind in ("tuple", "list"):
        for index, part in enumerate(content):
            yield from names_of(part, f"{path}.{index}")
    elif kind == "named":
        for name, part in zip(*content, strict=True):
            yield from names_of(part, f"{path}.{name}")
    elif kind == "dict":
        for key, part in content.items():
            yield from names_of(part, f"{path}.{key}")


def leaves_of(structure: Any) -> Iterator[int]:
    """Yield the numbers of a structure's arrays, in the order in which `flatten` finds them."""
    ((kind, content),) = structure.items()
    if kind == "array":
        yield content
    elif kind != "constant":
        parts = content.values() if kind == "dict" else content[1] if kind == "named" else content
        for part in parts:
            yield from leaves_of(part)


def may_be_left_out(structure: Any, optional: Collection[int]) -> bool:
    """Whether None may stand for all arrays of a structure, or is all that the structure holds."""
    numbers = list(leaves_of(structure))
    return all(number in optional for number in numbers) if numbers else structure == {"constant": None}


def flatten(
    where: str, structure: Any, value: Any, path: str, leaves: list[Any], optional: Collection[int] = ()
) -> None:
    """Append the arrays of a value to ``leaves``, in order.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    structure : structure
    value : object
    path : str
        What messages call the value.
    leaves : list
    optional : collection of int
        The numbers of arrays that may be left out. None stands for them, or for a container of nothing else.

    Raises
    ------
    TypeError
        The value is nested in another way than the structure.
    ValueError
        A constant is another one.
    """
    ((kind, content),) = structure.items()
    if kind == "array":
        leaves.append(value)
    elif value is None and optional and may_be_left_out(structure, optional):
        leaves += [None for _ in leaves_of(structure)]
    elif kind == "constant":
        if value is not content and (getattr(value, "ndim", 0) > 0 or value != content):
            hint = "The program was made for this value."
            raise ValueError(message(where, f"{path} to be {brief(content)}", brief(value), hint))
    elif kind == "dict":
        if not hasattr(value, "keys") or set(value.keys()) != set(content):
            got = ", ".join(map(str, value.keys())) if hasattr(value, "keys") else brief(value)
            raise TypeError(message(where, f"{path} to be a dict of {', '.join(content)}", got))
        for key, part in content.items():
            flatten(where, part, value[key], f"{path}.{key}", leaves, optional)
    else:
        parts = content[1] if kind == "named" else content
        if not isinstance(value, (tuple, list)) or len(value) != len(parts):
            got = f"{len(value)}" if isinstance(value, (tuple, list)) else brief(value)
            raise TypeError(message(where, f"{path} to be a tuple of {len(parts)}", got))
        for index, (part, own) in enumerate(zip(parts, value, strict=True)):
            flatten(where, part, own, f"{path}.{index}", leaves, optional)


def map_constants(structure: Any, change: Callable[[Any], Any], depth: int = 0) -> Any:
    """Return a structure with ``change`` applied to its constants. What is no structure stays as it is."""
    if not isinstance(structure, dict) or len(structure) != 1 or depth > MOST_LEVELS:
        return structure
    ((kind, content),) = structure.items()
    if kind == "constant":
        return {kind: change(content)}
    if kind in ("tuple", "list") and isinstance(content, list):
        return {kind: [map_constants(part, change, depth + 1) for part in content]}
    if kind == "dict" and isinstance(content, dict):
        return {kind: {key: map_constants(part, change, depth + 1) for key, part in content.items()}}
    if kind == "named" and isinstance(content, list) and len(content) == 2 and isinstance(content[1], list):
        return {kind: [content[0], [map_constants(part, change, depth + 1) for part in content[1]]]}
    return structure


def check_structure(structure: Any, count: int) -> None:
    """Raise FormatError unless this, read from a file, is a structure of that many arrays in order."""
    numbers: list[int] = []
    _check(structure, numbers, 0)
    if numbers != list(range(count)):
        raise FormatError(message("program", f"{count} arrays in its arguments or results", brief(numbers)))


def _check(structure: Any, numbers: list[int], depth: int) -> None:
    if not isinstance(structure, dict) or len(structure) != 1 or depth > MOST_LEVELS:
        raise FormatError(message("program", "a structure", brief(structure)))
    ((kind, content),) = structure.items()
    if kind == "array" and type(content) is int:
        numbers.append(content)
        return
    if kind == "constant" and (content is None or isinstance(content, PLAIN)):
        return
    parts: Any = None
    if kind in ("tuple", "list") and isinstance(content, list):
        parts = content
    elif kind == "dict" and isinstance(content, dict):
        parts = list(content.values())
    elif kind == "named" and isinstance(content, list) and len(content) == 2:
        names, parts = content
        if not isinstance(names, list) or not isinstance(parts, list) or len(names) != len(parts):
            parts = None
        elif not all(isinstance(name, str) for name in names):
            parts = None
    if parts is None:
        raise FormatError(message("program", "a structure", brief(structure)))
    for part in parts:
        _check(part, numbers, depth + 1)
