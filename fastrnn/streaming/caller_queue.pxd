"""The queue of a pool's callers: first come, first served.

Who is next, and what a fork does to those who wait, is decided here. Nothing here is a Python object. The
functions are inline since one module alone uses them.
"""

from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock, WAIT_LOCK,
)

from fastrnn.engine.threads.team cimport frnn_watcher, unwatch_forks, watch_forks


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
    PyThread_type_lock spare    # the gate after a fork, where nothing can be allocated
    bint is_taken
    Caller *first               # those who wait, in the order in which they came
    Caller *last
    unsigned long holder        # the thread whose turn it is; 0: none
    bint is_changing            # the holder is changing states: it says so; `leave` says that it is over
    bint is_torn


cdef inline bint open_queue(Queue *queue) noexcept:
    """Whether there was memory for it. From now on the queue may not move."""
    queue.gate = PyThread_allocate_lock()
    queue.spare = PyThread_allocate_lock()
    if queue.gate == NULL or queue.spare == NULL:
        return False
    queue.watcher.forked = begin_anew
    watch_forks(&queue.watcher)
    return True


cdef inline void close_queue(Queue *queue) noexcept:
    if queue.watcher.forked != NULL:
        unwatch_forks(&queue.watcher)
    if queue.gate != NULL:
        PyThread_free_lock(queue.gate)
    if queue.spare != NULL:
        PyThread_free_lock(queue.spare)


cdef inline Answer enter(Queue *queue) noexcept:
    """Wait for the turn. Whoever is granted it calls `leave`."""
    cdef Caller caller
    if queue.holder == PyThread_get_thread_ident():
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
    queue.holder = PyThread_get_thread_ident()
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


cdef inline void leave(Queue *queue) noexcept:
    """End the turn, and call who is next."""
    queue.is_changing = False
    queue.holder = 0
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
    PyThread_acquire_lock(queue.gate, WAIT_LOCK)
    if queue.spare == NULL:
        queue.spare = PyThread_allocate_lock()


cdef inline void begin_anew(frnn_watcher *watcher) noexcept nogil:
    """In the child of a fork: the other threads are gone. A turn that this thread has stays its own."""
    cdef Queue *queue = <Queue *>watcher
    # A thread that is gone may have shut the gate. Without a spare nobody has touched it since the last fork.
    if queue.spare != NULL:
        queue.gate = queue.spare
        queue.spare = NULL
    queue.first = NULL
    if queue.holder == PyThread_get_thread_ident():
        return
    queue.is_torn = queue.is_torn or queue.is_changing
    queue.is_changing = False
    queue.holder = 0
    queue.is_taken = False
