"""Memory that is kept from call to call, so that a call in steady state allocates nothing."""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport uintptr_t

from fastrnn.engine.backend cimport FRNN_LINE
from fastrnn.engine.plain_arrays cimport is_plain

cnp.import_array()

# A larger workspace is given back after the call: that of a stack of bidirectional layers, which
# grows with T, or of a huge batch.
cdef size_t KEPT_BYTES = 128 * 1024 * 1024


cdef class Workspace:
    """Aligned scratch memory that grows and is kept."""

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int reserve(self, size_t size) except -1:
        """Have this many bytes at least. Where it had fewer, what was in it is lost."""
        cdef void *before
        if size > self.size:
            before = self.memory
            self.size = 0
            self.memory = NULL
            # Not earlier: if another thread forks now, the child must not free it again.
            PyMem_RawFree(before)
            self.memory = PyMem_RawMalloc(size + FRNN_LINE)
            if self.memory == NULL:
                raise MemoryError(f"fastrnn: expected {size} bytes of memory for a call, got none.")
            self.data = <char *>(aligned(<uintptr_t>self.memory))
            self.size = size
        return 0

    cdef bint is_large(self) noexcept:
        """Whether it is given back after the call."""
        return self.size > KEPT_BYTES


cdef class Spares:
    """Result arrays that are given out again once nobody else holds them.

    A call with `out=` returns new states but may allocate nothing, so it takes their arrays
    from here. Where there is no GIL a count of references proves nothing: all are new.
    """

    def __init__(self, Py_ssize_t most=8):
        self.arrays = []
        self.most = most if HAS_GIL else 0

    cdef cnp.ndarray take(self, int axes, const cnp.npy_intp *shape, int type_number):
        """An array of that shape with any content."""
        cdef cnp.ndarray array
        for array in self.arrays:
            # Two references: the list's and the loop's. Its last holder may have changed it.
            if (
                Py_REFCNT(array) == 2 and is_plain(array, axes, shape, type_number)
                and cnp.PyArray_ISCARRAY(array) and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_OWNDATA)
            ):
                return array
        array = cnp.PyArray_EMPTY(axes, <cnp.npy_intp *>shape, type_number, 0)
        if self.most:
            self.arrays = [*self.arrays[1 - self.most:], array]
        return array
