"""The open streams of a pool: opened, read, changed and stepped in turns.

This is where the parts of a pool meet: which ids are open (ids.pxd), who has the turn (caller_queue.pxd),
where the states lie (state_records.pxd) and how streams are stepped together (groups.pxd).

A turn is compiled code from its first word to its last: arguments become plain arrays before it, and errors
are raised after it. So nobody else's code runs within a turn (an interrupt, a finalizer, an `__array__`), and
whoever calls finds the pool whole. Only where layers have to be called one by one does a turn run Python.
"""

import os

cimport numpy as cnp
import numpy as np
from libc.stdint cimport int64_t

from fastrnn.engine.plain_arrays cimport are_tokens, is_apart, is_plain, is_whole
from fastrnn.operators.runner cimport Runner
from fastrnn.streaming.atomics cimport load
from fastrnn.streaming.groups cimport (
    Batch, Groups, StreamSteps, cut, free_batch, grow_batch, largest_run, new_spaces, reserve_runs,
    run_groups, sort_steps,
)
from fastrnn.streaming.ids cimport (
    CLOSED, MOST_USES, NO_ROOM, NONE, REPEATED, Fault, Ids, close_slot, find_slots, free_ids, grow_ids, id_of,
    list_open, list_uses, open_slot, read_ids, restore_ids, tag_of,
)
from fastrnn.streaming.caller_queue cimport (
    GRANTED, NESTED, TORN, Answer, Queue, begin_change, close_queue, count_callers, enter, leave, open_queue,
)
from fastrnn.streaming.state_records cimport (
    Records, clear_record, free_records, grow_records, read_records, record_bytes, write_records,
)
from fastrnn.arrays import as_plain
from fastrnn.streaming.errors import (
    changed_ids, nested_turn, no_memory, torn_pool, unmade_pool, wrong_id, wrong_ids, wrong_states,
)

cnp.import_array()


