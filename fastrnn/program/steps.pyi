from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from typing_extensions import CapsuleType, disjoint_base

from fastrnn.engine.simd.array_tables import INTEGER_OPERATIONS as INTEGER_OPERATIONS
from fastrnn.engine.simd.array_tables import MAP_OPERATIONS as MAP_OPERATIONS
from fastrnn.program.map_program import DEFAULTS as DEFAULTS
from fastrnn.program.map_program import SLOW as SLOW
from fastrnn.program.map_program import Scalar as Scalar

MOST_AXES: int
MOST_PLACES: int
MOST_INSTRUCTIONS: int

@disjoint_base
class Step:
    @property
    def arrays(self) -> int: ...
    @property
    def scratch_bytes(self) -> int: ...
    @property
    def cost(self) -> float: ...
    def run(self, *arrays: NDArray[Any]) -> None: ...

@disjoint_base
class MapStep(Step):
    def __init__(
        self,
        kernels: CapsuleType,
        arithmetic: str,
        shape: Sequence[int],
        inputs: Sequence[tuple[str, Sequence[int]]],
        program: Sequence[tuple[str, Sequence[int | Scalar], Sequence[float]]],
        outputs: Sequence[tuple[str, Sequence[int], int | Scalar]],
    ) -> None: ...

@disjoint_base
class ReduceStep(Step):
    def __init__(
        self,
        kernels: CapsuleType,
        reduction: str,
        arithmetic: str,
        shape: Sequence[int],
        strides: Sequence[int],
        dtype: str,
        axes: Sequence[int],
        out_strides: Sequence[int],
        out_dtype: str,
        correction: float = 1,
    ) -> None: ...

@disjoint_base
class RowFunctionStep(Step):
    def __init__(
        self,
        backend: CapsuleType,
        name: str,
        n: int,
        features: int,
        weight: NDArray[Any] | None = None,
        bias: NDArray[Any] | None = None,
        eps: float = 1e-5,
    ) -> None: ...

@disjoint_base
class GatherStep(Step):
    def __init__(
        self,
        kernels: CapsuleType,
        sizes: tuple[int, int, int],
        size: int,
        take_bytes: int,
        index_dtype: str,
        table_strides: tuple[int, int, int],
        index_strides: tuple[int, int, int],
        out_strides: tuple[int, int, int],
    ) -> None: ...
