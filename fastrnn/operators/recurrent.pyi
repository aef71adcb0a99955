from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, disjoint_base

from fastrnn.engine.packing import PackedCell
from fastrnn.operators.operator import Operator

DIVISIONS: tuple[str, ...]

@disjoint_base
class Recurrent(Operator):
    def __new__(
        cls,
        packed: Iterable[PackedCell],
        directions: int,
        threads: int = 1,
        division: str | None = None,
        initial: Iterable[NDArray[Any]] = (),
    ) -> Self: ...
    def divided(self, division: str, threads: int) -> Recurrent: ...
    def plan(
        self,
        T: int,
        B: int,
        is_ragged: bool,
        threads: int,
        phase_ns: float,
        slowdown: float,
        lengths: NDArray[np.intp] | None = None,
        is_batch_first: bool = False,
    ) -> dict[str, Any]: ...
    def room(self, T: int, B: int, is_ragged: bool, threads: int) -> int: ...
