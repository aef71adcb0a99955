from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import CapsuleType, Self, disjoint_base

from fastrnn._pack import PackedCell

PLANS: tuple[str, ...]

@disjoint_base
class Workspace: ...

@disjoint_base
class Spares:
    def __init__(self, most: int = 8) -> None: ...

@disjoint_base
class Dense:
    def __init__(
        self,
        packed: PackedCell,
        backend: CapsuleType,
        threads: int = 1,
        guard: AbstractContextManager[None] | None = None,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...

@disjoint_base
class Recurrent:
    def __new__(
        cls,
        packed: Iterable[PackedCell],
        directions: int,
        backend: CapsuleType,
        threads: int = 1,
        guard: AbstractContextManager[None] | None = None,
    ) -> Self: ...
    def plan(self, T: int, B: int, is_ragged: bool, threads: int) -> tuple[str, int]: ...
    def take_plan(self, name: str, threads: int) -> None: ...
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
