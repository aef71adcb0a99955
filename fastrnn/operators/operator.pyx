"""The engine as the layers see it: arrays in, arrays out, workspaces kept from call to call.

What a layer computes with is a Link: by itself for a call of the layer, and in a chain (_chain.pyx) for
streams. The drivers (_drivers.pyx) do the work. Nothing here checks its arguments but for what makes a
call plain; layers and streams do, and nothing allocates but the workspace and the results.
"""

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from fastrnn.engine.drivers cimport execute, run_dense
from fastrnn.engine.backend cimport (
    FRNN_F32, FRNN_F64, FRNN_LAYER_NORM, FRNN_LOG_SOFTMAX, FRNN_LSTM, FRNN_RELU, FRNN_SIGMOID, FRNN_SOFTMAX,
    FRNN_TANH, frnn_backend, frnn_cell, frnn_rows,
)
from fastrnn.engine.packing cimport PackedCell
from fastrnn.engine.plan cimport Call, Rows, Stack, States, choose, lay_out, plan, room
from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS, frnn_sharing_cost

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    bint PyArray_IsIntegerScalar(object number)

# A larger workspace is given back after the call: that of a stack of bidirectional layers, which
# grows with T, or of a huge batch.
cdef size_t KEPT_BYTES = 128 * 1024 * 1024


# ---------------------------------------------------------------- memory

cdef class Workspace:
    """One aligned block of scratch memory that grows and is kept."""

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int reserve(self, size_t size) except -1:
        """Have so many bytes at least; what was in it is lost where it had fewer."""
        if size > self.size:
            PyMem_RawFree(self.memory)
            self.size = 0
            self.memory = PyMem_RawMalloc(size + 64)
            if self.memory == NULL:
                raise MemoryError(f"fastrnn: expected {size} bytes of memory for a call, got none.")
            self.data = <char *>((<uintptr_t>self.memory + 63) & ~<uintptr_t>63)
            self.size = size
        return 0

    cdef bint is_large(self) noexcept:
        """Whether it is given back after the call."""
        return self.size > KEPT_BYTES


cdef class Spares:
    """Result arrays that are given out again once nobody else holds them.

    A call with `out=` returns new states but may allocate nothing, so it takes their arrays
    from here. Where there is no GIL a count of references proves nothing: all are new.
    """

    cdef list arrays
    cdef Py_ssize_t most

    def __init__(self, Py_ssize_t most=8):
        self.arrays = []
        self.most = most if HAS_GIL else 0

    cdef cnp.ndarray take(self, int axes, const cnp.npy_intp *shape, int type_number):
        """An array of that shape with any content."""
        cdef cnp.ndarray array
        for array in self.arrays:
            # Two references: the list's and the loop's. Its last holder may have changed it.
            if (
                Py_REFCNT(array) == 2 and is_plain(array, axes, shape, type_number)
                and cnp.PyArray_ISCARRAY(array) and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_OWNDATA)
            ):
                return array
        array = cnp.PyArray_EMPTY(axes, <cnp.npy_intp *>shape, type_number, 0)
        if self.most:
            self.arrays = [*self.arrays[1 - self.most:], array]
        return array


cdef bint is_plain(object array, int axes, const cnp.npy_intp *shape, int type_number) noexcept:
    """Whether that is an ndarray, and no subclass, of that shape and type."""
    cdef int i
    if (
        not cnp.PyArray_CheckExact(array)
        or cnp.PyArray_NDIM(array) != axes
        or cnp.PyArray_TYPE(array) != type_number
    ):
        return False
    for i in range(axes):
        if cnp.PyArray_DIM(array, i) != shape[i]:
            return False
    return True


cdef bint is_whole(object x) noexcept:
    """Whether that is a whole number, and no bool."""
    return type(x) is int or (
        PyArray_IsIntegerScalar(x) and type(x) is not bool and not isinstance(x, np.timedelta64))


cdef bint are_tokens(object x, int axes, const cnp.npy_intp *shape, Py_ssize_t tokens) noexcept:
    """Whether that is a plain array of tokens, all of which there are."""
    cdef const Py_ssize_t *data
    cdef Py_ssize_t i
    if not is_plain(x, axes, shape, cnp.NPY_INTP) or not cnp.PyArray_ISCARRAY_RO(x):
        return False
    data = <const Py_ssize_t *>cnp.PyArray_DATA(x)
    for i in range(cnp.PyArray_SIZE(x)):
        if data[i] < 0 or data[i] >= tokens:
            return False
    return True


