from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import CapsuleType, Self, disjoint_base

from fastrnn._pack import PackedCell

@disjoint_base
class Workspace: ...

@disjoint_base
class Spares:
    def __init__(self, most: int = 8) -> None: ...

@disjoint_base
class Dense:
    def __init__(self, packed: PackedCell, backend: CapsuleType) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...

@disjoint_base
class Recurrent:
    def __new__(cls, packed: Iterable[PackedCell], directions: int, backend: CapsuleType) -> Self: ...
    def call(self, x: object, state: object, out: object, batch_first: bool) -> tuple[Any, Any] | None: ...
    def spare(self, shape: tuple[int, ...]) -> NDArray[Any]: ...
    def run(
        self,
        x: NDArray[Any],
        h: NDArray[Any],
        c: NDArray[Any] | None,
        lengths: NDArray[np.intp] | None,
        out: NDArray[Any],
    ) -> None: ...

@disjoint_base
class Stepper:
    def bind(self, engine: Recurrent, h: NDArray[Any], c: NDArray[Any] | None, is_batched: bool) -> None: ...
    def step(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
