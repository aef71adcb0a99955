from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import CapsuleType, Self, disjoint_base

from fastrnn.engine.packing import PackedCell

PLANS: tuple[str, ...]

@disjoint_base
class Workspace: ...

@disjoint_base
class Spares:
    def __init__(self, most: int = 8) -> None: ...

@disjoint_base
class Link: ...

class Tokens(Link):
    def __init__(self, table: NDArray[Any] | None, dtype: str, tokens: int, features: int) -> None: ...

class RowFunction(Link):
    def __init__(
        self,
        name: str,
        dtype: str,
        backend: CapsuleType,
        features: int = 0,
        weight: NDArray[Any] | None = None,
        bias: NDArray[Any] | None = None,
        eps: float = 0,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...

class Dense(Link):
    def __init__(
        self,
        packed: PackedCell,
        backend: CapsuleType,
        threads: int = 1,
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...

@disjoint_base
class Recurrent(Link):
    def __new__(
        cls,
        packed: Iterable[PackedCell],
        directions: int,
        backend: CapsuleType,
        threads: int = 1,
    ) -> Self: ...
    def plan(
        self, T: int, B: int, is_ragged: bool, threads: int, phase_ns: float, slowdown: float
    ) -> tuple[str, int, int]: ...
    def room(self, T: int, B: int, is_ragged: bool, threads: int) -> int: ...
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
