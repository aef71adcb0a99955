from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import CapsuleType, Self, disjoint_base

from fastrnn.narrow import NarrowWeight

@disjoint_base
class PackedCell:
    memory: NDArray[np.uint8] | None
    def __new__(
        cls,
        products: tuple[CapsuleType | None, ...],
        kind: str,
        weight_ih: NDArray[Any] | NarrowWeight,
        weight_hh: NDArray[Any] | NarrowWeight | None,
        weight_hr: NDArray[Any] | NarrowWeight | None,
        bias: NDArray[Any] | None,
        bias_hn: NDArray[Any] | None,
    ) -> Self: ...

def backend_of(products: CapsuleType) -> CapsuleType: ...
def pack_dense(
    products: CapsuleType, weight: NDArray[Any] | NarrowWeight, bias: NDArray[Any] | None
) -> PackedCell: ...
def pack_recurrent(
    products: tuple[CapsuleType, ...],
    kind: str,
    weight_ih: NDArray[Any] | NarrowWeight,
    weight_hh: NDArray[Any] | NarrowWeight,
    bias_ih: NDArray[Any] | NarrowWeight | None,
    bias_hh: NDArray[Any] | NarrowWeight | None,
    weight_hr: NDArray[Any] | NarrowWeight | None,
) -> PackedCell: ...
