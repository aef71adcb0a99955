from typing_extensions import CapsuleType

ISAS: tuple[str, ...]
TABLES: dict[str, dict[str, CapsuleType]]
PRODUCTS: dict[str, dict[tuple[str, str], CapsuleType]]
ASKING: dict[str, int]

def may_be_used(name: str) -> bool: ...
