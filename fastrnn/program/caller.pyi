from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastrnn.graph import Input
from fastrnn.program.executor import CompiledPlan

@disjoint_base
class Form:
    def __init__(self, structure: Mapping[str, Any]) -> None: ...

@disjoint_base
class Caller:
    def __init__(
        self,
        arguments: Mapping[str, Any],
        results: Mapping[str, Any],
        inputs: Sequence[Input],
        hidden: Sequence[NDArray[Any]],
    ) -> None: ...
    def keep(self, plans: Iterable[CompiledPlan]) -> None: ...
    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
