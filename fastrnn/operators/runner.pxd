"""Chains of layers in compiled code: what streams run."""

from fastrnn.operators.operator cimport LinkWork, Workspace
from fastrnn.engine.plan cimport Call


cdef enum:
    # Rows that go through several layers together: enough to use the weights that they read, few enough
    # that what lies between two layers stays in a cache.
    FLOW_ROWS = 1024


cdef struct ChainWork:
    # The layers of a chain, in order; read by all threads.
    LinkWork *links
    int count
    int stacks                  # how many are recurrent
    Py_ssize_t widest           # bytes of the widest row between two layers
    Py_ssize_t in_bytes         # of a row that the chain takes; a token is a Py_ssize_t
    Py_ssize_t out_bytes


cdef struct Flow:
    # T steps of B rows on their way through a chain.
    Py_ssize_t T, B
    int threads
    Call *calls                 # one a recurrent layer, which says where its states lie
    size_t *sizes               # of the calls' memory
    char *between[2]            # (T*B, widest)


cdef class Chain:
    cdef ChainWork work
    cdef tuple links
    cdef int type_number        # of NumPy: of what the chain gives
    cdef Py_ssize_t features_in, features_out, tokens, weight_bytes
    cdef int threads


cdef class FlowSpace:
    cdef Chain chain
    cdef Flow flow
    cdef Workspace workspace

    cdef int reserve(self, size_t size) except -1
    cdef int shrink(self) except -1


cdef size_t plan_flow(
    const ChainWork *chain, Flow *flow, Py_ssize_t T, Py_ssize_t B, int threads,
) noexcept nogil
cdef size_t flow_room(const ChainWork *chain, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil
cdef void fit_flow(
    const ChainWork *chain, Flow *flow, Py_ssize_t T, Py_ssize_t B, int threads, char *memory, size_t size,
) noexcept nogil
cdef bint is_divided(const ChainWork *chain, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil
cdef void run_flow(const ChainWork *chain, Flow *flow, const char *x, char *y) noexcept nogil
cdef double flow_ns(const ChainWork *chain, Py_ssize_t T, Py_ssize_t B) noexcept nogil
cdef void place_states(
    const ChainWork *chain, Flow *flow, char *records, Py_ssize_t record_bytes, const Py_ssize_t *slots,
) noexcept nogil
