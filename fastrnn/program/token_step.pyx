"""The step of an embedding with narrow rows: its operator, as that of the layer."""

from fastrnn.operators.operator cimport Extent, Operator, OperatorInfo
from fastrnn.operators.stateless import TokenRows
from fastrnn.program.steps cimport Step


cdef struct TokenData:
    OperatorInfo info
    Extent extent


cdef class TokenStep(Step):
    """A row of a table for each token.

    Arrays: the tokens (n,) as int64, C-contiguous; the rows (n, features), C-contiguous.

    Parameters
    ----------
    operator : TokenRows
        It takes no number beyond its table.
    n : int
    """

    cdef TokenData data

    def __init__(self, Operator operator not None, Py_ssize_t n):
        if not isinstance(operator, TokenRows):
            raise TypeError("TokenStep: expected TokenRows, got another operator.")
        self.owner = operator
        self.data.info = operator.info
        self.data.extent.T = 1
        self.data.extent.B = n
        self.info.run = run_tokens
        self.info.data = &self.data
        self.info.arrays = 2
        self.info.cost = 10 + <double>n * (2 + operator.info.features_out / 10.0)


cdef void run_tokens(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const TokenData *self = <const TokenData *>data
    self.info.can.run(&self.info, NULL, &self.extent, arrays[0], arrays[1])
