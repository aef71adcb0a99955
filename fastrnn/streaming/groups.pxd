"""Streams of a pool that are stepped together, a group after the other.

This is the one place where pools use the runner. The functions are inline since one module alone uses them.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from fastrnn.engine.row_order cimport RowLength, longest_first
from fastrnn.engine.plan cimport slices_of
from fastrnn.engine.blocks cimport count, rows_before
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, share
from fastrnn.operators.runner cimport (
    SWEEP_ROWS, Runner, Path, Run, RunSpace, fit_steps, steps_ns, steps_room, place_records, run_path,
)
from fastrnn.streaming.atomics cimport order_writes
from fastrnn.streaming.state_records cimport Records


cdef enum:
    # Streams of a group at most: their states and gates stay in the second-level cache.
    GROUP_STREAMS = 64
    # Streams of a slice at least.
    SLICE_STREAMS = 8


cdef struct Steps:
    # What one stream does in a call.
    RowLength row                     # how many steps, and its index in the call; first, for longest_first
    Py_ssize_t slot
    const char *source          # (steps, features)
    char *target


cdef struct Room:
    # For the streams of a call; begins as zeros.
    Py_ssize_t *slots           # (n,)
    Steps *steps                # (n,)
    Py_ssize_t n


cdef struct Groups:
    # The streams of a call, divided into groups, and those into slices.
    const Path *path
    const Records *records
    const Py_ssize_t *slots     # (n,)
    Py_ssize_t n
    const Steps *steps          # (n,): longest first; NULL: one step of each, from x to y
    const char *x               # (n, features), in the order of the slots
    char *y
    Py_ssize_t groups
    int slices
    int threads                 # that the steps of a group may use
    double longest              # nanoseconds of a slice
    Run *runs[FRNN_MOST_THREADS]  # one a slice
    char *memory[FRNN_MOST_THREADS]
    size_t run_bytes           # of each; the rows that a run takes and gives lie after it


cdef inline bint make_room(Room *room, Py_ssize_t n) noexcept nogil:
    """Have room for a call of n streams; False where there is no memory."""
    cdef Room larger, before
    if n <= room.n:
        return True
    before = room[0]
    larger.slots = <Py_ssize_t *>PyMem_RawMalloc(n * sizeof(Py_ssize_t))
    larger.steps = <Steps *>PyMem_RawMalloc(n * sizeof(Steps))
    if larger.slots == NULL or larger.steps == NULL:
        free_room(&larger)
        return False
    # In this order: if another thread forks now, the pool of the child goes on with what is written.
    room.slots = larger.slots
    room.steps = larger.steps
    order_writes()
    room.n = n
    order_writes()
    free_room(&before)
    return True


cdef inline void free_room(Room *room) noexcept nogil:
    PyMem_RawFree(room.slots)
    PyMem_RawFree(room.steps)


cdef inline list new_spaces(Runner runner):
    """The memory of each slice."""
    return [RunSpace(runner) for _ in range(runner.threads)]


cdef inline size_t largest_run(Runner runner) noexcept:
    """The memory that is enough for the run of any group."""
    cdef size_t most = 0
    cdef Py_ssize_t n
    for n in range(1, GROUP_STREAMS + 1):
        most = max(most, steps_room(&runner.path, most_steps(n), n, runner.threads))
    return most


cdef inline Py_ssize_t most_steps(Py_ssize_t n) noexcept nogil:
    """How many steps n streams of a group make together."""
    return max(1, SWEEP_ROWS // n)


cdef inline Py_ssize_t sort_steps(Room *room, Py_ssize_t n) noexcept nogil:
    """Put the longest of n streams first, and their slots in the same order; how many make a step at all."""
    cdef Py_ssize_t i
    if n > 1:
        qsort(room.steps, n, sizeof(Steps), longest_first)
    while n > 0 and room.steps[n - 1].row.length == 0:
        n -= 1
    for i in range(n):
        room.slots[i] = room.steps[i].slot
    return n


cdef inline int divide(Groups *work, Runner runner, list spaces, Py_ssize_t total) except -1:
    """Divide the streams, which make this many steps together, and get the memory; at least one stream."""
    cdef const Path *path = &runner.path
    cdef double time = steps_ns(path, 1, work.n) * total / work.n
    cdef RunSpace space
    cdef int i
    work.path = path
    work.slices = slices_of(time, work.n // SLICE_STREAMS, runner.threads)
    work.groups = count(count(work.n, GROUP_STREAMS), work.slices) * work.slices
    work.threads = runner.threads if work.slices == 1 else 1
    work.longest = time / work.slices
    for i in range(work.slices):
        space = spaces[i]
        space.reserve(work.run_bytes + SWEEP_ROWS * (path.in_bytes + path.out_bytes))
        work.runs[i] = &space.run
        work.memory[i] = space.workspace.data
    return 0


cdef inline void run_groups(Groups *work) noexcept nogil:
    if work.slices == 1:
        run_slice(work, 0, 0)
    else:
        share(run_slice, work, 1, work.slices, work.slices, work.longest)


cdef inline void run_slice(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """The only phase of one slice: its groups."""
    cdef const Groups *work = <const Groups *>context
    cdef int group = slice
    cdef Py_ssize_t first, last
    while group < work.groups:
        first = rows_before(work.n, group, <int>work.groups)
        last = rows_before(work.n, group + 1, <int>work.groups)
        if work.steps == NULL:
            run_one_step(work, slice, first, last)
        else:
            run_steps(work, slice, first, last)
        group += work.slices


cdef inline Run *place_run(
    const Groups *work, int slice, Py_ssize_t first, Py_ssize_t steps, Py_ssize_t n,
) noexcept nogil:
    """Plan steps of n streams, on their states."""
    cdef Run *run = work.runs[slice]
    fit_steps(work.path, run, steps, n, work.threads, work.memory[slice], work.run_bytes)
    place_records(work.path, run, work.records.data, work.records.bytes, work.slots + first)
    return run


cdef inline void run_one_step(
    const Groups *work, int slice, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Make one step of a group."""
    run_path(
        work.path, place_run(work, slice, first, 1, last - first),
        work.x + first * work.path.in_bytes, work.y + first * work.path.out_bytes)


cdef inline void run_steps(const Groups *work, int slice, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Make all steps of a group."""
    cdef const Steps *streams = work.steps + first
    cdef Py_ssize_t in_bytes = work.path.in_bytes, out_bytes = work.path.out_bytes
    cdef char *x = work.memory[slice] + work.run_bytes
    cdef char *y = x + SWEEP_ROWS * in_bytes
    cdef Py_ssize_t n = last - first, t = 0, steps, s, i
    while n > 0:
        # As long as all of them go on.
        steps = min(streams[n - 1].row.length - t, most_steps(n))
        for s in range(steps):
            for i in range(n):
                memcpy(x + (s * n + i) * in_bytes, streams[i].source + (t + s) * in_bytes, in_bytes)
        run_path(work.path, place_run(work, slice, first, steps, n), x, y)
        for s in range(steps):
            for i in range(n):
                memcpy(streams[i].target + (t + s) * out_bytes, y + (s * n + i) * out_bytes, out_bytes)
        t += steps
        while n > 0 and streams[n - 1].row.length == t:
            n -= 1
