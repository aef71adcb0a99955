"""The operator of RNN, GRU and LSTM: a stack of layers in one or both directions."""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc

from fastrnn.engine.backend cimport FRNN_LSTM, frnn_arithmetic_name, frnn_cell
from fastrnn.engine.call cimport Call, Rows, States
from fastrnn.engine.cost cimport stack_ns
from fastrnn.engine.divisions cimport run_call
from fastrnn.engine.memory_layout cimport bytes_of, lay_out
from fastrnn.engine.packing cimport PackedCell, matrix_bytes
from fastrnn.engine.plan cimport ALONE, LEAST, Plan, make_plan, plan_for, room
from fastrnn.engine.layer_stack cimport Policy, Stack
from fastrnn.engine.threads.team cimport frnn_sharing_cost
from fastrnn.operators.operator cimport Contract, Extent, Operator, OperatorInfo

cnp.import_array()

# The ways to divide a call, by the number of engine.plan's Division.
DIVISIONS = ("alone", "rows", "direction", "units", "pipeline")


cdef struct RecurrentData:
    Stack stack
    int division                # as in Policy


cdef struct RecurrentUse:
    Plan plan
    Call call


cdef class Recurrent(Operator):
    """A stack of layers, in one or both directions."""

    cdef RecurrentData recurrent

    def __cinit__(self, packed, Py_ssize_t directions, int threads=1, division=None):
        """packed are L*D PackedCells, layer by layer, forward before reverse. Calls are divided among as many
        threads at most; in the way that `division` names wherever that is possible, if it is given."""
        cdef Py_ssize_t i
        cdef Stack *stack = &self.recurrent.stack
        cdef const frnn_cell *first
        packed = tuple(packed)
        stack.cells = <const frnn_cell **>PyMem_RawMalloc(len(packed) * sizeof(frnn_cell *))
        if stack.cells == NULL:
            raise MemoryError
        for i in range(len(packed)):
            stack.cells[i] = &(<PackedCell?>packed[i]).cell
            if (<PackedCell>packed[i]).backend != (<PackedCell>packed[0]).backend:
                raise ValueError("Recurrent: expected cells of one backend, got several.")
        first = stack.cells[0]
        self.begin(&RECURRENT, frnn_arithmetic_name(first.arithmetic).decode(), threads)
        self.owner = packed
        stack.backend = (<PackedCell>packed[0]).backend
        stack.itemsize = self.info.itemsize
        while <Py_ssize_t>1 << stack.item_shift < stack.itemsize:
            stack.item_shift += 1
        stack.D = directions
        stack.L = len(packed) // directions
        stack.input_size = first.input_size
        stack.hidden_size = first.hidden_size
        stack.output_size = first.output_size
        stack.gate_bytes = stack.backend.gate_width(first) * stack.itemsize
        stack.has_cell_state = first.kind == FRNN_LSTM
        self.recurrent.division = -1 if division is None else DIVISIONS.index(division)
        self.info.data = &self.recurrent
        self.info.takes_strides = True
        self.info.features_in = stack.input_size
        self.info.features_out = directions * stack.output_size
        self.info.use_bytes = sizeof(RecurrentUse)
        self.info.states = 2 if stack.has_cell_state else 1
        self.info.state[0].layers = self.info.state[1].layers = len(packed)
        self.info.state[0].columns = stack.output_size
        self.info.state[1].columns = stack.hidden_size
        for i in range(len(packed)):
            self.info.weight_bytes += (
                matrix_bytes(&stack.cells[i].w_ih) + matrix_bytes(&stack.cells[i].w_hh)
                + matrix_bytes(&stack.cells[i].w_hr))

    def __dealloc__(self):
        PyMem_RawFree(self.recurrent.stack.cells)

    def divided(self, str division, int threads):
        """The same stack, whose calls are divided in that way, wherever that is possible, among this many
        threads: for tests and measurements."""
        return Recurrent(self.owner, self.recurrent.stack.D, threads, division)

    def plan(self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads, float phase_ns, float slowdown):
        """How T steps of B rows are divided if this many threads are free and sharing costs that
        (frnn_sharing_cost): the division's name, its slices and the bytes that it wants."""
        cdef Plan plan
        cdef frnn_sharing_cost cost = frnn_sharing_cost(phase_ns, slowdown)
        cdef Policy policy = policy_of(&self.recurrent, threads)
        plan_for(&self.recurrent.stack, &plan, T, B, is_ragged, NULL, policy, &cost)
        return DIVISIONS[<int>plan.division], plan.slices, bytes_of(&self.recurrent.stack, &plan)

    def room(self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads):
        """The bytes that such calls want at most, whatever threads are free and whatever sharing costs."""
        return room(&self.recurrent.stack, T, B, is_ragged, policy_of(&self.recurrent, threads))


