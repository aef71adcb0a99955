"""Where rows and states lie, and when each row has a step: small functions that every driver inlines."""

from libc.limits cimport INT_MAX

from fastrnn.engine.call cimport Call, Rows, States
from fastrnn.engine.layer_stack cimport Stack


cdef inline char *row_at(const Rows *rows, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    if rows.order != NULL:
        b = rows.order[b]
    return rows.data + (t - rows.first) * rows.step + b * rows.row


cdef inline char *state_at(const States *states, Py_ssize_t layer, Py_ssize_t b) noexcept nogil:
    if states.order != NULL:
        b = states.order[b]
    return states.data + layer * states.layer + b * states.row


cdef inline States states_from(const States *states, Py_ssize_t first) noexcept nogil:
    """Those of the rows from the first on."""
    cdef States rest = states[0]
    if rest.order != NULL:
        rest.order += first
    else:
        rest.data += first * rest.row
    return rest


cdef inline Py_ssize_t running(const Call *call, Py_ssize_t s, Py_ssize_t most) noexcept nogil:
    """How many rows, of the first `most`, have a step s."""
    if call.lengths == NULL:
        return most if s < call.passes.shape.T else 0
    while most > 0 and call.lengths[most - 1] <= s:
        most -= 1
    return most


cdef inline Py_ssize_t time_of(
    const Call *call, bint is_reverse, Py_ssize_t s, Py_ssize_t b,
) noexcept nogil:
    """The time step at which row b makes its step s."""
    if not is_reverse:
        return s
    return (call.passes.shape.T if call.lengths == NULL else call.lengths[b]) - 1 - s


cdef inline Py_ssize_t elements(const Stack *stack, Py_ssize_t stride) noexcept nogil:
    """Of this many bytes; a shift, not a division, since every call wants several."""
    return stride >> stack.item_shift


cdef inline bint is_blas_stride(const Stack *stack, Py_ssize_t stride, Py_ssize_t columns) noexcept nogil:
    """Whether rows that are aligned, as all are here, may go to BLAS as they lie."""
    return columns <= elements(stack, stride) <= INT_MAX