cdef class OpenStreams:
    """What a pool has. Without columns it is that of a pool which is not made, and its calls say so."""

    # These never change.
    cdef Runner runner          # None: the layers have to be called one by one
    cdef list columns           # (L, columns, dtype) of each array of a stream's state
    cdef size_t run_bytes
    # Whoever has the turn alone touches these, but for what ids.pxd lets anybody read.
    cdef Queue queue
    cdef Ids table
    cdef Records records
    cdef list spaces            # the RunSpace of each slice
    cdef cnp.ndarray initial    # the record of a new stream; None: zeros
    cdef Batch batch            # the streams of a call

    def __cinit__(
        self, Runner runner=None, list columns=None, Py_ssize_t capacity=0, list initial=None,
    ):
        """Have room for this many streams. The columns are in the order of a runner's records. initial: the
        arrays (L, columns) of a new stream's state, in that order; None: zeros."""
        if not open_queue(&self.queue):
            raise MemoryError
        if columns is None:
            return
        self.table.tag = tag_of(int.from_bytes(os.urandom(4), "little"))
        self.records.bytes = record_bytes(sum([L * width * dtype.itemsize for L, width, dtype in columns]))
        if initial is not None:
            self.initial = np.zeros(self.records.bytes, np.uint8)
            content = b"".join([array.tobytes() for array in initial])
            self.initial[:len(content)] = np.frombuffer(content, np.uint8)
            self.records.initial = cnp.PyArray_BYTES(self.initial)
        if not self.grow(capacity):
            raise no_memory("StreamPool", f"room for {capacity} streams")
        if runner is not None:
            self.spaces = new_spaces(runner)
            self.run_bytes = largest_run(&runner.path)
        self.runner = runner
        self.columns = columns

    def __dealloc__(self):
        close_queue(&self.queue)
        free_ids(&self.table)
        free_records(&self.records)
        free_batch(&self.batch)

    cdef int take_turn(self, str method) except -1:
        """Wait for the turn. Whoever gets it gives it back by `leave`, whatever happens."""
        cdef Answer answer
        if self.columns is None:
            raise unmade_pool(f"StreamPool.{method}")
        answer = enter(&self.queue)
        if answer == NESTED:
            raise nested_turn(f"StreamPool.{method}")
        if answer == TORN:
            raise torn_pool(f"StreamPool.{method}")
        if answer != GRANTED:
            raise no_memory("StreamPool", "room for a thread that waits")
        return 0

    @property
    def waiting(self):
        """How many callers wait for their turn."""
        return count_callers(&self.queue)

    @property
    def is_changing(self):
        """Whether states are being changed: a fork now would tear them."""
        return bool(load(&self.queue.is_changing))

    # ------------------------------------------------------------ which streams there are

    @property
    def capacity(self):
        return load(&self.table.capacity)

    def __len__(self):
        return load(&self.table.opened)

    def __contains__(self, id):
        cdef cnp.ndarray numbers
        cdef Py_ssize_t index = 0
        cdef Fault fault
        if not is_whole(id):
            return False
        numbers = as_ids("__contains__", (id,))
        self.take_turn("__contains__")
        fault = self.find(numbers, &index)
        leave(&self.queue)
        return fault == NONE

    def ids(self):
        """The ids of all open streams."""
        cdef cnp.ndarray numbers
        cdef cnp.npy_intp n
        self.take_turn("ids")
        try:
            n = load(&self.table.opened)
            numbers = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
            list_open(&self.table, <int64_t *>cnp.PyArray_DATA(numbers), NULL)
        finally:
            leave(&self.queue)
        return numbers.tolist()

    def open(self, list arrays):
        """Open a stream with this state, C-contiguous arrays (L, 1, columns); None: the initial one."""
        cdef Py_ssize_t slot, more
        cdef int64_t number = -1
        self.take_turn("open")
        begin_change(&self.queue)
        more = 2 * load(&self.table.capacity)
        if self.table.vacancies or self.grow(more):
            slot = open_slot(&self.table)
            number = id_of(&self.table, slot)
            clear_record(&self.records, slot)
            if arrays is not None:
                self.copy(&slot, 1, arrays, True)
        leave(&self.queue)
        if number < 0:
            raise no_memory("StreamPool", f"room for {more} streams")
        return number

    cdef bint grow(self, Py_ssize_t capacity) noexcept:
        """Have this many slots, more than there were; False where there is no memory."""
        return grow_records(&self.records, capacity) and grow_ids(&self.table, capacity)

    cdef Fault find(self, cnp.ndarray numbers, Py_ssize_t *index) noexcept:
        """Find the slots of these ids; or what is wrong, and with which of them."""
        cdef Py_ssize_t n = cnp.PyArray_SIZE(numbers)
        if not grow_batch(&self.batch, n):
            return NO_ROOM
        return find_slots(&self.table, <const int64_t *>cnp.PyArray_DATA(numbers), n, self.batch.slots, index)

    # ------------------------------------------------------------ states

    def read(self, str method, ids, bint is_last):
        """The state of the one stream of these ids, as arrays (L, 1, columns); is_last: close it too."""
        cdef cnp.ndarray numbers = as_ids(method, ids)
        cdef list arrays = self.empty(1)
        cdef Py_ssize_t index = 0
        cdef Fault fault
        self.take_turn(method)
        fault = self.find(numbers, &index)
        if fault == NONE:
            self.copy(self.batch.slots, 1, arrays, False)
            if is_last:
                begin_change(&self.queue)
                close_slot(&self.table, self.batch.slots[0])
        leave(&self.queue)
        refuse(fault, method, ids, index)
        return arrays

    def reset(self, ids):
        """Bring the states of these streams back to the initial one."""
        cdef cnp.ndarray numbers = as_ids("reset", ids)
        cdef Py_ssize_t i, index = 0
        cdef Fault fault
        self.take_turn("reset")
        fault = self.find(numbers, &index)
        if fault == NONE:
            begin_change(&self.queue)
            for i in range(cnp.PyArray_SIZE(numbers)):
                clear_record(&self.records, self.batch.slots[i])
        leave(&self.queue)
        refuse(fault, "reset", ids, index)

    def change(self, str method, ids, function):
        """Give copies (L, n, columns) of the states of these streams to a function, keep what it leaves in
        them, and return what it returns."""
        cdef cnp.ndarray numbers = as_ids(method, ids)
        cdef Py_ssize_t n = cnp.PyArray_SIZE(numbers), index = 0
        cdef list arrays = self.empty(n)
        cdef Fault fault
        result = None
        self.take_turn(method)
        try:
            fault = self.find(numbers, &index)
            if fault == NONE:
                self.copy(self.batch.slots, n, arrays, False)
                result = function(arrays)
                begin_change(&self.queue)
                self.copy(self.batch.slots, n, arrays, True)
        finally:
            leave(&self.queue)
        refuse(fault, method, ids, index)
        return result

    cdef list empty(self, Py_ssize_t n):
        """Arrays (L, n, columns) for the states of n streams, with any content."""
        return [np.empty((L, n, columns), dtype) for L, columns, dtype in self.columns or ()]

    cdef void copy(self, const Py_ssize_t *slots, Py_ssize_t n, list arrays, bint is_inward) noexcept:
        """Copy the states of n slots out of their records, or into them."""
        cdef Py_ssize_t offset = 0, layer, bytes
        cdef cnp.ndarray array
        cdef char *data
        for array in arrays:
            bytes = cnp.PyArray_DIM(array, 2) * cnp.PyArray_ITEMSIZE(array)
            for layer in range(cnp.PyArray_DIM(array, 0)):
                data = cnp.PyArray_BYTES(array) + layer * n * bytes
                if is_inward:
                    write_records(&self.records, slots, n, offset, bytes, data)
                else:
                    read_records(&self.records, slots, n, offset, bytes, data)
                offset += bytes

    def dump(self):
        """How often each slot was given out, the n slots that are open, and their records (n, bytes)."""
        cdef cnp.ndarray uses, slots, records
        cdef cnp.npy_intp shape[2]
        self.take_turn("__reduce__")
        try:
            shape[0] = load(&self.table.capacity)
            uses = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INT64, 0)
            shape[0] = load(&self.table.opened)
            shape[1] = self.records.bytes
            slots = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INTP, 0)
            records = cnp.PyArray_EMPTY(2, shape, cnp.NPY_UINT8, 0)
            list_uses(&self.table, <int64_t *>cnp.PyArray_DATA(uses))
            list_open(&self.table, NULL, <Py_ssize_t *>cnp.PyArray_DATA(slots))
            read_records(
                &self.records, <const Py_ssize_t *>cnp.PyArray_DATA(slots), cnp.PyArray_SIZE(slots), 0,
                self.records.bytes, cnp.PyArray_BYTES(records))
        finally:
            leave(&self.queue)
        return uses, slots, records

    def fill(self, uses, slots, records):
        """Take over what another pool of this model and capacity dumped."""
        cdef cnp.ndarray counts = as_plain(uses, np.int64)
        cdef cnp.ndarray taken = as_plain(slots, np.intp).copy()  # as checked, whoever else has `slots`
        cdef cnp.ndarray content = as_plain(records, np.uint8)
        cdef const Py_ssize_t *open_slots = <const Py_ssize_t *>cnp.PyArray_DATA(taken)
        cdef Py_ssize_t n = cnp.PyArray_SIZE(taken)
        cdef Py_ssize_t capacity = load(&self.table.capacity)
        cdef bint fits = (
            np.shape(counts) == (capacity,) and np.shape(content) == (n, self.records.bytes)
            and len(np.unique(taken)) == n and (n == 0 or 0 <= taken.min() <= taken.max() < capacity)
            and 0 <= counts.min() <= counts.max() <= MOST_USES
        )
        if fits:
            self.take_turn("__setstate__")
            fits = load(&self.table.capacity) == capacity
            if fits:
                begin_change(&self.queue)
                restore_ids(&self.table, <const int64_t *>cnp.PyArray_DATA(counts), open_slots, n)
                write_records(&self.records, open_slots, n, 0, self.records.bytes, cnp.PyArray_BYTES(content))
            leave(&self.queue)
        if not fits:
            raise wrong_states("StreamPool", "a pool of this model")

    # ------------------------------------------------------------ steps

    def step(self, ids, X, out):
        """One step of each of these streams; None: an argument is not plain, or layers have to be called."""
        cdef Runner runner = self.runner
        cdef cnp.ndarray numbers = as_ids("step", ids), x, y
        cdef cnp.npy_intp x_shape[2]
        cdef cnp.npy_intp y_shape[2]
        if runner is None:
            return None
        x_shape[0] = y_shape[0] = cnp.PyArray_SIZE(numbers)
        x_shape[1] = runner.features_in
        y_shape[1] = runner.features_out
        if runner.tokens:
            if not are_tokens(X, 1, x_shape, runner.tokens):
                return None
        elif not is_plain(X, 2, x_shape, runner.type_number) or not cnp.PyArray_ISCARRAY_RO(X):
            return None
        x = X
        if out is None:
            y = cnp.PyArray_EMPTY(2, y_shape, runner.type_number, 0)
        elif (
            is_plain(out, 2, y_shape, runner.type_number) and cnp.PyArray_ISCARRAY(out) and is_apart(out, x)
        ):
            y = out
        else:
            return None
        self.make_step(ids, numbers, x, y)
        return y

    def step_plain(self, ids, cnp.ndarray x, cnp.ndarray y):
        """One step of each of these streams, on checked rows (n, I), or tokens (n,), and into y."""
        self.make_step(ids, as_ids("step", ids), x, y)

    cdef int make_step(self, ids, cnp.ndarray numbers, cnp.ndarray x, cnp.ndarray y) except -1:
        cdef Groups groups
        cdef Py_ssize_t index = 0
        cdef Fault fault
        self.take_turn("step")
        try:
            # While this call converted its arguments or waited, others may have changed the caller's arrays.
            if not cnp.PyArray_SIZE(numbers) == cnp.PyArray_DIM(x, 0) == cnp.PyArray_DIM(y, 0):
                raise changed_ids("StreamPool.step")
            fault = self.find(numbers, &index)
            if fault == NONE:
                groups.n = cnp.PyArray_SIZE(numbers)
                groups.steps = NULL
                groups.x = cnp.PyArray_BYTES(x)
                groups.y = cnp.PyArray_BYTES(y)
                self.run_found(&groups, groups.n)
        finally:
            leave(&self.queue)
        return refuse(fault, "step", ids, index)

    def run(self, ids, list chunks, list outputs):
        """Run a checked chunk (T, I), or (T,) of tokens, of each of these streams into its output."""
        cdef cnp.ndarray numbers = as_ids("run", ids), x, y
        cdef Groups groups
        cdef StreamSteps *steps
        cdef Py_ssize_t n = len(chunks), i, total = 0, index = 0
        cdef Fault fault
        self.take_turn("run")
        try:
            if cnp.PyArray_SIZE(numbers) != n:
                raise changed_ids("StreamPool.run")
            fault = self.find(numbers, &index)
            if fault == NONE:
                for i in range(n):
                    x = chunks[i]
                    y = outputs[i]
                    steps = &self.batch.steps[i]
                    steps.row.index = i
                    # Not of x: while this call waited, another thread may have given that another shape.
                    steps.row.length = cnp.PyArray_DIM(y, 0)
                    steps.slot = self.batch.slots[i]
                    steps.source = cnp.PyArray_BYTES(x)
                    steps.target = cnp.PyArray_BYTES(y)
                    total += steps.row.length
                groups.n = sort_steps(&self.batch, n)
                groups.steps = self.batch.steps
                self.run_found(&groups, total)
        finally:
            leave(&self.queue)
        refuse(fault, "run", ids, index)

    cdef int run_found(self, Groups *groups, Py_ssize_t total) except -1:
        """Run streams that were found, which make this many steps together."""
        if groups.n == 0:
            return 0
        groups.records = &self.records
        groups.slots = self.batch.slots
        begin_change(&self.queue)
        cut(groups, &self.runner.path, total)
        reserve_runs(groups, self.spaces, self.run_bytes)
        with nogil:
            run_groups(groups)
        return 0


