"""Steps: what a plan of a program runs, one after the other. Sizes and strides are known; only addresses
come later."""

from fastrnn.engine.array_kernels cimport frnn_array_kernels

ctypedef void (*RunStep)(const void *data, char *const *arrays, char *scratch) noexcept nogil


cdef struct StepInfo:
    # arrays: the addresses of the first elements of the inputs, then of the outputs; after them that of the
    # step's own memory, if it has any. scratch begins at a cache line; NULL where scratch_bytes is 0.
    RunStep run
    const void *data
    size_t scratch_bytes
    size_t own_bytes            # zeros at first, kept from run to run; each workspace has its own
    int arrays
    double cost                 # ns on one core, about


cdef class Step:
    cdef StepInfo info
    cdef object owner           # what `data` points into, besides the step itself


cdef const frnn_array_kernels *kernels_of(object kernels) except NULL
