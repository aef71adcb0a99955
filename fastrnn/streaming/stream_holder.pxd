"""Which thread has a stream: one at a time, and a second one is told so instead of waiting.

The functions are inline since one module alone uses them.

Why no two threads meet, on a Python without a GIL either: whatever a stream has is written by `_bind`, before
a second thread knows of the stream, or touched by its holder alone. A holder sees all that the holders before
it wrote. The fork generation changes only while there is one thread.
"""

from fastrnn.engine.threads.team cimport fork_generation
from fastrnn.streaming.atomics cimport Atomic, load, replace, store


cdef enum Claim:
    # What a thread that wants a stream is told.
    ITS_OWN
    TAKEN                       # another thread has it
    TORN                        # another thread had it when the process was forked


cdef inline Claim claim(Atomic *holder, bint sets_all) noexcept nogil:
    """Whoever gets the stream gives it back by `let_go`. sets_all: it sets the whole state, so it may have a
    stream that a fork tore. The holder is 0, or the fork generation of whoever has the stream."""
    cdef Py_ssize_t generation = <Py_ssize_t>fork_generation(), before
    if replace(holder, 0, generation):
        return ITS_OWN
    before = load(holder)
    if before == generation or before == 0:  # 0: the other thread has just let go
        return TAKEN
    if not sets_all:
        return TORN
    return ITS_OWN if replace(holder, before, generation) else TAKEN


cdef inline void let_go(Atomic *holder) noexcept nogil:
    store(holder, 0)
