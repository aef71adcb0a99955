"""The runner: rows in, rows out, through every operator of a model.

Streams and pools ask it everything that depends on operators: how many steps go together, what they cost, how
much memory they want, among how many threads they are divided. Of a path they read the bytes of its rows, and
of its operators nothing.
"""

cimport numpy as cnp

from fastrnn.engine.workspace cimport Spares, Workspace
from fastrnn.operators.operator cimport Extent, OperatorInfo


cdef enum:
    # Rows that go through several operators together: enough to use the weights that they read, few enough
    # that what lies between two operators stays in a cache.
    SWEEP_ROWS = 1024


cdef struct Path:
    # Operators in order; read by all threads.
    OperatorInfo *operators
    int count
    int stateful                # how many have a state
    int threads                 # that any of them may use at most
    Py_ssize_t widest           # bytes of the widest row between two operators
    Py_ssize_t in_bytes         # of a row that the path takes; a token is a Py_ssize_t
    Py_ssize_t out_bytes
    size_t use_bytes            # of what the operators use


cdef struct Run:
    # Rows on their way along a path.
    Extent extent
    int threads
    char **arrays               # the states of all operators in order, where those are in arrays
    char *uses                  # each operator's own memory, one after the other
    size_t *sizes               # (count,): what each one wants besides
    char *between[2]            # (T*B, widest)
    char *memory                # for steps of streams
    size_t bytes


cdef class RunSpace


cdef class Runner:
    cdef Path path
    cdef readonly tuple operators
    cdef int type_number        # NumPy's, of what it gives
    cdef Py_ssize_t features_in, features_out, tokens, weight_bytes
    cdef bint gives_last        # of each row the last step alone
    cdef list spaces            # RunSpaces that no call is using
    cdef Spares spares

    cdef bint takes(self, object x, int axes, Extent *extent) noexcept
    cdef bint takes_state(self, object state, int axes, Py_ssize_t B, object out)
    cdef object new_state(self, object state, int axes, Py_ssize_t B, bint is_new, Run *run)
    cdef int run(
        self, RunSpace space, cnp.ndarray x, cnp.ndarray y, object lengths, Extent *extent,
    ) except -1
    cdef bint has_short_step(self, Py_ssize_t B) noexcept
    cdef int run_steps(self, RunSpace space, Py_ssize_t T, Py_ssize_t B, const char *x, char *y) except -1


cdef class RunSpace:
    cdef Run run
    cdef Workspace workspace
    cdef char *besides          # memory for whoever has it, besides that of the run

    cdef int reserve(self, size_t size) except -1
    cdef int reserve_steps(self, size_t size, size_t besides) except -1
    cdef int shrink(self) except -1


cdef inline Py_ssize_t steps_together(Py_ssize_t B) noexcept nogil:
    """How many steps of B rows go through several operators together."""
    return max(1, SWEEP_ROWS // B)


cdef size_t steps_room(const Path *path, Py_ssize_t T, Py_ssize_t B) noexcept nogil
cdef void plan_steps(const Path *path, Run *run, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil
cdef void run_path(const Path *path, Run *run, const char *x, char *y) noexcept nogil
cdef bint may_share(const Path *path, Py_ssize_t T, Py_ssize_t B) noexcept nogil
cdef double steps_ns(const Path *path, Py_ssize_t T, Py_ssize_t B) noexcept nogil
cdef int slices_apart(const Path *path, double time, Py_ssize_t most) noexcept nogil
cdef void place_arrays(const Path *path, Run *run, list arrays, Py_ssize_t B)
cdef void place_records(
    const Path *path, Run *run, char *records, Py_ssize_t record_bytes, const Py_ssize_t *slots,
) noexcept nogil
