from typing_extensions import CapsuleType

ARRAY_TABLES: dict[str, dict[str, CapsuleType]]
MAP_OPERATIONS: dict[str, int]
INTEGER_OPERATIONS: dict[str, int]
