"""The library's threads for Python and the other compiled modules; this one alone has threads/threads.c."""

cdef extern from "threads/threads.h" nogil:
    int frnn_cores()
    void frnn_limit_cores(int cores)
    int frnn_available(int wanted)
    frnn_company frnn_company_now(int threads, frnn_company usual)
    void frnn_count_caller(int more)
    void frnn_watch_forks()
    void frnn_share(frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest)


def cores():
    """The cores that this thread may run on now, at most those that `limit_cores` allows."""
    return frnn_cores()


def limit_cores(int most):
    """Never use more cores than that; 0: as many as there are."""
    frnn_limit_cores(most)


def tried(int threads):
    """What a phase of so many threads costs, in nanoseconds, and how many times as long work takes beside
    that of others, as it was tried out lately; zeros where it was not."""
    cdef frnn_company company
    company.phase = company.work = 0
    company = frnn_company_now(threads, company)
    return company.phase, company.work


cdef int available(int wanted) noexcept nogil:
    return frnn_available(wanted)


cdef frnn_company company_now(int threads, frnn_company usual) noexcept nogil:
    return frnn_company_now(threads, usual)


cdef void count_caller(int more) noexcept nogil:
    frnn_count_caller(more)


cdef void share(
    frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest,
) noexcept nogil:
    frnn_share(work, context, phases, slices, threads, longest)


frnn_watch_forks()
