from collections.abc import Iterable

from typing_extensions import Self, disjoint_base

from fastrnn.operators.operator import Link

@disjoint_base
class Chain:
    def __new__(cls, links: Iterable[Link]) -> Self: ...

@disjoint_base
class FlowSpace:
    def __new__(cls, chain: Chain) -> Self: ...
