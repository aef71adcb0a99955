"""The contract of operators: what the runner knows of each, and what each can do."""

from fastrnn.engine.call cimport States
from fastrnn.engine.row_order cimport Order


cdef enum:
    MOST_STATES = 2


cdef struct Extent:
    # How many steps and rows go through operators together, and how they lie.
    Py_ssize_t T, B
    bint is_batch_first         # as (B, T, features), else as (T, B, features)
    const Order *order          # of the rows of a ragged batch; NULL: all have T steps
    # Of the first operator alone: x is no C-contiguous array, and has these strides.
    bint is_strided
    Py_ssize_t x_step, x_row    # bytes from one time step to the next, from one row to the next


cdef struct StateShape:
    # An array of a state: (layers, B, columns).
    Py_ssize_t layers, columns


cdef struct OperatorInfo


# What every operator can do. `use` is its own memory for one use, of `use_bytes`: planned, laid out and told
# where its states lie before it runs. NULL: there is nothing to do.
ctypedef size_t (*plan_function)(
    const OperatorInfo *self, void *use, const Extent *extent, int threads) noexcept nogil
ctypedef size_t (*room_function)(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil
ctypedef void (*lay_out_function)(const OperatorInfo *self, void *use, char *memory) noexcept nogil
ctypedef void (*place_function)(const OperatorInfo *self, void *use, const States *states) noexcept nogil
ctypedef void (*run_function)(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y) noexcept nogil
ctypedef void (*give_function)(const OperatorInfo *self, Extent *extent) noexcept nogil
ctypedef double (*cost_function)(const OperatorInfo *self, const Extent *extent) noexcept nogil
ctypedef bint (*may_share_function)(
    const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil


cdef struct Contract:
    # For this many threads at most, which are no more than `info.threads`; the bytes of memory that it wants.
    plan_function plan
    room_function room              # the bytes that any such plan wants at most
    lay_out_function lay_out        # in memory of that size
    place_function place            # its states, in order, which a run changes in place
    run_function run                # x to y, which are C-contiguous
    give_function give              # turns the extent of x into that of y
    cost_function cost              # nanoseconds of one core
    may_share_function may_share    # whether it may use several threads, if all are free


cdef struct OperatorInfo:
    # Read by all threads.
    const Contract *can
    const void *data                # what its functions work on
    bint is_in_place                # y may be x
    bint takes_strides              # x need not be C-contiguous: `extent.is_strided`
    Py_ssize_t tokens               # how many there are; 0: it takes numbers
    Py_ssize_t features_in          # 0: any, as many as it gives
    Py_ssize_t features_out
    Py_ssize_t itemsize             # of what it gives
    Py_ssize_t weight_bytes         # that a step reads
    int threads                     # that it may use at most; whoever asks it something keeps to that
    int states                      # how many arrays its state has
    StateShape state[MOST_STATES]
    const char *initial[MOST_STATES]  # (layers, columns): what the states of all rows begin as; NULL: zeros
    size_t use_bytes


cdef class Operator:
    cdef OperatorInfo info
    cdef object owner               # of the memory that `info` points into
    cdef int type_number            # NumPy's, of what it gives

    cdef int begin(self, const Contract *can, dtype, int threads=*) except -1
