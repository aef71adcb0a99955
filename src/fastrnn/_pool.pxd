# What Cython sees of pool/pool.h; the comments are there.

cdef extern from "pool/pool.h" nogil:
    ctypedef void (*frnn_work)(void *context, Py_ssize_t phase, int slice) noexcept nogil

    enum:
        FRNN_MOST_THREADS

    int frnn_cores()
    void frnn_limit_cores(int cores)
    int frnn_available(int wanted)
    void frnn_share(frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest)
