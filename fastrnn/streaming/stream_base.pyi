from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self, disjoint_base

from fastrnn.operators.runner import Runner

class _Calls(Protocol):
    def step(
        self, stream: StreamBase, x: ArrayLike, out: NDArray[np.floating[Any]] | None, /
    ) -> NDArray[np.floating[Any]]: ...
    def run(
        self, stream: StreamBase, chunk: ArrayLike, out: NDArray[np.floating[Any]] | None, /
    ) -> NDArray[np.floating[Any]]: ...

def copy_arrays(source: list[NDArray[Any]], target: list[NDArray[Any]]) -> None: ...

@disjoint_base
class Exclusive:
    def __new__(cls, stream: StreamBase, method: str, sets_all: bool = False) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

@disjoint_base
class StreamBase:
    def _bind(
        self,
        runner: Runner | None,
        arrays: list[NDArray[np.floating[Any]]],
        batch_size: int | None,
        calls: _Calls,
    ) -> None: ...
    def step(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[np.floating[Any]]: ...
    def run(self, chunk: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[np.floating[Any]]: ...
    def _chunk_bytes(self) -> int: ...
    def _run_plain(self, method: str, x: NDArray[Any], y: NDArray[Any]) -> None: ...
