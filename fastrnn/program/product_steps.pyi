from collections.abc import Sequence

from typing_extensions import CapsuleType, disjoint_base

from fastrnn.engine.packing import PackedCell
from fastrnn.program.steps import Step

@disjoint_base
class DenseStep(Step):
    def __init__(
        self,
        packed: PackedCell,
        n: int,
        ldx: int,
        ldo: int,
        batch: int = 1,
        x_batch: int = 0,
        out_batch: int = 0,
    ) -> None: ...

@disjoint_base
class MatmulStep(Step):
    def __init__(
        self,
        kernels: CapsuleType,
        batch: Sequence[int],
        m: int,
        n: int,
        K: int,
        a_strides: Sequence[int],
        b_strides: Sequence[int],
        c_strides: Sequence[int],
    ) -> None: ...
