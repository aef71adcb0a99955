"""Passes: one direction of one layer over a block of time."""

from fastrnn.engine.call cimport Call, Pass, Scratch
from fastrnn.engine.layer_stack cimport Stack


cdef Pass pass_of(
    const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t direction,
    Py_ssize_t begin, Scratch *scratch,
) noexcept nogil
cdef void find_inputs(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil
cdef void run_steps(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil
cdef void run_pass(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil
cdef void run_sweep(const Stack *stack, const Call *call, Py_ssize_t begin) noexcept nogil
cdef void clear_padding(
    const Stack *stack, const Call *call, Py_ssize_t T, Py_ssize_t B,
) noexcept nogil
