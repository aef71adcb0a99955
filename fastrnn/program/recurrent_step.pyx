"""The step of a recurrent layer: its operator, as the runner of layers runs it."""

from libc.string cimport memset

from fastrnn.engine.call cimport States
from fastrnn.engine.row_order cimport Order, lay_out_order, order_bytes, sort_rows
from fastrnn.engine.workspace cimport aligned
from fastrnn.operators.operator cimport MOST_STATES, Extent, Operator, OperatorInfo
from fastrnn.program.steps cimport Step


cdef struct RecurrentData:
    OperatorInfo info
    Extent extent
    bint is_ragged
    size_t room


cdef struct Own:
    # The step's own memory begins so; what the operator uses comes after it.
    bint is_planned


cdef class RecurrentStep(Step):
    """Whole sequences through an operator with a state.

    Arrays: x; the states (layers, B, columns), C-contiguous, which become those after the last step; with
    lengths, those (B,) as int64; y, C-contiguous.

    Parameters
    ----------
    operator : Operator
    T, B : int
    x_step, x_row : int
        The bytes from one step, and from one row, of x to the next. Its last axis has no gaps.
    is_row_major : bool
        Whether y lies as (B, T, features), else as (T, B, features).
    is_ragged : bool
        Whether rows have lengths.
    """

    cdef RecurrentData data

    def __init__(
        self, Operator operator not None, Py_ssize_t T, Py_ssize_t B, Py_ssize_t x_step, Py_ssize_t x_row,
        bint is_row_major, bint is_ragged,
    ):
        cdef RecurrentData *data = &self.data
        cdef Order order
        self.owner = operator
        data.info = operator.info
        data.extent.T = T
        data.extent.B = B
        data.extent.is_batch_first = is_row_major
        data.extent.is_strided = True
        data.extent.x_step = x_step
        data.extent.x_row = x_row
        data.is_ragged = is_ragged
        # That a batch is ragged is all that counts for its room.
        data.extent.order = &order if is_ragged else NULL
        data.room = data.info.can.room(&data.info, &data.extent, data.info.threads)
        self.info.cost = data.info.can.cost(&data.info, &data.extent)
        data.extent.order = NULL
        self.info.run = run_recurrent
        self.info.data = data
        self.info.arrays = 2 + data.info.states + is_ragged
        self.info.own_bytes = aligned(sizeof(Own)) + aligned(data.info.use_bytes)
        self.info.scratch_bytes = aligned(data.room)
        if is_ragged:
            self.info.scratch_bytes += order_bytes(B)


cdef void run_recurrent(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const RecurrentData *self = <const RecurrentData *>data
    cdef Extent extent = self.extent
    cdef States states[MOST_STATES]
    cdef Order order
    cdef Own *own = <Own *>arrays[2 + self.info.states + self.is_ragged]
    cdef char *use = <char *>own + aligned(sizeof(Own))
    cdef char *memory = scratch
    cdef int i
    if self.is_ragged:
        lay_out_order(&order, extent.B, scratch)
        memory += order_bytes(extent.B)
        sort_rows(&order, extent.T, extent.B, <const Py_ssize_t *>arrays[1 + self.info.states])
        extent.order = &order
    for i in range(self.info.states):
        states[i].data = arrays[1 + i]
        states[i].row = self.info.state[i].columns * self.info.itemsize
        states[i].layer = extent.B * states[i].row
        states[i].order = NULL
    # Rows of other lengths need another plan. Else it is kept with the use, as a stream keeps its own: the
    # next run takes the weights in the other order, and finds those that came last still near.
    if self.is_ragged or not own.is_planned:
        memset(use, 0, self.info.use_bytes)
        if self.info.can.plan(&self.info, use, &extent, self.info.threads) > self.room:
            self.info.can.plan(&self.info, use, &extent, 1)
        own.is_planned = True
    self.info.can.place(&self.info, use, states)
    self.info.can.lay_out(&self.info, use, memory)
    self.info.can.run(&self.info, use, &extent, arrays[0], arrays[1 + self.info.states + self.is_ragged])
