from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from typing_extensions import CapsuleType, disjoint_base

from fastrnn.program.steps import Step

@disjoint_base
class CompiledPlan:
    @property
    def cost(self) -> float: ...
    def __new__(
        cls,
        items: Sequence[tuple[Any, Any]],
        shapes: Sequence[Sequence[int]],
        results: Sequence[tuple[int, str, Sequence[int], Sequence[int], int]],
        work_bytes: int,
        tables: Iterable[CapsuleType | None],
        owners: object,
    ) -> CompiledPlan: ...
    def run(self, inputs: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]: ...

@disjoint_base
class ReferenceStep(Step):
    def __init__(
        self,
        where: str,
        function: Callable[..., Any],
        inputs: Sequence[tuple[str, Sequence[int], Sequence[int]]],
        outputs: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    ) -> None: ...

@disjoint_base
class RangeStep(Step):
    def __init__(
        self, where: str, what: str, low: int, high: int, count: int, dtype: str, hint: str = ""
    ) -> None: ...
