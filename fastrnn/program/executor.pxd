"""What runs the steps of a plan, for compiled code that calls it."""

cimport numpy as cnp
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from fastrnn.engine.backend cimport frnn_backend
from fastrnn.engine.workspace cimport Workspace
from fastrnn.program.steps cimport RunStep


cdef enum:
    MOST_ARRAYS = 64            # of a step
    MOST_AXES = 32


cdef struct Place:
    # Where a step finds an array: at an address; in a loop, further on with each step of it.
    int base                    # 0: offset is the address. 1: the workspace. Then inputs and outputs
    Py_ssize_t offset
    Py_ssize_t advance


cdef struct Item:
    RunStep run                 # NULL: a loop of the `length` items after it
    const void *data
    const Place *places
    int arrays
    Py_ssize_t count
    int length


cdef struct Result:
    # An output: the array that a caller gets.
    int axes, type_number
    bint is_dense               # the array is all of its memory, in the order of its axes
    Py_ssize_t bytes, offset
    cnp.npy_intp sizes[MOST_AXES]
    cnp.npy_intp strides[MOST_AXES]


cdef struct RangeData:
    int64_t low, high           # both included
    Py_ssize_t count
    bint is_narrow              # int32, else int64
    PyObject *step


cdef struct Report:
    # What went wrong in a call. It lies before the scratch of its steps, which a step that fails fills in.
    # The run ends after that step.
    PyObject *error             # what Python raised
    const RangeData *ranges     # the check that found a number out of range
    int64_t number


cdef class CompiledPlan:
    cdef Item *items
    cdef Place *places
    cdef Result *results
    cdef cnp.npy_intp *sizes            # of all inputs, one after the other
    cdef int count, inputs, outputs, axes
    cdef size_t work_bytes, own_bytes, scratch_bytes, pointer_bytes
    cdef const frnn_backend *entered    # sets how this thread computes
    cdef const frnn_backend *begun      # is told of the beginning and the end of a call
    cdef tuple dtypes
    cdef object owners
    cdef list spaces                    # Workspaces that no call is using
    cdef readonly double cost

    cdef cnp.ndarray memory_of(self, Result *result)
    cdef Workspace space(self)
    cdef void run_items(self, char **bases, char *scratch) noexcept nogil
    cdef void run_until_failure(self, char **bases, char *scratch, const Report *report) noexcept nogil