cdef bint is_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share no memory."""
    return (
        cnp.PyArray_BYTES(a) + cnp.PyArray_NBYTES(a) <= cnp.PyArray_BYTES(b)
        or cnp.PyArray_BYTES(b) + cnp.PyArray_NBYTES(b) <= cnp.PyArray_BYTES(a)
    )


cdef inline Rows rows_of(cnp.ndarray array):
    """The rows of an array (T, B, columns)."""
    cdef Rows rows
    rows.data = cnp.PyArray_BYTES(array)
    rows.first = 0
    rows.step = cnp.PyArray_STRIDE(array, 0)
    rows.row = cnp.PyArray_STRIDE(array, 1)
    rows.order = NULL
    return rows


cdef States states_of(cnp.ndarray array, Py_ssize_t B):
    """Those of an array (L*D, B, columns), without B where that is 1, or None."""
    cdef States states
    states.data = NULL
    states.row = states.layer = 0
    states.order = NULL
    if array is not None:
        states.data = cnp.PyArray_BYTES(array)
        states.row = cnp.PyArray_DIM(array, cnp.PyArray_NDIM(array) - 1) * cnp.PyArray_ITEMSIZE(array)
        states.layer = B * states.row
    return states


# ---------------------------------------------------------------- layers

# By the number of _plan's Kind.
PLANS = ("alone", "rows", "directions", "panels", "pipeline")


# The functions of rows by their layers' names, and the types of NumPy by their dtypes'.
cdef dict ROW_KINDS = {
    "ReLU": FRNN_RELU,
    "Tanh": FRNN_TANH,
    "Sigmoid": FRNN_SIGMOID,
    "Softmax": FRNN_SOFTMAX,
    "LogSoftmax": FRNN_LOG_SOFTMAX,
    "LayerNorm": FRNN_LAYER_NORM,
}
cdef dict DTYPES = {"float32": FRNN_F32, "float64": FRNN_F64}


cdef class Link:
    """What a layer computes with."""

    cdef int begin(self, LinkKind kind, backend, Py_ssize_t itemsize) except -1:
        self.work.kind = kind
        self.work.threads = 1
        self.work.itemsize = itemsize
        self.type_number = cnp.NPY_FLOAT32 if itemsize == 4 else cnp.NPY_FLOAT64
        if backend is not None:
            self.work.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        return 0


cdef class Tokens(Link):
    """A row for each token: that of a table, or zeros with a 1 at its place."""

    def __init__(self, table, str dtype, Py_ssize_t tokens, Py_ssize_t features):
        """table (tokens, features) is C-contiguous and never changes; None: one-hot."""
        self.begin(ONE_HOT if table is None else TABLE, None, 4 if dtype == "float32" else 8)
        self.work.tokens = tokens
        self.work.features_out = features
        self.owner = table
        if table is not None:
            self.work.table = cnp.PyArray_BYTES(table)


cdef class RowFunction(Link):
    """What is done to each row by itself: an activation, a softmax, a layer norm."""

    def __init__(
        self, str name, str dtype, backend, Py_ssize_t features=0, weight=None, bias=None, double eps=0,
    ):
        """features: 0 for any. weight and bias (features,), of that dtype, are C-contiguous and stay so."""
        self.begin(ROWS, backend, 4 if dtype == "float32" else 8)
        self.work.rows.kind = ROW_KINDS[name]
        self.work.rows.dtype = DTYPES[dtype]
        self.work.rows.eps = eps
        self.work.features_in = self.work.features_out = features
        self.owner = weight, bias
        if weight is not None:
            self.work.rows.weight = cnp.PyArray_DATA(weight)
        if bias is not None:
            self.work.rows.bias = cnp.PyArray_DATA(bias)

    def run(self, cnp.ndarray x, cnp.ndarray out):
        """Apply it to x (n, features) into out (n, features): x itself, or apart; both are C-contiguous."""
        cdef frnn_rows rows = self.work.rows
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, 0)
        cdef const void *source = cnp.PyArray_DATA(x)
        cdef void *target = cnp.PyArray_DATA(out)
        cdef uint64_t before
        rows.features = cnp.PyArray_DIM(x, 1)
        with nogil:
            before = self.work.backend.enter()
            self.work.backend.rows(&rows, n, source, target)
            self.work.backend.leave(before)


cdef class Dense(Link):
    """A projection alone: out = x W^T + bias."""

    def __init__(self, PackedCell packed not None, backend, int threads=1):
        self.begin(DENSE, backend, 4 if packed.cell.dtype == FRNN_F32 else 8)
        self.work.cell = &packed.cell
        self.work.features_in = packed.cell.input_size
        self.work.features_out = packed.cell.hidden_size
        self.work.threads = min(threads, FRNN_MOST_THREADS)
        self.owner = packed

    def run(self, cnp.ndarray x, cnp.ndarray out):
        """Project x (n, I) into out (n, H); both are C-contiguous and do not overlap."""
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, 0)
        cdef const void *source = cnp.PyArray_DATA(x)
        cdef void *target = cnp.PyArray_DATA(out)
        with nogil:
            run_dense(self.work.backend, self.work.cell, n, source, target, self.work.threads)


cdef class Recurrent(Link):
    """A stack of layers, in one or both directions. Holds no state; threads share it."""

    cdef Stack stack
    cdef list workspaces        # those that no call is using
    cdef Spares spares

    def __cinit__(self, packed, Py_ssize_t directions, backend, int threads=1):
        """packed are L*D PackedCells, layer by layer, forward before reverse."""
        cdef Py_ssize_t i
        cdef Stack *stack = &self.stack
        packed = tuple(packed)
        stack.cells = <const frnn_cell **>PyMem_RawMalloc(len(packed) * sizeof(frnn_cell *))
        if stack.cells == NULL:
            raise MemoryError
        for i in range(len(packed)):
            stack.cells[i] = &(<PackedCell?>packed[i]).cell
        stack.itemsize = 4 if stack.cells[0].dtype == FRNN_F32 else 8
        self.begin(STACK, backend, stack.itemsize)
        stack.backend = self.work.backend
        stack.D = directions
        stack.L = len(packed) // directions
        stack.input_size = stack.cells[0].input_size
        stack.hidden_size = stack.cells[0].hidden_size
        stack.output_size = stack.cells[0].output_size
        stack.gate_bytes = stack.backend.gate_width(stack.cells[0]) * stack.itemsize
        stack.has_cell_state = stack.cells[0].kind == FRNN_LSTM
        stack.only = -1
        self.work.stack = stack
        self.work.features_in = stack.input_size
        self.work.features_out = directions * stack.output_size
        self.work.threads = min(threads, FRNN_MOST_THREADS)
        self.owner = packed
        self.workspaces = []
        self.spares = Spares()

    def __dealloc__(self):
        PyMem_RawFree(self.stack.cells)

    def plan(self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads,
             float phase_ns, float slowdown):
        """How T steps of B rows are divided if this many threads are free at this sharing cost.

        Returns the plan's name, its slices and the bytes that it wants. phase_ns and slowdown are those of
        frnn_sharing_cost (threads.h).
        """
        cdef Call call
        cdef frnn_sharing_cost cost = frnn_sharing_cost(phase_ns, slowdown)
        choose(&self.stack, &call, T, B, is_ragged, threads, &cost)
        return PLANS[<int>call.kind], call.slices, lay_out(&self.stack, &call, NULL, is_ragged)

    def room(self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads):
        """The bytes that such calls want, however many threads are free and whatever sharing costs."""
        return room(&self.stack, T, B, is_ragged, threads)

    def take_plan(self, str name, int threads):
        """Divide every call in that way where it can be, among so many threads; for tests."""
        self.stack.only = PLANS.index(name)
        self.work.threads = threads

    def call(self, x, state, out, bint batch_first):
        """A layer's call in the plain case: arrays that need neither conversion nor a message.

        x (T, B, I), (B, T, I) with batch_first, or (T, I); state None, h, or a pair (h, c) for
        an LSTM; out None or of the output's shape; all C-contiguous. Gives (output, h) or
        (output, (h, c)); for any other arguments it gives None and does nothing.
        """
        cdef cnp.npy_intp shape[3]
        cdef cnp.npy_intp h_shape[3]
        cdef cnp.npy_intp c_shape[3]
        cdef Py_ssize_t T, B
        cdef int axes, i
        cdef cnp.ndarray y, h, c = None
        cdef object h_0 = None, c_0 = None
        cdef Rows source, target
        if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_ISCARRAY_RO(x):
            return None
        axes = cnp.PyArray_NDIM(x)
        if axes != 2 and axes != 3:
            return None
        for i in range(axes):
            shape[i] = cnp.PyArray_DIM(x, i)
        if (
            cnp.PyArray_TYPE(x) != self.type_number
            or shape[axes - 1] != self.stack.input_size
            or cnp.PyArray_SIZE(x) == 0
        ):
            return None
        batch_first = batch_first and axes == 3
        T = shape[batch_first]
        B = 1 if axes == 2 else shape[not batch_first]
        shape[axes - 1] = self.stack.D * self.stack.output_size
        h_shape[0] = c_shape[0] = self.stack.L * self.stack.D
        h_shape[1] = c_shape[1] = B
        h_shape[axes - 1] = self.stack.output_size
        c_shape[axes - 1] = self.stack.hidden_size
        if state is not None:
            if self.stack.has_cell_state:
                if type(state) is not tuple or len(state) != 2:
                    return None
                h_0, c_0 = state
                if not is_plain(c_0, axes, c_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(c_0):
                    return None
            else:
                h_0 = state
            if not is_plain(h_0, axes, h_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(h_0):
                return None
        if out is None:
            y = cnp.PyArray_EMPTY(axes, shape, self.type_number, 0)
        else:
            if (
                not is_plain(out, axes, shape, self.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or not is_apart(out, x)
                or (h_0 is not None and not is_apart(out, h_0))
                or (c_0 is not None and not is_apart(out, c_0))
            ):
                return None
            y = out
        h = self.take_state(axes, h_shape, h_0, out is None)
        if self.stack.has_cell_state:
            c = self.take_state(axes, c_shape, c_0, out is None)
        source.first = target.first = 0
        source.order = target.order = NULL
        source.data = cnp.PyArray_BYTES(x)
        target.data = cnp.PyArray_BYTES(y)
        source.step = source.row = self.stack.input_size * self.stack.itemsize
        target.step = target.row = self.stack.D * self.stack.output_size * self.stack.itemsize
        if batch_first:
            source.row *= T
            target.row *= T
        else:
            source.step *= B
            target.step *= B
        self.run_rows(T, B, source, target, h, c, NULL)
        return (y, h) if c is None else (y, (h, c))

    cdef cnp.ndarray take_state(self, int axes, const cnp.npy_intp *shape, initial, bint is_new):
        """An array for a state, holding the initial one or zeros."""
        cdef cnp.ndarray array
        if is_new:
            array = cnp.PyArray_EMPTY(axes, <cnp.npy_intp *>shape, self.type_number, 0)
        else:
            array = self.spares.take(axes, shape, self.type_number)
        if initial is None:
            memset(cnp.PyArray_DATA(array), 0, cnp.PyArray_NBYTES(array))
        else:
            memcpy(cnp.PyArray_DATA(array), cnp.PyArray_DATA(initial), cnp.PyArray_NBYTES(array))
        return array

    def spare(self, tuple shape):
        """An array of that shape for a state, with any content."""
        cdef cnp.npy_intp sizes[3]
        cdef int i
        for i in range(len(shape)):
            sizes[i] = shape[i]
        return self.spares.take(<int>len(shape), sizes, self.type_number)

    def run(self, cnp.ndarray x, cnp.ndarray h, c, lengths, cnp.ndarray out):
        """Run x (T, B, I) through the stack into out (T, B, D*P).

        h (L*D, B, P) and c (L*D, B, H; None but for an LSTM) hold the states, and are left
        holding those behind the last step. lengths is an intp array (B,) or None. The last
        axis of x and out is contiguous; h, c and lengths wholly so. Nothing overlaps.
        """
        cdef const Py_ssize_t *length = NULL
        if lengths is not None:
            length = <const Py_ssize_t *>cnp.PyArray_DATA(lengths)
        self.run_rows(cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), rows_of(x), rows_of(out), h, c, length)

    cdef int run_rows(
        self, Py_ssize_t T, Py_ssize_t B, Rows source, Rows target, cnp.ndarray h, cnp.ndarray c,
        const Py_ssize_t *lengths,
    ) except -1:
        cdef Call call
        cdef Workspace workspace
        cdef size_t size
        try:
            workspace = self.workspaces.pop()
        except IndexError:
            workspace = Workspace()
        call.parity = 0
        call.h = states_of(h, B)
        call.c = states_of(c, B)
        size = plan(&self.stack, &call, T, B, lengths != NULL, self.work.threads)
        if size > workspace.size:
            workspace.reserve(max(size, room(&self.stack, T, B, lengths != NULL, self.work.threads)))
        lay_out(&self.stack, &call, workspace.data, lengths != NULL)
        with nogil:
            execute(&self.stack, &call, source, target, lengths)
        if not workspace.is_large():
            self.workspaces.append(workspace)
        return 0
