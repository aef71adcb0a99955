"""What layers compute with, as the chains of streams see it."""

cimport numpy as cnp

from fastrnn.engine.backend cimport frnn_backend, frnn_cell, frnn_rows
from fastrnn.engine.plan cimport Stack, States

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FRNN_HAS_GIL 0
    #else
    #define FRNN_HAS_GIL 1
    #endif
    """
    # Of the build, not of the moment: a free-threaded Python has one while it loads a module.
    const bint HAS_GIL "FRNN_HAS_GIL"


cdef enum LinkKind:
    STACK        # recurrent layers: `stack`
    DENSE        # a projection: `cell`
    ROWS         # what is done to each row by itself: `rows`
    TABLE        # a row of `table` for each token
    ONE_HOT      # 1 at a token's place


cdef struct LinkWork:
    # What one layer of a chain computes with; read by all threads.
    LinkKind kind
    const frnn_backend *backend
    const Stack *stack
    const frnn_cell *cell
    frnn_rows rows
    const char *table           # (tokens, features_out)
    Py_ssize_t tokens           # how many there are; 0: the layer takes none
    Py_ssize_t features_in      # 0: any, as many as it gives
    Py_ssize_t features_out
    Py_ssize_t itemsize
    int threads                 # that may be used at most


cdef class Workspace:
    cdef void *memory
    cdef char *data
    cdef size_t size

    cdef int reserve(self, size_t size) except -1
    cdef bint is_large(self) noexcept


cdef class Link:
    cdef LinkWork work
    cdef object owner           # of the memory that `work` points into
    cdef int type_number        # of NumPy

    cdef int begin(self, LinkKind kind, backend, Py_ssize_t itemsize) except -1


cdef bint is_plain(object array, int axes, const cnp.npy_intp *shape, int type_number) noexcept
cdef bint is_whole(object x) noexcept
cdef bint are_tokens(object x, int axes, const cnp.npy_intp *shape, Py_ssize_t tokens) noexcept
cdef bint is_apart(cnp.ndarray a, cnp.ndarray b) noexcept
cdef States states_of(cnp.ndarray array, Py_ssize_t B)
