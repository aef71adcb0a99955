"""Calls that are planned and laid out, run by the threads of the team."""

from fastrnn.engine.call cimport Call, Order
from fastrnn.engine.plan cimport Plan
from fastrnn.engine.layer_stack cimport Stack


cdef int longest_first(const void *left, const void *right) noexcept nogil
cdef void sort_rows(Order *order, Py_ssize_t T, Py_ssize_t B, const Py_ssize_t *lengths) noexcept nogil
cdef void run_call(const Stack *stack, const Plan *plan, Call *call) noexcept nogil
