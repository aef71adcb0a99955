from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from typing_extensions import CapsuleType, disjoint_base

from fastrnn.narrow import NarrowWeight
from fastrnn.program.steps import Step

@disjoint_base
class ConvolutionWeights:
    phases: list[Any]
    groups: int
    taps: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    is_transposed: bool
    is_depthwise: bool
    channels_in: int
    channels_out: int
    def __init__(
        self,
        products: CapsuleType,
        weight: NDArray[Any] | NarrowWeight,
        bias: NDArray[Any] | None = None,
        groups: int = 1,
        stride: Sequence[int] = (1,),
        dilation: Sequence[int] = (1,),
        padding: Sequence[int] = (0,),
        is_transposed: bool = False,
    ) -> None: ...

@disjoint_base
class ConvolutionStep(Step):
    def __init__(
        self,
        kernels: CapsuleType,
        weights: ConvolutionWeights,
        batch: int,
        input: Sequence[int],
        output: Sequence[int],
        x_strides: Sequence[int],
        out_strides: Sequence[int],
    ) -> None: ...

@disjoint_base
class PoolStep(Step):
    def __init__(
        self,
        kernels: CapsuleType,
        pooling: str,
        batch: int,
        channels: int,
        input: Sequence[int],
        output: Sequence[int],
        taps: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        before: Sequence[int],
        x_strides: Sequence[int],
        out_strides: Sequence[int],
        after: Sequence[int] | None = None,
        counts_padding: bool = True,
        divisor: float = 0,
    ) -> None: ...

def pair(numbers: Sequence[int], first: int) -> tuple[int, int]: ...
def phases_of(
    taps: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> list[tuple[tuple[int, int], tuple[list[int], list[int]], tuple[int | None, int | None]]]: ...
