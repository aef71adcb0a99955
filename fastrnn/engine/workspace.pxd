"""Memory that is kept from call to call."""

cimport numpy as cnp

from fastrnn.engine.backend cimport FRNN_LINE

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


cdef inline size_t aligned(size_t size) noexcept nogil:
    """A size in whole cache lines."""
    return (size + FRNN_LINE - 1) & ~<size_t>(FRNN_LINE - 1)


cdef class Workspace:
    cdef void *memory
    cdef char *data
    cdef size_t size

    cdef int reserve(self, size_t size) except -1
    cdef bint is_large(self) noexcept


cdef class Spares:
    cdef list arrays
    cdef Py_ssize_t most

    cdef cnp.ndarray take(self, int axes, const cnp.npy_intp *shape, int type_number)
