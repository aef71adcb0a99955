"""What makes the steps of a pool; the base of StreamPool.

The states of all streams lie in one block of memory, a record a stream. Callers take turns, and a turn is
compiled code from its first word to its last: arguments become plain arrays before, and errors are raised
behind it. So nobody else's code runs within (an interrupt, a finalizer, an `__array__`), and whoever calls
finds the pool whole. Only where layers have to be called one by one does a turn run Python.
"""

import os
from collections.abc import Iterable

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_get_thread_ident, PyThread_release_lock, PyThread_type_lock, WAIT_LOCK,
)
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastrnn.operators.runner cimport (
    SWEEP_ROWS, Runner, Path, Run, RunSpace, fit_steps, steps_ns, steps_room, place_records, run_path,
)
from fastrnn.engine.divisions cimport longest_first
from fastrnn.engine.plain cimport are_tokens, is_apart, is_plain, is_whole
from fastrnn.engine.workspace cimport Workspace
from fastrnn.engine.call cimport RowLength
from fastrnn.engine.plan cimport slices_of
from fastrnn.engine.shape cimport count, rows_before
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, share
from fastrnn.arrays import as_plain
from fastrnn.streaming.errors import (
    nested_turn,
    no_memory,
    torn_pool,
    unmade_pool,
    wrong_id,
    wrong_ids,
)

cnp.import_array()

cdef extern from "Python.h":
    int64_t PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

# Streams of a pool that are stepped together: their states and gates stay in the second-level cache.
cdef Py_ssize_t POOL_ROWS = 64
# A thread that helps with the steps of a pool has so many streams at least.
cdef Py_ssize_t SLICE_STREAMS = 8
# An id: the lowest bits are the slot.
cdef int SLOT_BITS = 32
cdef int64_t MOST_SLOTS = (<int64_t>1 << SLOT_BITS) - 1
# A slot that was given out so often is not given out again, so that no id comes back.
cdef int64_t MOST_USES = INT64_MAX >> SLOT_BITS

# What is wrong with an id.
cdef enum Fault:
    NONE
    UNKNOWN
    CLOSED
    REPEATED


cdef struct Part:
    # What one stream does in a call.
    RowLength row                     # its steps, and its place with the caller; first, for longest_first
    Py_ssize_t slot
    const char *source          # (steps, features)
    char *target


cdef struct Share:
    # A call for many streams, divided into blocks of them.
    const Path *chain
    char *records
    Py_ssize_t record_bytes
    const Part *parts           # (n,), longest first
    Py_ssize_t *slots           # (n,): those of the parts
    Py_ssize_t n
    Py_ssize_t blocks
    int slices
    int threads                 # that the steps of a block may use
    bint is_dense               # one step of each, rows in the order of the caller behind one another
    Run **flows                # one a slice
    char **memory               # one a slice
    size_t size                 # of the memory


cdef struct Slot:
    int64_t uses                # how often it was given out before
    int64_t call                # the last one that had it
    Py_ssize_t vacant           # by place, not by slot: those that are closed, the next one last
    bint is_open


cdef struct Waiter:
    # Who waits for the turn.
    PyThread_type_lock given    # free when the turn is this one's
    Waiter *next


