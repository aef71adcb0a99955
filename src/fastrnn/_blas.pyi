from typing_extensions import CapsuleType

TABLES: dict[str, CapsuleType]
