from typing import Any

from numpy.typing import NDArray
from typing_extensions import CapsuleType

ISAS: tuple[str, ...]
TABLES: dict[str, dict[str, CapsuleType]]

def activate(table: CapsuleType, name: str, x: NDArray[Any], y: NDArray[Any]) -> None: ...