cdef class Slots:
    """The states of many streams in one block of memory, a record a stream, and their steps.

    An id is a slot's number and, above it, how often the slot was given out before: an id that is closed
    never comes back.
    """

    cdef Runner chain            # None: the subclass makes all steps, on copies of the states
    cdef list columns           # (L, columns, dtype) of each array of a stream's state
    cdef Workspace records      # (capacity, record_bytes)
    cdef Py_ssize_t record_bytes
    cdef Slot *table            # (capacity,)
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t opened, vacancies, room
    cdef int64_t tag            # how often slots that are new were given out, so to speak
    cdef int64_t call
    cdef Part *parts            # (room,): of a call
    cdef Py_ssize_t *slots      # (room,)
    cdef list spaces            # FlowSpaces, one a slice
    cdef size_t block_size      # of the memory of a slice
    # The turn.
    cdef PyThread_type_lock gate  # held for a few instructions, by whoever looks at what follows
    cdef bint is_taken
    cdef Waiter *first          # those who wait, in the order in which they came
    cdef Waiter *last
    cdef unsigned long holder   # the thread whose turn it is; 0: nobody
    cdef bint is_moving         # states are being changed
    cdef bint is_torn           # and were, by another thread, when the process was forked

    def __cinit__(self, *args, **options):
        self.gate = PyThread_allocate_lock()
        if self.gate == NULL:
            raise MemoryError
        # The ids of another pool are not to fit by chance. Until a slot was used a million times they stay
        # below 2^53, where JavaScript's numbers hold them too.
        self.tag = int.from_bytes(os.urandom(3), "little") >> 4 | 1
        self.records = Workspace()

    def _bind(self, Runner chain, list columns, Py_ssize_t capacity):
        """Make room for so many streams, with no one open; columns: (L, columns, dtype) of each array of a
        state, in the order of a chain's records."""
        cdef Py_ssize_t n, size = 0
        for layers, features, dtype in columns:
            size += layers * features * dtype.itemsize
        # An odd number of cache lines: where it is a power of 2, records crowd into few sets of the cache. A
        # step of 256 streams, LSTM of 512 units, then takes 1.04 to 1.07 times as long (Zen 3, in turns).
        self.record_bytes = (size + 63) & ~63 | 64
        if chain is not None:
            self.spaces = [RunSpace(chain) for _ in range(chain.threads)]
            for n in range(1, POOL_ROWS + 1):
                self.block_size = max(
                    self.block_size, steps_room(&chain.path, steps_of(n), n, chain.threads))
        self.grow(capacity)
        self.chain = chain
        self.columns = columns  # from now on there is a pool

    def __dealloc__(self):
        PyMem_RawFree(self.table)
        PyMem_RawFree(self.parts)
        PyMem_RawFree(self.slots)
        if self.gate != NULL:
            PyThread_free_lock(self.gate)

    def __len__(self):
        return self.opened

    # ------------------------------------------------------------ turns

    cdef int enter(self, str method) except -1:
        """Wait for the turn: first come, first served."""
        cdef Waiter waiter
        if self.columns is None:
            raise unmade_pool(f"StreamPool.{method}")
        if self.holder == PyThread_get_thread_ident():
            raise nested_turn(f"StreamPool.{method}")
        PyThread_acquire_lock(self.gate, WAIT_LOCK)
        if self.is_taken:
            self.queue(&waiter)
        else:
            self.is_taken = True
            PyThread_release_lock(self.gate)
        if self.is_torn:
            self.leave()
            raise torn_pool(f"StreamPool.{method}")
        self.holder = PyThread_get_thread_ident()
        return 0

    cdef int queue(self, Waiter *waiter) except -1:
        """Wait behind all others; through the gate, which is closed."""
        waiter.given = PyThread_allocate_lock()
        if waiter.given == NULL:
            PyThread_release_lock(self.gate)
            raise no_memory("StreamPool", "room for a thread that waits")
        PyThread_acquire_lock(waiter.given, WAIT_LOCK)
        waiter.next = NULL
        if self.first == NULL:
            self.first = waiter
        else:
            self.last.next = waiter
        self.last = waiter
        PyThread_release_lock(self.gate)
        with nogil:
            PyThread_acquire_lock(waiter.given, WAIT_LOCK)
            # Whoever gave the turn is done with the lock when the gate is open.
            PyThread_acquire_lock(self.gate, WAIT_LOCK)
            PyThread_release_lock(self.gate)
        PyThread_release_lock(waiter.given)
        PyThread_free_lock(waiter.given)
        return 0

    cdef void leave(self) noexcept:
        self.is_moving = False
        self.holder = 0
        PyThread_acquire_lock(self.gate, WAIT_LOCK)
        if self.first == NULL:
            self.is_taken = False
        else:
            PyThread_release_lock(self.first.given)
            self.first = self.first.next
        PyThread_release_lock(self.gate)

    def _in_turn(self, str method, function):
        """Call a function in the pool's turn, where layers have to be called one by one. Compiled, so that no
        interrupt comes between taking the turn and what gives it back."""
        self.enter(method)
        try:
            return function()
        finally:
            self.leave()

    def _begin_anew(self):
        """In the child of a fork: the other threads are gone, and with them what they were at."""
        # The old gate may be closed for ever.
        self.gate = PyThread_allocate_lock()
        self.first = NULL
        if self.holder == PyThread_get_thread_ident():
            return
        self.is_torn = self.is_torn or self.is_moving
        self.holder = 0
        self.is_moving = False
        self.is_taken = False

    # ------------------------------------------------------------ slots

    cdef int grow(self, Py_ssize_t capacity) except -1:
        """Have so many slots; those there are stay as they are."""
        cdef Workspace records
        cdef Slot *table
        cdef Py_ssize_t slot
        if capacity > MOST_SLOTS:
            raise no_memory("StreamPool", f"room for {capacity} streams")
        table = <Slot *>PyMem_RawRealloc(self.table, capacity * sizeof(Slot))
        if table == NULL:
            raise no_memory("StreamPool", f"room for {capacity} streams")
        self.table = table
        records = Workspace()
        try:
            records.reserve(max(64, capacity * self.record_bytes))
        except MemoryError:
            raise no_memory("StreamPool", f"room for {capacity} streams") from None
        memset(table + self.capacity, 0, (capacity - self.capacity) * sizeof(Slot))
        if self.capacity:
            memcpy(records.data, self.records.data, self.capacity * self.record_bytes)
        self.records = records
        for slot in range(capacity - 1, self.capacity - 1, -1):
            table[slot].uses = self.tag
            table[self.vacancies].vacant = slot
            self.vacancies += 1
        self.capacity = capacity
        return 0

    def _open(self, list arrays):
        """Open a stream with this state, C-contiguous arrays (L, 1, columns), or zeros; give its id."""
        cdef Slot *slot
        cdef Py_ssize_t number
        self.enter("open")
        try:
            if self.vacancies == 0:
                self.grow(2 * self.capacity)
            number = self.table[self.vacancies - 1].vacant
            slot = &self.table[number]
            memset(self.records.data + number * self.record_bytes, 0, self.record_bytes)
            if arrays is not None:
                self.copy(&number, 1, arrays, True)
            self.vacancies -= 1
            self.opened += 1
            slot.is_open = True
            return slot.uses << SLOT_BITS | number
        finally:
            self.leave()

    def _read(self, str method, ids, bint is_closed):
        """The state of the one stream of these ids, as arrays (L, 1, columns); close it if is_closed."""
        cdef cnp.ndarray numbers = as_ids(method, ids)
        cdef list arrays = self._empty(1)
        cdef Py_ssize_t index, slot
        cdef Fault fault
        self.enter(method)
        try:
            fault = self.find(numbers, &index)
            if fault == NONE:
                slot = self.slots[0]
                self.copy(&slot, 1, arrays, False)
                if is_closed:
                    self.close_slot(slot)
        finally:
            self.leave()
        self.refuse(fault, method, ids, index)
        return arrays

    def reset(self, ids):
        """Bring the states of these streams back to zeros; they keep their ids.

        Parameters
        ----------
        ids : sequence of int
            Of open streams, in any order, no two the same.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice.
        TypeError
            ``ids`` does not hold whole numbers.
        RuntimeError
            The process was forked while another thread was at it, or this call is inside another one.
        """
        cdef cnp.ndarray numbers
        cdef Py_ssize_t n, i, index
        cdef Fault fault
        ids = listed("reset", ids)
        numbers = as_ids("reset", ids)
        n = cnp.PyArray_SIZE(numbers)
        self.enter("reset")
        try:
            fault = self.find(numbers, &index)
            if fault == NONE:
                self.is_moving = True
                for i in range(n):
                    memset(self.records.data + self.slots[i] * self.record_bytes, 0, self.record_bytes)
                self.is_moving = False
        finally:
            self.leave()
        self.refuse(fault, "reset", ids, index)

    cdef void close_slot(self, Py_ssize_t number) noexcept:
        cdef Slot *slot = &self.table[number]
        slot.is_open = False
        slot.uses += 1
        self.opened -= 1
        if slot.uses < MOST_USES:
            self.table[self.vacancies].vacant = number
            self.vacancies += 1

    cdef Fault find(self, cnp.ndarray numbers, Py_ssize_t *index) except *:
        """Find the streams of these ids, all open and no two the same: their parts and slots; or the first
        that is wrong, and where."""
        cdef const int64_t *ids = <const int64_t *>cnp.PyArray_DATA(numbers)
        cdef Py_ssize_t n = cnp.PyArray_SIZE(numbers), i, slot
        self.make_room(n)
        self.call += 1
        for i in range(n):
            index[0] = i
            slot = <Py_ssize_t>(ids[i] & MOST_SLOTS)
            if (
                slot >= self.capacity or not self.table[slot].is_open
                or self.table[slot].uses != ids[i] >> SLOT_BITS
            ):
                if slot < self.capacity and self.tag <= ids[i] >> SLOT_BITS < self.table[slot].uses:
                    return CLOSED
                return UNKNOWN
            if self.table[slot].call == self.call:
                return REPEATED
            self.table[slot].call = self.call
            self.slots[i] = self.parts[i].slot = slot
            self.parts[i].row.index = i
        return NONE

    cdef int refuse(self, Fault fault, str method, ids, Py_ssize_t index) except -1:
        """Raise what `find` found, if it is something."""
        if fault != NONE:
            raise wrong_id(f"StreamPool.{method}", ids[index], index, fault == REPEATED, fault == CLOSED)
        return 0

    cdef int make_room(self, Py_ssize_t n) except -1:
        """Have parts and slots for n streams."""
        if n <= self.room:
            return 0
        self.room = 0
        PyMem_RawFree(self.parts)
        PyMem_RawFree(self.slots)
        self.parts = <Part *>PyMem_RawMalloc(n * sizeof(Part))
        self.slots = <Py_ssize_t *>PyMem_RawMalloc(n * sizeof(Py_ssize_t))
        if self.parts == NULL or self.slots == NULL:
            raise no_memory("StreamPool", f"room for the steps of {n} streams")
        self.room = n
        return 0

    # ------------------------------------------------------------ states

    def _empty(self, Py_ssize_t n):
        """Arrays (L, n, columns) for the states of n streams, with any content."""
        return [np.empty((L, n, columns), dtype) for L, columns, dtype in self.columns]

    cdef int copy(self, const Py_ssize_t *slots, Py_ssize_t n, list arrays, bint inward) except -1:
        """Copy the states of n slots out of their records, or into them."""
        cdef Py_ssize_t offset = 0, layer, i, L, row
        cdef cnp.ndarray array
        cdef char *record
        cdef char *data
        self.is_moving = inward
        for array in arrays:
            L = cnp.PyArray_DIM(array, 0)
            row = cnp.PyArray_DIM(array, 2) * cnp.PyArray_ITEMSIZE(array)
            for layer in range(L):
                for i in range(n):
                    record = self.records.data + slots[i] * self.record_bytes + offset
                    data = cnp.PyArray_BYTES(array) + (layer * n + i) * row
                    if inward:
                        memcpy(record, data, row)
                    else:
                        memcpy(data, record, row)
                offset += row
        self.is_moving = False
        return 0

    def ids(self):
        """The ids of all open streams, a list of int."""
        cdef cnp.ndarray numbers
        cdef cnp.npy_intp shape[1]
        cdef Py_ssize_t slot, n = 0
        self.enter("ids")
        try:
            shape[0] = self.opened
            numbers = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INT64, 0)
            for slot in range(self.capacity):
                if self.table[slot].is_open:
                    (<int64_t *>cnp.PyArray_DATA(numbers))[n] = self.table[slot].uses << SLOT_BITS | slot
                    n += 1
        finally:
            self.leave()
        return numbers.tolist()

    def __contains__(self, id):
        """Whether a stream of this id is open."""
        cdef cnp.ndarray numbers
        cdef Py_ssize_t index
        if not is_whole(id):
            return False
        numbers = as_ids("__contains__", (id,))
        self.enter("__contains__")
        try:
            return self.find(numbers, &index) == NONE
        finally:
            self.leave()

    def _dump(self):
        """What a pool is made of anew: how often each slot was given out, the slots that are open, and their
        records (n, bytes)."""
        cdef Py_ssize_t slot, n = 0
        cdef cnp.ndarray uses, slots, records
        cdef cnp.npy_intp shape[2]
        self.enter("__reduce__")
        try:
            shape[0] = self.capacity
            uses = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INT64, 0)
            shape[0] = self.opened
            shape[1] = self.record_bytes
            slots = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INT64, 0)
            records = cnp.PyArray_EMPTY(2, shape, cnp.NPY_UINT8, 0)
            for slot in range(self.capacity):
                (<int64_t *>cnp.PyArray_DATA(uses))[slot] = self.table[slot].uses
                if self.table[slot].is_open:
                    (<int64_t *>cnp.PyArray_DATA(slots))[n] = slot
                    memcpy(
                        cnp.PyArray_BYTES(records) + n * self.record_bytes,
                        self.records.data + slot * self.record_bytes, self.record_bytes)
                    n += 1
        finally:
            self.leave()
        return uses, slots, records

    def _fill(self, uses, slots, records):
        """Take over what another pool of this model and capacity dumped."""
        cdef cnp.ndarray numbers = as_plain(uses, np.int64)
        cdef cnp.ndarray opened = as_plain(slots, np.int64)
        cdef cnp.ndarray rows = as_plain(records, np.uint8)
        cdef const int64_t *use = <const int64_t *>cnp.PyArray_DATA(numbers)
        cdef const int64_t *place = <const int64_t *>cnp.PyArray_DATA(opened)
        cdef Py_ssize_t slot, i, n = cnp.PyArray_SIZE(opened)
        if (
            np.shape(numbers) != (self.capacity,) or np.shape(rows) != (n, self.record_bytes)
            or len(np.unique(opened)) != n or (n and not 0 <= opened.min() <= opened.max() < self.capacity)
            or numbers.min() < 0 or numbers.max() > MOST_USES
        ):
            raise ValueError("StreamPool: expected the states of a pool of this model, got others.")
        self.enter("__reduce__")
        try:
            self.vacancies = 0
            self.opened = n
            self.tag = min(numbers.min(), MOST_USES - 1)
            for slot in range(self.capacity):
                self.table[slot].uses = use[slot]
                self.table[slot].is_open = False
            for i in range(n):
                self.table[place[i]].is_open = True
                memcpy(
                    self.records.data + place[i] * self.record_bytes,
                    cnp.PyArray_BYTES(rows) + i * self.record_bytes, self.record_bytes)
            for slot in range(self.capacity - 1, -1, -1):
                if not self.table[slot].is_open and use[slot] < MOST_USES:
                    self.table[self.vacancies].vacant = slot
                    self.vacancies += 1
        finally:
            self.leave()

    # ------------------------------------------------------------ steps

    def step(self, ids, X, out=None):
        """Make one time step of each of these streams.

        Parameters
        ----------
        ids : sequence of int
            Of open streams, in any order, no two the same.
        X : array-like, shape (n, I)
            A row for each id: real numbers; tokens: integers, shape (n,).
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``X``.

        Returns
        -------
        ndarray, shape (n, features)
            A row for each id, of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice; or the shape of ``X``, a token or ``out`` does not fit.
        TypeError
            ``ids`` or ``X`` does not hold numbers of its kind, or ``out`` is no ndarray.
        RuntimeError
            The process was forked while another thread was at it, or this call is inside another one.
        MemoryError
            There is not enough for the step.
        """
        cdef Runner chain = self.chain
        cdef cnp.ndarray numbers, x, y
        cdef Py_ssize_t n, i, index
        cdef Fault fault
        cdef cnp.npy_intp x_shape[2]
        cdef cnp.npy_intp y_shape[2]
        ids = listed("step", ids)
        numbers = as_ids("step", ids)
        n = cnp.PyArray_SIZE(numbers)
        if chain is None:
            return self._step_layers(ids, n, X, out)
        x_shape[0] = y_shape[0] = n
        x_shape[1] = chain.features_in
        y_shape[1] = chain.features_out
        if chain.tokens:
            is_fit = are_tokens(X, 1, x_shape, chain.tokens)
        else:
            is_fit = is_plain(X, 2, x_shape, chain.type_number) and cnp.PyArray_ISCARRAY_RO(X)
        x = X if is_fit else self._check_rows(X, n)
        if out is None:
            y = cnp.PyArray_EMPTY(2, y_shape, chain.type_number, 0)
        elif (
            is_plain(out, 2, y_shape, chain.type_number) and cnp.PyArray_ISCARRAY(out) and is_apart(out, x)
        ):
            y = out
        else:
            y = self._check_out(out, x)
        self.enter("step")
        try:
            fault = self.find(numbers, &index)
            if fault == NONE:
                for i in range(n):
                    self.parts[i].row.length = 1
                    self.parts[i].source = cnp.PyArray_BYTES(x) + i * chain.path.in_bytes
                    self.parts[i].target = cnp.PyArray_BYTES(y) + i * chain.path.out_bytes
                self.advance(n, n, True)
        finally:
            self.leave()
        self.refuse(fault, "step", ids, index)
        return y if out is None else out

    def _run(self, ids, list chunks, list outputs):
        """Run a checked chunk (T, I), or (T,) of tokens, of each of these streams."""
        cdef cnp.ndarray numbers = as_ids("run", ids), x, y
        cdef Py_ssize_t n = len(chunks), i, total = 0, index
        cdef Fault fault
        self.enter("run")
        try:
            fault = self.find(numbers, &index)
            if fault == NONE:
                for i in range(n):
                    x = chunks[i]
                    y = outputs[i]
                    self.parts[i].row.length = cnp.PyArray_DIM(x, 0)
                    self.parts[i].source = cnp.PyArray_BYTES(x)
                    self.parts[i].target = cnp.PyArray_BYTES(y)
                    total += self.parts[i].row.length
                self.advance(n, total, False)
        finally:
            self.leave()
        self.refuse(fault, "run", ids, index)

    cdef int advance(self, Py_ssize_t n, Py_ssize_t total, bint is_dense) except -1:
        """Run the parts, which have so many steps together."""
        cdef Share turn
        cdef Run *flows[FRNN_MOST_THREADS]
        cdef char *memory[FRNN_MOST_THREADS]
        cdef const Path *chain = &self.chain.path
        cdef double time
        cdef Py_ssize_t i
        cdef RunSpace space
        if n == 0:
            return 0
        if not is_dense:
            qsort(self.parts, n, sizeof(Part), longest_first)
            while n > 0 and self.parts[n - 1].row.length == 0:  # a block is of streams that make a step
                n -= 1
            if n == 0:
                return 0
            for i in range(n):
                self.slots[i] = self.parts[i].slot
        time = steps_ns(chain, 1, n) * total / n
        turn.chain = chain
        turn.records = self.records.data
        turn.record_bytes = self.record_bytes
        turn.parts = self.parts
        turn.slots = self.slots
        turn.n = n
        turn.is_dense = is_dense
        turn.slices = slices_of(time, n // SLICE_STREAMS, self.chain.threads)
        turn.blocks = count(count(n, POOL_ROWS), turn.slices) * turn.slices
        turn.threads = self.chain.threads if turn.slices == 1 else 1
        turn.size = self.block_size
        turn.flows = flows
        turn.memory = memory
        for i in range(turn.slices):
            space = self.spaces[i]
            space.reserve(self.block_size + SWEEP_ROWS * (chain.in_bytes + chain.out_bytes))
            flows[i] = &space.run
            memory[i] = space.workspace.data
        self.is_moving = True
        with nogil:
            if turn.slices == 1:
                run_blocks(&turn, 0, 0)
            else:
                share(run_blocks, &turn, 1, turn.slices, turn.slices, time / turn.slices)
        self.is_moving = False
        return 0

    # ------------------------------------------------------------ for layers that are called one by one

    def _read_all(self, str method, ids):
        """Copies of the states of these streams, (L, n, columns); whoever calls has the turn."""
        cdef cnp.ndarray numbers = as_ids(method, ids)
        cdef Py_ssize_t index, n = cnp.PyArray_SIZE(numbers)
        cdef list arrays = self._empty(n)
        self.refuse(self.find(numbers, &index), method, ids, index)
        self.copy(self.slots, n, arrays, False)
        return arrays

    def _write_all(self, list arrays, Py_ssize_t n):
        """Set the states that were read last."""
        self.copy(self.slots, n, arrays, True)


# ---------------------------------------------------------------- ids

def listed(method, ids):
    """Ids in an array, or in a list that nobody else changes. A set has no order that rows could have."""
    if type(ids) is tuple or (isinstance(ids, np.ndarray) and not isinstance(ids, np.ma.MaskedArray)):
        return ids
    if isinstance(ids, (set, frozenset, np.ma.MaskedArray)) or not isinstance(ids, Iterable):
        raise wrong_ids(f"StreamPool.{method}", ids)
    return list(ids)


cdef cnp.ndarray as_ids(str method, ids):
    """Ids in a list, a tuple or an array as an array of int64; one that is too large is -1, which none is."""
    cdef cnp.ndarray array
    cdef int64_t *data
    cdef Py_ssize_t i
    cdef cnp.npy_intp n
    cdef int overflow
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1 or ids.dtype.kind not in "iu" and ids.size:
            raise wrong_ids(f"StreamPool.{method}", ids)
        return as_plain(ids, np.int64)
    n = len(ids)
    array = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
    data = <int64_t *>cnp.PyArray_DATA(array)
    for i in range(n):
        number = ids[i]
        if not is_whole(number):
            raise wrong_ids(f"StreamPool.{method}", number, i)
        data[i] = PyLong_AsLongLongAndOverflow(number if type(number) is int else int(number), &overflow)
        if overflow:
            data[i] = -1
    return array


# ---------------------------------------------------------------- blocks of streams

cdef inline Py_ssize_t steps_of(Py_ssize_t n) noexcept nogil:
    """How many steps n streams of a block make together at most."""
    return max(1, SWEEP_ROWS // n)


cdef void run_blocks(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Share *turn = <const Share *>context
    cdef int block = slice
    while block < turn.blocks:
        run_block(
            turn, slice, rows_before(turn.n, block, <int>turn.blocks),
            rows_before(turn.n, block + 1, <int>turn.blocks))
        block += turn.slices


cdef void run_block(const Share *turn, int slice, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Take some streams through all of their steps."""
    cdef const Path *chain = turn.chain
    cdef Run *flow = turn.flows[slice]
    cdef const Part *parts = turn.parts + first
    cdef char *inputs = turn.memory[slice] + turn.size
    cdef char *outputs = inputs + SWEEP_ROWS * chain.in_bytes
    cdef Py_ssize_t n = last - first, t = 0, steps, s, i
    while n > 0:
        # As long as all of them go on.
        steps = min(parts[n - 1].row.length - t, steps_of(n))
        fit_steps(chain, flow, steps, n, turn.threads, turn.memory[slice], turn.size)
        place_records(chain, flow, turn.records, turn.record_bytes, turn.slots + first)
        if turn.is_dense:
            run_path(chain, flow, parts[0].source, parts[0].target)
        else:
            for s in range(steps):
                for i in range(n):
                    memcpy(
                        inputs + (s * n + i) * chain.in_bytes, parts[i].source + (t + s) * chain.in_bytes,
                        chain.in_bytes)
            run_path(chain, flow, inputs, outputs)
            for s in range(steps):
                for i in range(n):
                    memcpy(
                        parts[i].target + (t + s) * chain.out_bytes, outputs + (s * n + i) * chain.out_bytes,
                        chain.out_bytes)
        t += steps
        while n > 0 and parts[n - 1].row.length == t:
            n -= 1