# ---------------------------------------------------------------- the contract

cdef inline Policy policy_of(const RecurrentData *data, int threads) noexcept nogil:
    return Policy(threads, data.division)


cdef size_t plan_recurrent(
    const OperatorInfo *self, void *use, const Extent *extent, int threads,
) noexcept nogil:
    cdef const RecurrentData *data = <const RecurrentData *>self.data
    cdef RecurrentUse *own = <RecurrentUse *>use
    make_plan(
        &data.stack, &own.plan, extent.T, extent.B, NULL if extent.order == NULL else extent.order.lengths,
        policy_of(data, threads))
    return own.plan.bytes


cdef size_t recurrent_room(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    cdef const RecurrentData *data = <const RecurrentData *>self.data
    return room(&data.stack, extent.T, extent.B, extent.order != NULL, policy_of(data, threads))


cdef void lay_out_recurrent(const OperatorInfo *self, void *use, char *memory) noexcept nogil:
    cdef RecurrentUse *own = <RecurrentUse *>use
    lay_out(&(<const RecurrentData *>self.data).stack, &own.plan, &own.call, memory)


cdef void place_recurrent(const OperatorInfo *self, void *use, const States *states) noexcept nogil:
    cdef RecurrentUse *own = <RecurrentUse *>use
    own.call.h = states[0]
    if self.states == 2:
        own.call.c = states[1]


cdef inline Rows rows_of(const Extent *extent, const char *data, Py_ssize_t row_bytes) noexcept nogil:
    """Rows of a C-contiguous array."""
    cdef Rows rows
    rows.data = <char *>data
    rows.first = 0
    rows.order = NULL if extent.order == NULL else extent.order.order
    rows.row = row_bytes * (extent.T if extent.is_batch_first else 1)
    rows.step = row_bytes * (1 if extent.is_batch_first else extent.B)
    return rows


cdef void run_recurrent(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef RecurrentUse *own = <RecurrentUse *>use
    cdef Call *call = &own.call
    call.source = rows_of(extent, x, self.features_in * self.itemsize)
    if extent.is_strided:
        call.source.step = extent.x_step
        call.source.row = extent.x_row
    call.target = rows_of(extent, y, self.features_out * self.itemsize)
    call.lengths = NULL
    if extent.order != NULL:
        # A ragged batch has its states in the order of its rows.
        call.lengths = extent.order.lengths
        call.h.order = call.c.order = extent.order.order
    run_call(&(<const RecurrentData *>self.data).stack, &own.plan, call)
    call.parity = (call.parity + extent.T) % 2


cdef double recurrent_cost(const OperatorInfo *self, const Extent *extent) noexcept nogil:
    return stack_ns(&(<const RecurrentData *>self.data).stack, extent.T, extent.B, 1)


cdef bint may_share_recurrent(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    cdef const RecurrentData *data = <const RecurrentData *>self.data
    cdef Plan plan
    plan_for(
        &data.stack, &plan, extent.T, extent.B, extent.order != NULL, NULL, policy_of(data, threads), &LEAST)
    return plan.division != ALONE


cdef Contract RECURRENT
RECURRENT.plan = plan_recurrent
RECURRENT.room = recurrent_room
RECURRENT.lay_out = lay_out_recurrent
RECURRENT.place = place_recurrent
RECURRENT.run = run_recurrent
RECURRENT.cost = recurrent_cost
RECURRENT.may_share = may_share_recurrent
