"""The definition of every operator of a program, in NumPy: slow, obvious, with torch's results.

`OPERATORS` has them by ATen's name, without overload and without the underscore of in-place forms. Overloads
of one name share one function. Arguments are given by the names of ATen's schema. Arrays are NumPy arrays,
dtypes are names ("float32"), numbers are Python scalars, which are weak in type promotion. Results are an
array or a tuple of arrays. They may share memory with arguments, since nobody writes to them.

A module's operators are its public functions. Its table `ALIASES` has further names: synonyms, and names that
begin with an underscore. Sums and functions of float32 are computed in float64 and rounded once.

Schemas: https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/native_functions.yaml
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn.errors import brief, message
from fastrnn.reference.operators import (
    activations,
    arithmetic,
    attention,
    comparisons,
    complex_numbers,
    convolution,
    creation,
    functions,
    indexing,
    normalisation,
    ordering,
    padding,
    pieces,
    pooling,
    products,
    recurrent,
    reductions,
    resampling,
    scattering,
    shapes,
    signal,
)

MODULES: tuple[types.ModuleType, ...] = (
    arithmetic,
    comparisons,
    creation,
    functions,
    ordering,
    shapes,
    pieces,
    reductions,
    padding,
    activations,
    products,
    convolution,
    pooling,
    resampling,
    normalisation,
    indexing,
    scattering,
    attention,
    recurrent,
    complex_numbers,
    signal,
)

# Where and how a result is stored, and how random numbers are made. No result depends on these arguments.
IGNORED = {
    "copy",
    "device",
    "generator",
    "half_to_float",
    "implicit",
    "layout",
    "memory_format",
    "non_blocking",
    "pin_memory",
    "requires_grad",
}


def _operator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that drops arguments without effect, and whose results and errors have one form."""

    @functools.wraps(function)
    def call(*args: Any, **arguments: Any) -> Any:
        kept = {key: value for key, value in arguments.items() if key not in IGNORED}
        try:
            with np.errstate(all="ignore"):
                result = function(*args, **kept)
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            got = ", ".join([*map(brief, args), *(f"{key}={brief(value)}" for key, value in kept.items())])
            raise ValueError(message(name, "arguments that fit together", got, f"{error}")) from error
        if isinstance(result, (tuple, list)):
            return tuple(None if each is None else np.asarray(each) for each in result)
        return np.asarray(result)

    return call


def _functions(module: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the operators that a module defines, by name."""
    public = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    aliases = {name: getattr(module, other) for name, other in getattr(module, "ALIASES", {}).items()}
    return public | aliases


OPERATORS: dict[str, Callable[..., Any]] = {
    name: _operator(name, function) for module in MODULES for name, function in _functions(module).items()
}
