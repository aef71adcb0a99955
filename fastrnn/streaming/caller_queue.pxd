"""The queue of a pool's callers: first come, first served.

Who is next, and what a fork does to those who wait, is decided here. Nothing here is a Python object. The
functions are inline since one module alone uses them.

Why no two threads meet, on a Python without a GIL either:

- `is_taken`, `first`, `last` and every Caller are touched by whoever has shut the gate alone.
- `gate` and `is_torn` are written by `open_queue`, before a second thread knows of the queue, and by
  `begin_anew`, when there is no second thread.
- `spare`, `holder` and `is_changing` are read without the gate, so they are atomic. A thread finds its own
  number in `holder` only if it put it there itself, however late it sees what others put there.
- A turn ends by opening the gate or `called`, and the next one begins by shutting the same. So a holder sees
  all that the holders before it wrote, and what only holders touch is never touched by two at once. That is
  what a pool relies on.
- Another thread may fork at any moment of a turn. Its child begins with what the holder wrote until then: the
  holder says so before it writes what must not stay half done (`begin_change`).
"""

from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock, WAIT_LOCK,
)

from fastrnn.engine.threads.team cimport frnn_watcher, unwatch_forks, watch_forks
from fastrnn.streaming.atomics cimport Atomic, load, order_writes, replace, store


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil


cdef enum Answer:
    # What a caller is told.
    GRANTED                     # the turn is the caller's
    NESTED                      # this thread has the turn already
    TORN                        # another thread was changing states when the process was forked
    NO_LOCK                     # there is no memory to wait with


cdef struct Caller:
    # Who waits; lies on the stack of its thread.
    PyThread_type_lock called   # free once the turn is this caller's
    Caller *next


cdef struct Queue:
    # Begins as zeros.
    frnn_watcher watcher        # first: its address is the queue's
    PyThread_type_lock gate     # held for a few instructions, by whoever looks at what follows
    Atomic spare                # a PyThread_type_lock: the gate after a fork, where nothing can be allocated
    bint is_taken
    Caller *first               # those who wait, in the order in which they came
    Caller *last
    Atomic holder               # the thread whose turn it is; 0: none
    Atomic is_changing          # from `begin_change` to `leave`
    bint is_torn                # another thread was changing something when the process was forked


cdef inline bint open_queue(Queue *queue) noexcept:
    """Whether there was memory for it. From now on the queue may not move."""
    queue.gate = PyThread_allocate_lock()
    make_spare(queue)
    if queue.gate == NULL or load(&queue.spare) == 0:
        return False
    queue.watcher.forked = begin_anew
    watch_forks(&queue.watcher)
    return True


cdef inline void close_queue(Queue *queue) noexcept:
    if queue.watcher.forked != NULL:
        unwatch_forks(&queue.watcher)
    if queue.gate != NULL:
        PyThread_free_lock(queue.gate)
    if load(&queue.spare) != 0:
        PyThread_free_lock(<PyThread_type_lock>load(&queue.spare))


cdef inline Answer enter(Queue *queue) noexcept:
    """Wait for the turn. Whoever is granted it calls `leave`."""
    cdef Caller caller
    cdef Py_ssize_t own = <Py_ssize_t>PyThread_get_thread_ident()
    if load(&queue.holder) == own:
        return NESTED
    if queue.is_torn:
        return TORN
    shut_gate(queue)
    if queue.is_taken:
        caller.called = PyThread_allocate_lock()
        if caller.called == NULL:
            PyThread_release_lock(queue.gate)
            return NO_LOCK
        wait(queue, &caller)
    else:
        queue.is_taken = True
        PyThread_release_lock(queue.gate)
    store(&queue.holder, own)
    return GRANTED


cdef inline void wait(Queue *queue, Caller *caller) noexcept:
    """Wait after all others. The gate is shut on entry, and open on return."""
    PyThread_acquire_lock(caller.called, WAIT_LOCK)
    caller.next = NULL
    if queue.first == NULL:
        queue.first = caller
    else:
        queue.last.next = caller
    queue.last = caller
    PyThread_release_lock(queue.gate)
    with nogil:
        PyThread_acquire_lock(caller.called, WAIT_LOCK)
        # `leave` may still be inside the lock that it released; it is not once the gate is open.
        PyThread_acquire_lock(queue.gate, WAIT_LOCK)
        PyThread_release_lock(queue.gate)
    PyThread_release_lock(caller.called)
    PyThread_free_lock(caller.called)


cdef inline void begin_change(Queue *queue) noexcept nogil:
    """For the holder: from now on a fork in another thread tears the pool of the child."""
    store(&queue.is_changing, True)
    order_writes()


cdef inline void leave(Queue *queue) noexcept:
    """End the turn, and call who is next."""
    store(&queue.is_changing, False)
    store(&queue.holder, 0)
    shut_gate(queue)
    if queue.first == NULL:
        queue.is_taken = False
    else:
        PyThread_release_lock(queue.first.called)
        queue.first = queue.first.next
    PyThread_release_lock(queue.gate)


cdef inline Py_ssize_t count_callers(Queue *queue) noexcept:
    """How many wait now."""
    cdef Py_ssize_t n = 0
    cdef Caller *caller
    shut_gate(queue)
    caller = queue.first
    while caller != NULL:
        n += 1
        caller = caller.next
    PyThread_release_lock(queue.gate)
    return n


cdef inline void shut_gate(Queue *queue) noexcept:
    if load(&queue.spare) == 0:
        make_spare(queue)
    PyThread_acquire_lock(queue.gate, WAIT_LOCK)


cdef inline void make_spare(Queue *queue) noexcept:
    """Before the gate is shut, so that a fork never finds a shut gate without a spare."""
    cdef PyThread_type_lock spare = PyThread_allocate_lock()
    if spare != NULL and not replace(&queue.spare, 0, <Py_ssize_t>spare):
        PyThread_free_lock(spare)


cdef inline void begin_anew(frnn_watcher *watcher) noexcept nogil:
    """In the child of a fork: the other threads are gone. A turn that this thread has stays its own."""
    cdef Queue *queue = <Queue *>watcher
    # A thread that is gone may have shut the gate. Without a spare nobody has touched it since the last fork.
    if load(&queue.spare) != 0:
        queue.gate = <PyThread_type_lock>load(&queue.spare)
        store(&queue.spare, 0)
    queue.first = NULL
    if load(&queue.holder) == <Py_ssize_t>PyThread_get_thread_ident():
        return
    queue.is_torn = queue.is_torn or load(&queue.is_changing)
    store(&queue.is_changing, False)
    store(&queue.holder, 0)
    queue.is_taken = False
