from collections.abc import Iterable
from typing import Any

from typing_extensions import Self, disjoint_base

from fastrnn.operators.operator import Operator

@disjoint_base
class Runner:
    operators: tuple[Operator, ...]
    def __new__(cls, operators: Iterable[Operator]) -> Self: ...
    def call(
        self,
        x: object,
        state: object = None,
        out: object = None,
        lengths: object = None,
        batch_first: bool = False,
    ) -> tuple[Any, Any] | None: ...

@disjoint_base
class RunSpace:
    def __new__(cls, runner: Runner) -> Self: ...
