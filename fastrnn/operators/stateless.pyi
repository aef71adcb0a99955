from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from typing_extensions import CapsuleType, disjoint_base

from fastrnn.engine.packing import PackedCell
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.operator import Operator

@disjoint_base
class TokenRows(Operator):
    def __init__(
        self, table: NDArray[Any] | NarrowWeight | None, dtype: str, tokens: int, features: int
    ) -> None: ...

@disjoint_base
class RowFunction(Operator):
    def __init__(
        self,
        name: str,
        dtype: str,
        backend: CapsuleType,
        features: int = 0,
        weight: NDArray[Any] | None = None,
        bias: NDArray[Any] | None = None,
        eps: float = 0,
    ) -> None: ...

@disjoint_base
class Dense(Operator):
    def __init__(self, packed: PackedCell, threads: int = 1) -> None: ...

@disjoint_base
class Map(Operator):
    def __init__(
        self,
        dtype: str,
        backend: CapsuleType,
        kernels: CapsuleType,
        program: Iterable[tuple[str, NDArray[Any] | None, Sequence[float]]],
        features: int = 0,
    ) -> None: ...

@disjoint_base
class LastStep(Operator):
    def __init__(self, dtype: str, is_of_both: bool = False) -> None: ...

@disjoint_base
class OverSteps(Operator):
    def __init__(self, name: str, dtype: str, backend: CapsuleType, kernels: CapsuleType) -> None: ...
    def call(self, x: NDArray[Any], out: NDArray[Any], lengths: NDArray[Any] | None) -> None: ...
