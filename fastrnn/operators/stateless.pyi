from typing import Any

from numpy.typing import NDArray
from typing_extensions import CapsuleType, disjoint_base

from fastrnn.engine.packing import PackedCell
from fastrnn.operators.operator import Operator

@disjoint_base
class TokenRows(Operator):
    def __init__(self, table: NDArray[Any] | None, dtype: str, tokens: int, features: int) -> None: ...

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

class LastStep(Operator):
    def __init__(self, dtype: str) -> None: ...
