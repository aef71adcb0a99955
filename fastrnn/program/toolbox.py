"""What plans make their steps of: kernels, backends, packed weights, definitions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastrnn.program.planner import Toolbox


def operator_names() -> Collection[str]:
    """Return the names of the operators that a program may have."""
    from fastrnn.reference.operators import OPERATORS

    return OPERATORS.keys()


def make_toolbox(backend: str, threads: int | None) -> Toolbox:
    """Return the tools of one program: `packed` is its own."""
    from fastrnn.engine.backends import array_tables, pick_backend, row_table
    from fastrnn.reference.operators import OPERATORS

    kernels = array_tables()
    picked: dict[Any, Any] = {}

    def pick(dtype: str, **storages: str) -> Any:
        key = (dtype, *sorted(storages.items()))
        if key not in picked:
            picked[key] = pick_backend("Program", backend, dtype, threads, storages)
        return picked[key]

    rows = {dtype: row_table(dtype) for dtype in ("float32", "float64")}
    return Toolbox(kernels, rows, pick, {}, OPERATORS, pick("float32").threads)
