"""Chains of layers in compiled code: rows in, rows out, through every layer without the GIL.

A chain is planned and laid out like a call (_plan.pyx): `flow_room` says how much memory some steps of some
rows want, `fit_flow` plans them and gives it to them, `run_flow` runs them. Inputs and outputs lie as
(T, B, features), C-contiguous. Nothing here checks its arguments, and nothing allocates but a FlowSpace.
"""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from fastrnn.engine.drivers cimport execute, run_dense
from fastrnn.operators.operator cimport DENSE, ROWS, STACK, TABLE, Link, Workspace
from fastrnn.engine.backend cimport frnn_cell
from fastrnn.engine.plan cimport (
    ALONE, LEAST, Rows, Stack, States, choose, dense_ns, lay_out, plan, room, stack_ns,
)


cdef class Chain:
    """The layers of a stream that runs in compiled code; immutable, shared by streams and threads."""

    def __cinit__(self, links):
        """links are the Links of layers that fit, of one dtype; all run forward. The first one says how
        many features it takes, or takes tokens."""
        cdef ChainWork *chain = &self.work
        cdef LinkWork *work
        cdef Py_ssize_t features, row_bytes
        cdef Link link
        cdef int i
        self.links = tuple(links)
        chain.count = <int>len(self.links)
        chain.links = <LinkWork *>PyMem_RawCalloc(chain.count, sizeof(LinkWork))
        if chain.links == NULL:
            raise MemoryError
        self.threads = 1
        features = 0
        for i in range(chain.count):
            link = <Link?>self.links[i]
            work = &chain.links[i]
            work[0] = link.work
            if i == 0:
                self.features_in = work.features_in
                self.tokens = work.tokens
                chain.in_bytes = (
                    work.features_in * work.itemsize if work.tokens == 0 else <Py_ssize_t>sizeof(Py_ssize_t))
            if work.features_out == 0:
                work.features_in = work.features_out = features
            work.rows.features = features = work.features_out
            row_bytes = features * work.itemsize
            chain.widest = max(chain.widest, row_bytes)
            chain.out_bytes = row_bytes
            if work.kind == STACK:
                chain.stacks += 1
            self.weight_bytes += weight_bytes(work)
            self.threads = max(self.threads, work.threads)
        self.features_out = features
        self.type_number = link.type_number

    def __dealloc__(self):
        PyMem_RawFree(self.work.links)


cdef Py_ssize_t weight_bytes(const LinkWork *work) noexcept nogil:
    """That a step reads."""
    cdef const frnn_cell *cell
    cdef Py_ssize_t i, total = 0
    if work.kind == STACK:
        for i in range(work.stack.L):
            cell = work.stack.cells[i]
            total += cell.gates * cell.hidden_size * (cell.input_size + cell.output_size)
            if cell.w_hr != NULL:
                total += cell.hidden_size * cell.output_size
    elif work.kind == DENSE:
        total = work.cell.hidden_size * work.cell.input_size
    else:
        total = work.features_out
    return total * work.itemsize


# ---------------------------------------------------------------- a flow

cdef class FlowSpace:
    """A flow through a chain, and its memory, which is kept."""

    def __cinit__(self, Chain chain not None):
        cdef int stacks = chain.work.stacks
        self.chain = chain
        self.workspace = Workspace()
        # What does not depend on how many steps and rows there are: one piece, calls first.
        self.flow.calls = <Call *>PyMem_RawCalloc(
            max(stacks, 1), sizeof(Call) + sizeof(size_t))
        if self.flow.calls == NULL:
            raise MemoryError
        self.flow.sizes = <size_t *>(self.flow.calls + stacks)

    def __dealloc__(self):
        PyMem_RawFree(self.flow.calls)

    cdef int reserve(self, size_t size) except -1:
        return self.workspace.reserve(size)

    cdef int shrink(self) except -1:
        """Give back memory that is too large to be kept."""
        if self.workspace.is_large():
            self.workspace = Workspace()
        return 0


cdef size_t plan_flow(
    const ChainWork *chain, Flow *flow, Py_ssize_t T, Py_ssize_t B, int threads,
) noexcept nogil:
    """Plan T steps of B rows on so many threads at most, and give the memory that they want."""
    cdef int i, stack = 0
    cdef size_t total
    cdef const LinkWork *work
    flow.T = T
    flow.B = B
    flow.threads = threads
    total = 2 * between_bytes(chain, T * B)
    for i in range(chain.count):
        work = &chain.links[i]
        if work.kind == STACK:
            flow.sizes[stack] = plan(work.stack, &flow.calls[stack], T, B, False, min(threads, work.threads))
            total += aligned(flow.sizes[stack])
            stack += 1
    return total


