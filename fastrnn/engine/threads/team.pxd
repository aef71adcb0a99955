"""The library's threads; threads/threads.h tells what each function does."""

cdef extern from "threads/threads.h" nogil:
    ctypedef void (*frnn_work)(void *context, Py_ssize_t phase, int slice) noexcept nogil

    enum:
        FRNN_MOST_THREADS

    ctypedef struct frnn_company:
        float phase, work


cdef int available(int wanted) noexcept nogil
cdef frnn_company company_now(int threads, frnn_company usual) noexcept nogil
cdef void count_caller(int more) noexcept nogil
cdef void share(
    frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest,
) noexcept nogil