# ---------------------------------------------------------------- ids

cdef cnp.ndarray as_ids(str method, ids):
    """Ids in a list, a tuple or an array as an array of int64."""
    cdef cnp.ndarray numbers
    cdef Py_ssize_t wrong
    cdef cnp.npy_intp n
    if cnp.PyArray_Check(ids):
        n = cnp.PyArray_SIZE(ids)
        if is_plain(ids, 1, &n, cnp.NPY_INT64) and cnp.PyArray_ISCARRAY_RO(ids):
            return ids
        if ids.ndim != 1 or ids.dtype.kind not in "iu" and ids.size:
            raise wrong_ids(f"StreamPool.{method}", ids)
        return as_plain(ids, np.int64)
    n = len(ids)
    numbers = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
    wrong = read_ids(ids, n, <int64_t *>cnp.PyArray_DATA(numbers))
    if wrong >= 0:
        raise wrong_ids(f"StreamPool.{method}", ids[wrong], wrong)
    return numbers


cdef int refuse(Fault fault, str method, ids, Py_ssize_t index) except -1:
    """Raise what `find` found, if it is something."""
    if fault == NO_ROOM:
        raise no_memory("StreamPool", f"room for the steps of {len(ids)} streams")
    if fault != NONE:
        raise wrong_id(f"StreamPool.{method}", ids[index], index, fault == REPEATED, fault == CLOSED)
    return 0
