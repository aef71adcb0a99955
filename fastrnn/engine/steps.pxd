"""The steps of a pass: small functions that every driver inlines."""

from libc.string cimport memcpy

from fastrnn.engine.backend cimport frnn_cell, frnn_step
from fastrnn.engine.call cimport Call, Inputs, Pass, Span, States
from fastrnn.engine.addresses cimport elements, row_at, running, state_at, time_of
from fastrnn.engine.layer_stack cimport Stack


cdef inline Span whole(const Stack *stack, Py_ssize_t columns) noexcept nogil:
    cdef Span span
    span.begin = 0
    span.size = columns * stack.itemsize
    return span


cdef inline Span units_of(
    const Stack *stack, const frnn_cell *cell, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """What the parts from first to last, excluding that, are of a row of h and of c. A cell with a projection
    is never divided."""
    cdef Py_ssize_t units = stack.part_units
    cdef Span span
    span.begin = first * units * stack.itemsize
    span.size = min(last * units, stack.hidden_size) * stack.itemsize - span.begin
    return span


cdef inline void gather_states(
    const States *states, const Pass *pass_, Py_ssize_t n, Span span, char *target, Py_ssize_t stride,
) noexcept nogil:
    """Gather the h or c of the first n rows before the pass; stride: bytes between rows there."""
    cdef Py_ssize_t b
    for b in range(n):
        memcpy(target + b * stride + span.begin, state_at(states, pass_.index, b) + span.begin, span.size)


cdef inline void keep_states(
    const States *states, const Pass *pass_, const char *source, Py_ssize_t stride, Span span,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Leave the h or c of the rows from first to last, excluding that, whose last step is made."""
    cdef Py_ssize_t b
    for b in range(first, last):
        memcpy(state_at(states, pass_.index, b) + span.begin, source + b * stride + span.begin, span.size)


cdef inline char *next_h(const Call *call, const Pass *pass_, Py_ssize_t s) noexcept nogil:
    """Where step s leaves h."""
    if pass_.is_in_place:
        return row_at(&pass_.y, time_of(call, pass_.is_reverse, s, 0), 0)
    return pass_.working.h[s % 2]


cdef inline void project(
    const Stack *stack, const Pass *pass_, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef const Inputs *inputs = &pass_.scratch.inputs
    pass_.cell.w_ih.products.project(
        pass_.cell, first, last, inputs.rows, inputs.data, inputs.stride, pass_.scratch.gates,
        pass_.scratch.step,
    )


cdef inline void begin_step(
    const Stack *stack, const Call *call, const Pass *pass_, frnn_step *step,
) noexcept nogil:
    """What is the same in all steps of a pass."""
    cdef const Inputs *inputs = &pass_.scratch.inputs
    step.n = running(call, pass_.begin, call.passes.shape.B)
    step.x = NULL if pass_.is_projected else inputs.data
    step.ldx = inputs.stride
    step.gates = pass_.scratch.gates
    step.rows = inputs.rows
    step.row = 0
    step.ld_next = pass_.ld_next
    step.c = pass_.c.data + pass_.index * pass_.c.layer if stack.has_cell_state else NULL
    step.ldc = elements(stack, pass_.c.row)
    step.c_order = pass_.c.order
    step.scratch = pass_.scratch.step
    step.first = 0
    step.last = call.passes.parts
    if pass_.working.c != NULL:
        step.c = pass_.working.c
        step.ldc = call.passes.ld_c
        step.c_order = NULL


cdef inline void gather_c(
    const Stack *stack, const Call *call, const Pass *pass_, Py_ssize_t n, Span span,
) noexcept nogil:
    """Before the first step of a call gather c, if it is kept apart."""
    if pass_.working.c != NULL and pass_.begin == 0:
        gather_states(pass_.c, pass_, n, span, pass_.working.c, call.passes.ld_c * stack.itemsize)


cdef inline void aim_step(
    const Stack *stack, const Call *call, const Pass *pass_, Py_ssize_t s, frnn_step *step,
) noexcept nogil:
    """Point a step at its gates and at h before and after it."""
    cdef const Inputs *inputs = &pass_.scratch.inputs
    if inputs.first >= 0:
        step.row = (time_of(call, pass_.is_reverse, s, 0) - inputs.first) * call.passes.shape.B
    if s > pass_.begin or (s > 0 and not pass_.is_in_place):
        step.h_prev = next_h(call, pass_, s - 1)
        step.ld_prev = pass_.ld_next
    elif pass_.h.order == NULL:
        step.h_prev = pass_.h.data + pass_.index * pass_.h.layer
        step.ld_prev = elements(stack, pass_.h.row)
    else:
        gather_states(
            pass_.h, pass_, step.n, whole(stack, stack.output_size), pass_.scratch.h,
            stack.output_size * stack.itemsize)
        step.h_prev = pass_.scratch.h
        step.ld_prev = stack.output_size
    step.h_next = next_h(call, pass_, s)
    step.is_odd = (s + call.parity) % 2


cdef inline void make_step(
    const Stack *stack, const Call *call, const Pass *pass_, Py_ssize_t s, frnn_step *step, Span span,
) noexcept nogil:
    """Make the parts of step s, and bring their h to its place."""
    cdef Py_ssize_t b, stride = pass_.ld_next * stack.itemsize
    pass_.cell.w_hh.products.step(pass_.cell, step)
    step.row += step.n
    if pass_.is_in_place:
        return
    for b in range(step.n):
        memcpy(
            row_at(&pass_.y, time_of(call, pass_.is_reverse, s, b), b) + span.begin,
            <const char *>step.h_next + b * stride + span.begin, span.size)


cdef inline void keep_h(
    const Stack *stack, const Call *call, const Pass *pass_, Py_ssize_t s, Py_ssize_t n_after, Py_ssize_t n,
    Span span,
) noexcept nogil:
    """Leave the h of the rows whose last step this was; after the last step of a pass in place, of all
    rows: the next pass finds it there."""
    if pass_.is_in_place and s + 1 == pass_.end:
        n_after = 0
    keep_states(pass_.h, pass_, next_h(call, pass_, s), pass_.ld_next * stack.itemsize, span, n_after, n)


cdef inline void keep_c(
    const Stack *stack, const Call *call, const Pass *pass_, Py_ssize_t n_after, Py_ssize_t n, Span span,
) noexcept nogil:
    """Leave the c of the rows whose last step this was, if it is kept apart."""
    if pass_.working.c != NULL:
        keep_states(pass_.c, pass_, pass_.working.c, call.passes.ld_c * stack.itemsize, span, n_after, n)
