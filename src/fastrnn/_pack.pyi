from typing import Any

from numpy.typing import NDArray
from typing_extensions import Self, disjoint_base

@disjoint_base
class PackedCell:
    def __new__(
        cls,
        kind: str,
        weight_ih: NDArray[Any],
        weight_hh: NDArray[Any] | None,
        weight_hr: NDArray[Any] | None,
        bias: NDArray[Any] | None,
        bias_hn: NDArray[Any] | None,
    ) -> Self: ...

def pack_dense(weight: NDArray[Any], bias: NDArray[Any] | None) -> PackedCell: ...
def pack_recurrent(
    kind: str,
    weight_ih: NDArray[Any],
    weight_hh: NDArray[Any],
    bias_ih: NDArray[Any] | None,
    bias_hh: NDArray[Any] | None,
    weight_hr: NDArray[Any] | None,
) -> PackedCell: ...
