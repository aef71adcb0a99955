from typing import Any

from numpy.typing import NDArray
from typing_extensions import disjoint_base

@disjoint_base
class Operator:
    def apply(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...
