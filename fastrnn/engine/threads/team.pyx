"""The team of threads, for Python and for the other compiled modules. This one alone links it."""

cdef extern from "threads/threads.h" nogil:
    void frnn_begin_team()
    int frnn_cores()
    void frnn_limit_cores(int cores)
    int frnn_available(int wanted)
    frnn_sharing_cost frnn_sharing_cost_now(int threads, frnn_sharing_cost usual)
    void frnn_count_caller(int more)
    void frnn_share(frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest)
    unsigned frnn_jobs()

cdef extern from "threads/forks.h" nogil:
    unsigned long frnn_fork_generation()
    void frnn_watch_forks(frnn_watcher *watcher)
    void frnn_unwatch_forks(frnn_watcher *watcher)
    void frnn_lock_over_forks(void (*lock)() noexcept nogil, void (*unlock)() noexcept nogil)


def cores():
    """The cores that this thread may run on now, at most those that `limit_cores` allows."""
    return frnn_cores()


def limit_cores(int most):
    """Never use more cores than this; 0: as many as there are."""
    frnn_limit_cores(most)


def sharing_cost(int threads):
    """What sharing work among this many threads costs, as a trial measured it lately.

    Returns the nanoseconds of a phase, and how many times longer work takes next to that of the other
    threads. Zeros if there was no trial lately.
    """
    cdef frnn_sharing_cost cost
    cost.phase_ns = cost.slowdown = 0
    cost = frnn_sharing_cost_now(threads, cost)
    return cost.phase_ns, cost.slowdown


# ---------------------------------------------------------------- for tests

def jobs():
    """How many grids the team was given so far, trials included. One that its caller runs alone is none."""
    return frnn_jobs()


def share_function(function, Py_ssize_t phases, int slices, int threads, double longest=0.0):
    """Share a grid whose work is a Python function of (phase, slice). Raises a slice's first exception."""
    errors = []
    work = (function, errors)
    with nogil:
        frnn_share(call_function, <void *>work, phases, slices, threads, longest)
    if errors:
        raise errors[0]


cdef void call_function(void *context, Py_ssize_t phase, int slice) noexcept with gil:
    function, errors = <tuple>context
    try:
        function(phase, slice)
    except BaseException as error:
        errors.append(error)


# ---------------------------------------------------------------- for compiled modules

cdef int available(int wanted) noexcept nogil:
    return frnn_available(wanted)


cdef frnn_sharing_cost sharing_cost_now(int threads, frnn_sharing_cost usual) noexcept nogil:
    return frnn_sharing_cost_now(threads, usual)


cdef void count_caller(int more) noexcept nogil:
    frnn_count_caller(more)


cdef void share(
    frnn_work work, void *context, Py_ssize_t phases, int slices, int threads, double longest,
) noexcept nogil:
    frnn_share(work, context, phases, slices, threads, longest)


cdef unsigned long fork_generation() noexcept nogil:
    return frnn_fork_generation()


cdef void watch_forks(frnn_watcher *watcher) noexcept nogil:
    frnn_watch_forks(watcher)


cdef void unwatch_forks(frnn_watcher *watcher) noexcept nogil:
    frnn_unwatch_forks(watcher)


cdef void lock_over_forks(void (*lock)() noexcept nogil, void (*unlock)() noexcept nogil) noexcept nogil:
    frnn_lock_over_forks(lock, unlock)


frnn_begin_team()
