"""A plan: how a call is divided among threads, how its passes are made, and the memory that it wants."""

from fastrnn.engine.call cimport PassPlan, Rows
from fastrnn.engine.layer_stack cimport Policy, Stack
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, frnn_sharing_cost


cdef enum Division:
    ALONE           # one thread does everything
    BY_ROWS         # a slice is some rows of the batch
    BY_DIRECTION    # a slice is a direction
    BY_UNITS        # a slice is some units of every step
    PIPELINED       # a slice is some of the stages: the projection of a layer, its steps


cdef struct Request:
    # The call that is planned.
    Py_ssize_t T, B
    bint is_ragged              # rows have lengths
    const Py_ssize_t *lengths   # (B,): longest first; NULL in a ragged batch: any
    Rows source, target         # how they lie; the data is not known yet


cdef struct Plan:
    # All that the drivers do for a call. Never changed once it is made. Who asks for it fills in the request
    # and gives room for as many PassPlans as the policy has threads.
    Request request
    Division division
    int slices
    int scratches               # how many passes may be under way at the same time
    Py_ssize_t phases
    bint is_counted             # ALONE: for so long that others should not plan with the caller's core
    double longest_ns           # that a slice of a phase should take at most
    size_t bytes                # of memory
    # (slices + 1,): the first row (BY_ROWS), part (BY_UNITS) or stage (PIPELINED) of each slice, and the end
    Py_ssize_t first[FRNN_MOST_THREADS + 1]
    PassPlan *passes            # of all rows; BY_ROWS: (slices,), of the rows of each slice


cdef void make_plan(const Stack *stack, Plan *plan, Policy policy) noexcept nogil
cdef void plan_for(
    const Stack *stack, Plan *plan, Policy policy, frnn_sharing_cost sharing,
) noexcept nogil
cdef size_t room(const Stack *stack, const Request *request, Policy policy) noexcept nogil
cdef bint may_divide(const Stack *stack, const Request *request, Policy policy) noexcept nogil
cdef bint is_worth_dividing(double time, Py_ssize_t most) noexcept nogil
cdef int slices_of(double time, Py_ssize_t most, int threads) noexcept nogil
