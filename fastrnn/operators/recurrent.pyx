"""The operator of RNN, GRU and LSTM: a stack of layers in one or both directions."""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc

from fastrnn.engine.backend cimport FRNN_LSTM, frnn_arithmetic_name, frnn_cell, frnn_steps_take_x
from fastrnn.engine.call cimport Call, PassPlan, Rows, States
from fastrnn.engine.cost cimport stack_ns
from fastrnn.engine.divisions cimport run_call
from fastrnn.engine.memory_layout cimport lay_out
from fastrnn.engine.packing cimport PackedCell, matrix_bytes
from fastrnn.engine.plan cimport Plan, Request, make_plan, may_divide, plan_for, room
from fastrnn.engine.layer_stack cimport Policy, Stack
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, frnn_sharing_cost
from fastrnn.operators.operator cimport Contract, Extent, Operator, OperatorInfo

cnp.import_array()

# The ways to divide a call, by the number of engine.plan's Division.
DIVISIONS = ("alone", "rows", "direction", "units", "pipeline")


cdef struct RecurrentData:
    Stack stack
    int division                # as in Policy


cdef struct RecurrentUse:
    # After it lie the plan's PassPlans: as many as the operator may have threads.
    Plan plan
    Call call


cdef class Recurrent(Operator):
    """A stack of layers, in one or both directions."""

    cdef RecurrentData recurrent

    def __cinit__(self, packed, Py_ssize_t directions, int threads=1, division=None, initial=()):
        """packed are L*D PackedCells, layer by layer, forward before reverse. Calls are divided among as many
        threads at most; in the way that `division` names wherever that is possible, if it is given. initial:
        what the states begin as, arrays (L*D, columns) that are C-contiguous, of the cells' dtype and never
        change; none: zeros."""
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
        self.owner = packed, tuple(initial)
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
        stack.part_units = stack.backend.part_units(first)
        stack.has_cell_state = first.kind == FRNN_LSTM
        stack.steps_take_x = True
        self.recurrent.division = -1 if division is None else DIVISIONS.index(division)
        self.info.data = &self.recurrent
        self.info.takes_strides = True
        self.info.features_in = stack.input_size
        self.info.features_out = directions * stack.output_size
        self.info.use_bytes = sizeof(RecurrentUse) + self.info.threads * sizeof(PassPlan)
        self.info.states = 2 if stack.has_cell_state else 1
        self.info.state[0].layers = self.info.state[1].layers = len(packed)
        self.info.state[0].columns = stack.output_size
        self.info.state[1].columns = stack.hidden_size
        for i, array in enumerate(initial):
            self.info.initial[i] = cnp.PyArray_BYTES(array)
        for i in range(len(packed)):
            if not frnn_steps_take_x(stack.cells[i]):
                stack.steps_take_x = False
            self.info.weight_bytes += (
                matrix_bytes(&stack.cells[i].w_ih) + matrix_bytes(&stack.cells[i].w_hh)
                + matrix_bytes(&stack.cells[i].w_hr))

    def __dealloc__(self):
        PyMem_RawFree(self.recurrent.stack.cells)

    def divided(self, str division, int threads):
        """The same stack, whose calls are divided in that way, wherever that is possible, among this many
        threads: for tests and measurements."""
        packed, initial = self.owner
        return Recurrent(packed, self.recurrent.stack.D, threads, division, initial)

    def plan(
        self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads, float phase_ns, float slowdown,
        cnp.ndarray lengths=None, bint is_batch_first=False,
    ):
        """The plan of T steps of B rows, field by field, if this many threads are free and sharing costs
        that (frnn_sharing_cost). lengths: longest first; None in a ragged batch: those that want the most
        memory."""
        cdef Plan plan
        cdef PassPlan passes[FRNN_MOST_THREADS]
        cdef int i, count
        plan.request = self.request(T, B, is_ragged, is_batch_first)
        if lengths is not None:
            plan.request.lengths = <const Py_ssize_t *>cnp.PyArray_DATA(lengths)
        plan.passes = passes
        plan_for(
            &self.recurrent.stack, &plan,
            policy_of(&self.recurrent, min(threads, FRNN_MOST_THREADS)),
            frnn_sharing_cost(phase_ns, slowdown))
        division = DIVISIONS[<int>plan.division]
        count = plan.slices if division == "rows" else 1
        return {
            "division": division,
            "slices": plan.slices,
            "phases": plan.phases,
            "bytes": plan.bytes,
            "is_counted": plan.is_counted,
            "longest_ns": plan.longest_ns,
            "first": (
                [plan.first[i] for i in range(plan.slices + 1)]
                if division in ("rows", "units", "pipeline") else None),
            "passes": [passes[i] for i in range(count)],
        }

    def room(self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads):
        """The bytes that such calls want at most, whatever threads are free and whatever sharing costs."""
        cdef Request request = self.request(T, B, is_ragged, False)
        return room(
            &self.recurrent.stack, &request,
            policy_of(&self.recurrent, min(threads, FRNN_MOST_THREADS)))

    cdef Request request(
        self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, bint is_batch_first,
    ) noexcept:
        """T steps of B rows in C-contiguous arrays."""
        cdef Extent extent
        cdef Request request
        extent.T = T
        extent.B = B
        extent.is_batch_first = is_batch_first
        extent.is_strided = False
        extent.order = NULL
        request = request_of(&self.info, &extent)
        request.is_ragged = is_ragged
        return request


