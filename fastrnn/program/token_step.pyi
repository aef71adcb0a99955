from typing_extensions import disjoint_base

from fastrnn.operators.stateless import TokenRows
from fastrnn.program.steps import Step

@disjoint_base
class TokenStep(Step):
    def __init__(self, operator: TokenRows, n: int) -> None: ...
