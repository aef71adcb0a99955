"""The team of threads, and what is called after a fork; threads.h and forks.h say what each function does."""

cdef extern from "threads/threads.h" nogil:
    ctypedef void (*frnn_work)(void *context, Py_ssize_t phase, int slice) noexcept nogil

    enum:
        FRNN_MOST_THREADS

    ctypedef struct frnn_sharing_cost:
        float phase_ns, slowdown

cdef extern from "threads/forks.h" nogil:
    ctypedef struct frnn_watcher:
        void (*forked)(frnn_watcher *self) noexcept nogil
        frnn_watcher *next
        frnn_watcher *previous


cdef int available(int wanted) noexcept nogil
cdef frnn_sharing_cost sharing_cost_now(int threads, frnn_sharing_cost usual) noexcept nogil
cdef void count_caller(int more) noexcept nogil
cdef void share(
    frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest,
) noexcept nogil

cdef unsigned long fork_generation() noexcept nogil
cdef void watch_forks(frnn_watcher *watcher) noexcept nogil
cdef void unwatch_forks(frnn_watcher *watcher) noexcept nogil
cdef void lock_over_forks(void (*lock)() noexcept nogil, void (*unlock)() noexcept nogil) noexcept nogil