# ---------------------------------------------------------------- the contract

cdef inline Policy policy_of(const RecurrentData *data, int threads) noexcept nogil:
    return Policy(threads, data.division)


cdef inline Rows rows_of(const Extent *extent, Py_ssize_t row_bytes) noexcept nogil:
    """Rows of a C-contiguous array."""
    cdef Rows rows
    rows.data = NULL
    rows.first = 0
    rows.order = NULL if extent.order == NULL else extent.order.order
    rows.row = row_bytes * (extent.T if extent.is_batch_first else 1)
    rows.step = row_bytes * (1 if extent.is_batch_first else extent.B)
    return rows


cdef inline Request request_of(const OperatorInfo *self, const Extent *extent) noexcept nogil:
    cdef Request request
    request.T = extent.T
    request.B = extent.B
    request.is_ragged = extent.order != NULL
    request.lengths = NULL if extent.order == NULL else extent.order.lengths
    request.source = rows_of(extent, self.features_in * self.itemsize)
    if extent.is_strided:
        request.source.step = extent.x_step
        request.source.row = extent.x_row
    request.target = rows_of(extent, self.features_out * self.itemsize)
    return request


cdef size_t plan_recurrent(
    const OperatorInfo *self, void *use, const Extent *extent, int threads,
) noexcept nogil:
    cdef const RecurrentData *data = <const RecurrentData *>self.data
    cdef RecurrentUse *own = <RecurrentUse *>use
    own.plan.request = request_of(self, extent)
    own.plan.passes = <PassPlan *>(own + 1)
    make_plan(&data.stack, &own.plan, policy_of(data, threads))
    return own.plan.bytes


cdef size_t recurrent_room(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    cdef const RecurrentData *data = <const RecurrentData *>self.data
    cdef Request request = request_of(self, extent)
    return room(&data.stack, &request, policy_of(data, threads))


cdef void lay_out_recurrent(const OperatorInfo *self, void *use, char *memory) noexcept nogil:
    cdef RecurrentUse *own = <RecurrentUse *>use
    lay_out(&(<const RecurrentData *>self.data).stack, &own.plan, &own.call, memory)


cdef void place_recurrent(const OperatorInfo *self, void *use, const States *states) noexcept nogil:
    cdef RecurrentUse *own = <RecurrentUse *>use
    own.call.h = states[0]
    if self.states == 2:
        own.call.c = states[1]


cdef void run_recurrent(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef RecurrentUse *own = <RecurrentUse *>use
    cdef Call *call = &own.call
    call.source.data = <char *>x
    call.target.data = y
    if extent.order != NULL:
        # A ragged batch has its states in the order of its rows.
        call.h.order = call.c.order = extent.order.order
    run_call(&(<const RecurrentData *>self.data).stack, &own.plan, call)
    call.parity = (call.parity + extent.T) % 2


cdef double recurrent_cost(const OperatorInfo *self, const Extent *extent) noexcept nogil:
    return stack_ns(&(<const RecurrentData *>self.data).stack, extent.T, extent.B, 1)


cdef bint may_share_recurrent(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    cdef const RecurrentData *data = <const RecurrentData *>self.data
    cdef Request request = request_of(self, extent)
    return may_divide(&data.stack, &request, policy_of(data, threads))


cdef Contract RECURRENT
RECURRENT.plan = plan_recurrent
RECURRENT.room = recurrent_room
RECURRENT.lay_out = lay_out_recurrent
RECURRENT.place = place_recurrent
RECURRENT.run = run_recurrent
RECURRENT.cost = recurrent_cost
RECURRENT.may_share = may_share_recurrent
