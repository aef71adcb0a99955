from collections.abc import Callable, Sequence
from typing import Any

from fastrnn.arrays import Array

failures: list[BaseException]

class CompiledPlan:
    cost: float
    def __init__(
        self,
        items: Sequence[tuple[Any, Any]],
        bases: int,
        work_bytes: int,
        tables: Sequence[object],
        owners: object,
    ) -> None: ...
    def run(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> None: ...

class ReferenceStep:
    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]],
        outputs: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]],
    ) -> None: ...
