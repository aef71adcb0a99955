"""A plan: how a call is divided among threads, and the memory that it wants."""

from fastrnn.engine.blocks cimport Shape
from fastrnn.engine.layer_stack cimport Policy, Stack
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, frnn_sharing_cost


cdef enum Division:
    ALONE           # one thread does everything
    BY_ROWS         # a slice is some rows of the batch
    BY_DIRECTION    # a slice is a direction
    BY_UNITS        # a slice is some units of every step
    PIPELINED       # a slice is some of the stages: the projection of a layer, its steps


cdef struct RowShare:
    # BY_ROWS: the rows of a slice.
    Py_ssize_t first
    Shape shape


cdef struct Plan:
    # All that the drivers do for a call. Never changed once it is made.
    Division division
    Shape shape
    bint is_ragged              # rows have lengths
    int slices
    Py_ssize_t phases
    double alone_ns             # that one thread should take
    double longest_ns           # that a slice of a phase should take at most
    size_t bytes                # of memory
    RowShare shares[FRNN_MOST_THREADS]          # BY_ROWS: (slices,)
    int first_stages[FRNN_MOST_THREADS + 1]     # PIPELINED: (slices + 1,), the first stage of each slice


cdef frnn_sharing_cost LEAST

cdef void make_plan(
    const Stack *stack, Plan *plan, Py_ssize_t T, Py_ssize_t B, const Py_ssize_t *lengths, Policy policy,
) noexcept nogil
cdef void plan_for(
    const Stack *stack, Plan *plan, Py_ssize_t T, Py_ssize_t B, bint is_ragged, const Py_ssize_t *lengths,
    Policy policy, const frnn_sharing_cost *sharing,
) noexcept nogil
cdef size_t room(const Stack *stack, Py_ssize_t T, Py_ssize_t B, bint is_ragged, Policy policy) noexcept nogil
cdef bint is_worth_dividing(double time, Py_ssize_t parts) noexcept nogil
cdef int slices_of(double time, Py_ssize_t parts, int threads) noexcept nogil
