from typing_extensions import disjoint_base

from fastrnn.operators.operator import Operator
from fastrnn.program.steps import Step

@disjoint_base
class RecurrentStep(Step):
    def __init__(
        self,
        operator: Operator,
        T: int,
        B: int,
        x_step: int,
        x_row: int,
        is_row_major: bool,
        is_ragged: bool,
    ) -> None: ...
