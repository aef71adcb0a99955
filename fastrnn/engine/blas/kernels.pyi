from typing_extensions import CapsuleType

PRODUCTS: dict[tuple[str, str], CapsuleType]

def hold_threads(get: int, set: int) -> None: ...
