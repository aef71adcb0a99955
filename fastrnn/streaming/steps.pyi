from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self, disjoint_base

from fastrnn.operators.runner import Runner

def copy_arrays(source: list[NDArray[Any]], target: list[NDArray[Any]]) -> None: ...

@disjoint_base
class Alone:
    def __new__(cls, stepper: Stepper, method: str, heals: bool = False) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

@disjoint_base
class Stepper:
    def _bind(
        self,
        chain: Runner,
        states: list[tuple[NDArray[Any], NDArray[Any] | None]],
        batch_size: int | None,
    ) -> None: ...
    def step(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[np.floating[Any]]: ...
    def _run_plain(self, method: str, x: NDArray[Any], y: NDArray[Any]) -> None: ...