cdef size_t flow_room(const ChainWork *chain, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil:
    """The memory that T steps of B rows want, whoever is free and whatever sharing costs then."""
    cdef size_t total = 2 * between_bytes(chain, T * B)
    cdef int i
    cdef const LinkWork *work
    for i in range(chain.count):
        work = &chain.links[i]
        if work.kind == STACK:
            total += aligned(room(work.stack, T, B, False, min(threads, work.threads)))
    return total


cdef void lay_out_flow(const ChainWork *chain, Flow *flow, char *memory) noexcept nogil:
    cdef int i, stack = 0
    cdef const LinkWork *work
    for i in range(2):
        flow.between[i] = memory
        memory += between_bytes(chain, flow.T * flow.B)
    for i in range(chain.count):
        work = &chain.links[i]
        if work.kind == STACK:
            lay_out(work.stack, &flow.calls[stack], memory, False)
            memory += aligned(flow.sizes[stack])
            stack += 1


cdef inline size_t aligned(size_t size) noexcept nogil:
    return (size + 63) & ~<size_t>63


cdef inline size_t between_bytes(const ChainWork *chain, Py_ssize_t rows) noexcept nogil:
    return aligned(rows * chain.widest) if chain.count > 1 else 0


cdef void fit_flow(
    const ChainWork *chain, Flow *flow, Py_ssize_t T, Py_ssize_t B, int threads, char *memory, size_t size,
) noexcept nogil:
    """Plan and lay out in memory of a size that is enough for one thread at least; that one does it all where
    there is not enough for more."""
    if plan_flow(chain, flow, T, B, threads) > size:
        plan_flow(chain, flow, T, B, 1)
    lay_out_flow(chain, flow, memory)


cdef bint is_divided(const ChainWork *chain, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil:
    """Whether a recurrent layer may be divided among threads, if all of them are free and close."""
    cdef Call call
    cdef int i
    for i in range(chain.count):
        if chain.links[i].kind == STACK:
            choose(chain.links[i].stack, &call, T, B, False, min(threads, chain.links[i].threads), &LEAST)
            if call.kind != ALONE:
                return True
    return False


cdef double flow_ns(const ChainWork *chain, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """The time of one core, by the cost model."""
    cdef double total = 0
    cdef int i
    for i in range(chain.count):
        if chain.links[i].kind == STACK:
            total += stack_ns(chain.links[i].stack, T, B, 1)
        elif chain.links[i].kind == DENSE:
            total += dense_ns(chain.links[i].cell, T * B)
    return total


cdef void run_flow(const ChainWork *chain, Flow *flow, const char *x, char *y) noexcept nogil:
    """x (T, B, features) through all layers into y; the calls' h and c hold the states before, then those
    behind."""
    cdef Py_ssize_t n = flow.T * flow.B
    cdef const char *source = x
    cdef char *target
    cdef int i, stack = 0, turn = 0
    cdef uint64_t before
    cdef const LinkWork *work
    for i in range(chain.count):
        work = &chain.links[i]
        if i == chain.count - 1:
            target = y
        elif work.kind == ROWS and i > 0:
            target = <char *>source  # in place
        else:
            target = flow.between[turn]
            turn ^= 1
        if work.kind == STACK:
            run_stack(work, flow, &flow.calls[stack], source, target)
            stack += 1
        elif work.kind == DENSE:
            run_dense(work.backend, work.cell, n, source, target, min(flow.threads, work.threads))
        elif work.kind == ROWS:
            before = work.backend.enter()
            work.backend.rows(&work.rows, n, source, target)
            work.backend.leave(before)
        else:
            look_up(work, n, <const Py_ssize_t *>source, target)
        source = target


cdef void run_stack(
    const LinkWork *work, Flow *flow, Call *call, const char *source, char *target,
) noexcept nogil:
    cdef Rows x, y
    x.first = y.first = 0
    x.order = y.order = NULL
    x.data = <char *>source
    y.data = target
    x.row = work.features_in * work.itemsize
    y.row = work.features_out * work.itemsize
    x.step = flow.B * x.row
    y.step = flow.B * y.row
    execute(work.stack, call, x, y, NULL)
    call.parity = (call.parity + flow.T) % 2


cdef void look_up(const LinkWork *work, Py_ssize_t n, const Py_ssize_t *tokens, char *out) noexcept nogil:
    cdef Py_ssize_t i, token, row = work.features_out * work.itemsize
    for i in range(n):
        # Checked already; another thread may have written to the caller's array since.
        token = min(max(tokens[i], 0), work.tokens - 1)
        if work.kind == TABLE:
            memcpy(out + i * row, work.table + token * row, row)
            continue
        memset(out + i * row, 0, row)
        if work.itemsize == 4:
            (<float *>(out + i * row))[token] = 1
        else:
            (<double *>(out + i * row))[token] = 1


# ---------------------------------------------------------------- states of many streams

cdef void place_states(
    const ChainWork *chain, Flow *flow, char *records, Py_ssize_t record_bytes, const Py_ssize_t *slots,
) noexcept nogil:
    """Let row b's states be those in record slots[b]: each recurrent layer's h and then its c."""
    cdef int i, stack = 0
    cdef Py_ssize_t b = 1
    cdef const LinkWork *work
    cdef Call *call
    while b < flow.B and slots[b] == slots[0] + b:
        b += 1
    if b == flow.B:
        # One behind the other, they need no order: a step of 1,024 streams, LSTM of 128 units, takes 0.97 of
        # the time (Zen 3, builds in turns).
        records += slots[0] * record_bytes
        slots = NULL
    for i in range(chain.count):
        work = &chain.links[i]
        if work.kind == STACK:
            call = &flow.calls[stack]
            records = place(
                &call.h, records, work.stack, work.stack.output_size, record_bytes, slots)
            if work.stack.has_cell_state:
                records = place(
                    &call.c, records, work.stack, work.stack.hidden_size, record_bytes, slots)
            stack += 1


cdef inline char *place(
    States *states, char *data, const Stack *stack, Py_ssize_t columns, Py_ssize_t row,
    const Py_ssize_t *order,
) noexcept nogil:
    """Let the states of all layers, one behind the other, lie there; give the place behind them."""
    states.data = data
    states.layer = columns * stack.itemsize
    states.row = row
    states.order = order
    return data + stack.L * states.layer
