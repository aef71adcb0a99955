from fastrnn.operators.operator import Operator

class RecurrentStep:
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
