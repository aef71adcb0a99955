from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray
from typing_extensions import Self, disjoint_base

from fastrnn.engine.packing import PackedCell
from fastrnn.operators.operator import Operator

@disjoint_base
class Convolution(Operator):
    def __new__(
        cls,
        packed: Iterable[PackedCell],
        taps: int,
        stride: int,
        dilation: int,
        before: int,
        is_causal: bool,
        threads: int = 1,
    ) -> Self: ...
    def call(self, x: NDArray[Any], out: NDArray[Any], lengths: NDArray[Any] | None) -> None: ...
