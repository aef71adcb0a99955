"""Calls that are planned and laid out, run by the threads of the team."""

from fastrnn.engine.call cimport Call
from fastrnn.engine.plan cimport Plan
from fastrnn.engine.layer_stack cimport Stack


cdef void run_call(const Stack *stack, const Plan *plan, Call *call) noexcept nogil
