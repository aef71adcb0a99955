"""Where the memory of a call lies."""

from fastrnn.engine.call cimport Call
from fastrnn.engine.plan cimport Plan
from fastrnn.engine.layer_stack cimport Stack


cdef size_t bytes_of(const Stack *stack, const Plan *plan) noexcept nogil
cdef void lay_out(const Stack *stack, const Plan *plan, Call *call, char *memory) noexcept nogil
