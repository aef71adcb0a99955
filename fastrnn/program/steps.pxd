"""Steps: what a plan of a program runs, one after the other. Sizes and strides are known; only addresses
come later."""

from fastrnn.engine.array_kernels cimport frnn_array_kernels

ctypedef void (*RunStep)(const void *data, char *const *arrays, char *scratch) noexcept nogil


cdef struct StepInfo:
    # arrays: the addresses of the first elements of the inputs, then of the outputs. scratch begins at a
    # cache line; NULL where scratch_bytes is 0.
    RunStep run
    const void *data
    size_t scratch_bytes
    int arrays
    double cost                 # ns on one core, about


cdef class Step:
    cdef StepInfo info
    cdef object owner           # what `data` points into, besides the step itself


cdef const frnn_array_kernels *kernels_of(object kernels) except NULL
