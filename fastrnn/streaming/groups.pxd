"""Streams of a pool that are stepped together, a group after the other.

This is the one place where pools use the runner. The functions are inline since one module alone uses them.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from fastrnn.engine.row_order cimport RowLength, longest_first
from fastrnn.engine.blocks cimport count, rows_before
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, share
from fastrnn.operators.runner cimport (
    SWEEP_ROWS, Path, Run, Runner, RunSpace, place_records, plan_steps, run_path, slices_apart, steps_ns,
    steps_room, steps_together,
)
from fastrnn.streaming.atomics cimport order_writes
from fastrnn.streaming.state_records cimport Records


cdef enum:
    # Streams of a group at most: their states and gates stay in the second-level cache.
    GROUP_STREAMS = 64
    # Streams of a slice at least.
    SLICE_STREAMS = 8


cdef struct StreamSteps:
    # What one stream does in a call.
    RowLength row               # how many steps, and its index in the call; first, for longest_first
    Py_ssize_t slot
    const char *source          # (steps, features)
    char *target


cdef struct Batch:
    # The streams of a call. Begins as zeros, and is kept from call to call.
    Py_ssize_t *slots           # (most,)
    StreamSteps *steps          # (most,)
    Py_ssize_t most


cdef struct Groups:
    # The streams of a call, divided into groups, and those into slices.
    const Path *path
    const Records *records
    const Py_ssize_t *slots     # (n,)
    Py_ssize_t n
    const StreamSteps *steps    # (n,): longest first; NULL: one step of each, from x to y
    const char *x               # (n, features), in the order of the slots
    char *y
    Py_ssize_t groups
    int slices
    int threads                 # that the steps of a group may use
    double longest_ns           # of a slice
    Run *runs[FRNN_MOST_THREADS]        # of each slice
    char *gathered[FRNN_MOST_THREADS]   # of each slice: the rows that its run takes, and those that it gives


cdef inline bint grow_batch(Batch *batch, Py_ssize_t n) noexcept nogil:
    """Have room for a call of n streams; False where there is no memory."""
    cdef Batch larger, before
    if n <= batch.most:
        return True
    before = batch[0]
    larger.slots = <Py_ssize_t *>PyMem_RawMalloc(n * sizeof(Py_ssize_t))
    larger.steps = <StreamSteps *>PyMem_RawMalloc(n * sizeof(StreamSteps))
    if larger.slots == NULL or larger.steps == NULL:
        free_batch(&larger)
        return False
    # In this order: if another thread forks now, the pool of the child goes on with what is written.
    batch.slots = larger.slots
    batch.steps = larger.steps
    order_writes()
    batch.most = n
    order_writes()
    free_batch(&before)
    return True


cdef inline void free_batch(Batch *batch) noexcept nogil:
    PyMem_RawFree(batch.slots)
    PyMem_RawFree(batch.steps)


cdef inline Py_ssize_t sort_steps(Batch *batch, Py_ssize_t n) noexcept nogil:
    """Put the longest of n streams first, and their slots in the same order; how many make a step at all."""
    cdef Py_ssize_t i
    if n > 1:
        qsort(batch.steps, n, sizeof(StreamSteps), longest_first)
    while n > 0 and batch.steps[n - 1].row.length == 0:
        n -= 1
    for i in range(n):
        batch.slots[i] = batch.steps[i].slot
    return n


# ---------------------------------------------------------------- cutting, and memory for it

cdef inline void cut(Groups *work, const Path *path, Py_ssize_t total) noexcept nogil:
    """Cut streams, one at least, which make this many steps together, into slices for threads and groups for
    a cache.

    This is all that a pool decides about threads. An operator's plan divides its own work, and all threads
    wait for one another before the next operator. Streams never wait for one another: a slice takes its own
    through all operators. What that needs to know, the runner says by the contract: what steps cost. Where
    it does not pay, the steps of each group are divided as the operators plan it.
    """
    cdef double time = steps_ns(path, 1, work.n) * total / work.n
    work.path = path
    work.slices = slices_apart(path, time, work.n // SLICE_STREAMS)
    work.groups = count(count(work.n, GROUP_STREAMS), work.slices) * work.slices
    work.threads = path.threads if work.slices == 1 else 1
    work.longest_ns = time / work.slices


cdef inline list new_spaces(Runner runner):
    """The memory of each slice."""
    return [RunSpace(runner) for _ in range(runner.path.threads)]


cdef inline size_t largest_run(const Path *path) noexcept nogil:
    """The memory that is enough for the run of any group."""
    cdef size_t most = 1  # not 0, which is what a run has that got no memory yet
    cdef Py_ssize_t n
    for n in range(1, GROUP_STREAMS + 1):
        most = max(most, steps_room(path, steps_together(n), n))
    return most


cdef inline int reserve_runs(Groups *work, list spaces, size_t run_bytes) except -1:
    cdef RunSpace space
    cdef int i
    for i in range(work.slices):
        space = spaces[i]
        if space.run.bytes < run_bytes:
            space.reserve_steps(run_bytes, SWEEP_ROWS * (work.path.in_bytes + work.path.out_bytes))
        work.runs[i] = &space.run
        work.gathered[i] = space.besides
    return 0


# ---------------------------------------------------------------- running

cdef inline void run_groups(Groups *work) noexcept nogil:
    if work.slices == 1:
        run_slice(work, 0, 0)
    else:
        share(run_slice, work, 1, work.slices, work.slices, work.longest_ns)


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


cdef inline Run *plan_group(
    const Groups *work, int slice, Py_ssize_t first, Py_ssize_t steps, Py_ssize_t n,
) noexcept nogil:
    """Plan steps of n streams, on their states."""
    cdef Run *run = work.runs[slice]
    plan_steps(work.path, run, steps, n, work.threads)
    place_records(work.path, run, work.records.data, work.records.bytes, work.slots + first)
    return run


cdef inline void run_one_step(
    const Groups *work, int slice, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Make one step of a group."""
    run_path(
        work.path, plan_group(work, slice, first, 1, last - first),
        work.x + first * work.path.in_bytes, work.y + first * work.path.out_bytes)


cdef inline void run_steps(const Groups *work, int slice, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Make all steps of a group."""
    cdef const StreamSteps *streams = work.steps + first
    cdef Py_ssize_t in_bytes = work.path.in_bytes, out_bytes = work.path.out_bytes
    cdef char *x = work.gathered[slice]
    cdef char *y = x + SWEEP_ROWS * in_bytes
    cdef Py_ssize_t n = last - first, t = 0, steps, s, i
    while n > 0:
        # As long as all of them go on.
        steps = min(streams[n - 1].row.length - t, steps_together(n))
        for s in range(steps):
            for i in range(n):
                memcpy(x + (s * n + i) * in_bytes, streams[i].source + (t + s) * in_bytes, in_bytes)
        run_path(work.path, plan_group(work, slice, first, steps, n), x, y)
        for s in range(steps):
            for i in range(n):
                memcpy(streams[i].target + (t + s) * out_bytes, y + (s * n + i) * out_bytes, out_bytes)
        t += steps
        while n > 0 and streams[n - 1].row.length == t:
            n -= 1
