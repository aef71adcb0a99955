from typing_extensions import CapsuleType

TABLES: dict[tuple[str, str], CapsuleType]

def hold_threads(get: int, set: int) -> None: ...
