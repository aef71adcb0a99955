"""The engine as the layers see it: arrays in, arrays out, workspaces kept from call to call.

The drivers (_drivers.pyx) do the work. Nothing here checks its arguments but for what makes a call or a
step plain; layers and streams do, and nothing allocates but the workspace and the results.
"""

import sys

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from fastrnn._drivers cimport execute, run_dense
from fastrnn._kernels cimport FRNN_F32, FRNN_LSTM, frnn_backend, frnn_cell
from fastrnn._pack cimport PackedCell
from fastrnn._plan cimport Call, Rows, Stack, choose, lay_out, plan
from fastrnn._threads cimport FRNN_MOST_THREADS

cnp.import_array()

# A larger workspace is given back after the call: that of a stack of bidirectional layers, which
# grows with T, or of a huge batch.
cdef size_t KEPT_BYTES = 64 * 1024 * 1024
# A step that reads no more bytes of weights is over in about a microsecond (a few of baseline): too short to
# give the GIL away and take it back. Where there is none, no step is short.
cdef bint HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
cdef Py_ssize_t SHORT_BYTES = 256 * 1024 if HAS_GIL else -1


# ---------------------------------------------------------------- memory

cdef class Workspace:
    """One aligned block of scratch memory that grows and is kept."""

    cdef void *memory
    cdef char *data
    cdef size_t size

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int reserve(self, size_t size) except -1:
        if size > self.size:
            PyMem_RawFree(self.memory)
            self.size = 0
            self.memory = PyMem_RawMalloc(size + 64)
            if self.memory == NULL:
                raise MemoryError(f"workspace: expected {size} bytes of memory, got none.")
            self.data = <char *>((<uintptr_t>self.memory + 63) & ~<uintptr_t>63)
            self.size = size
        return 0


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


cdef inline bint is_plain(
    object array, int axes, const cnp.npy_intp *shape, int type_number,
) noexcept:
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


cdef inline bint is_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
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


# ---------------------------------------------------------------- layers

# By the number of _plan's Kind.
PLANS = ("alone", "rows", "directions", "panels", "pipeline")


cdef class Dense:
    """A projection alone: out = x W^T + bias."""

    cdef PackedCell packed
    cdef const frnn_backend *backend
    cdef int threads
    cdef object guard

    def __init__(self, PackedCell packed not None, backend, int threads=1, guard=None):
        self.packed = packed
        self.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.threads = min(threads, FRNN_MOST_THREADS)
        self.guard = guard

    def run(self, cnp.ndarray x, cnp.ndarray out):
        """Project x (n, I) into out (n, H); both are C-contiguous and do not overlap."""
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, 0)
        cdef const void *source = cnp.PyArray_DATA(x)
        cdef void *target = cnp.PyArray_DATA(out)
        if self.guard is not None:
            self.guard.__enter__()
        with nogil:
            run_dense(self.backend, &self.packed.cell, n, source, target, self.threads)
        if self.guard is not None:
            self.guard.__exit__(None, None, None)


cdef class Recurrent:
    """A stack of layers, in one or both directions. Holds no state; threads share it."""

    cdef tuple packed           # L*D PackedCells, layer by layer, forward before reverse
    cdef Stack stack
    cdef int threads            # that a call may use at most
    cdef object guard
    cdef Py_ssize_t weight_bytes
    cdef int type_number        # of NumPy
    cdef list workspaces        # those that no call is using
    cdef Spares spares

    def __cinit__(self, packed, Py_ssize_t directions, backend, int threads=1, guard=None):
        """guard, if any, is a context manager that every call is made in."""
        cdef Py_ssize_t i
        cdef Stack *stack = &self.stack
        self.packed = tuple(packed)
        stack.cells = <const frnn_cell **>PyMem_RawMalloc(len(self.packed) * sizeof(frnn_cell *))
        if stack.cells == NULL:
            raise MemoryError
        for i in range(len(self.packed)):
            stack.cells[i] = &(<PackedCell?>self.packed[i]).cell
        stack.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        stack.D = directions
        stack.L = len(self.packed) // directions
        stack.input_size = stack.cells[0].input_size
        stack.hidden_size = stack.cells[0].hidden_size
        stack.output_size = stack.cells[0].output_size
        stack.itemsize = 4 if stack.cells[0].dtype == FRNN_F32 else 8
        stack.gate_bytes = stack.backend.gate_width(stack.cells[0]) * stack.itemsize
        stack.has_cell_state = stack.cells[0].kind == FRNN_LSTM
        stack.only = -1
        self.threads = min(threads, FRNN_MOST_THREADS)
        self.weight_bytes = sum(
            array.nbytes for cell in self.packed for array in cell.arrays if array is not None)
        self.type_number = cnp.NPY_FLOAT32 if stack.itemsize == 4 else cnp.NPY_FLOAT64
        self.guard = guard
        self.workspaces = []
        self.spares = Spares()

    def __dealloc__(self):
        PyMem_RawFree(self.stack.cells)

    def plan(self, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads):
        """How T steps of B rows are divided if so many threads are free: the plan's name and its slices."""
        cdef Call call
        choose(&self.stack, &call, T, B, is_ragged, threads)
        return PLANS[<int>call.kind], call.slices

    def take_plan(self, str name, int threads):
        """Divide every call in that way where it can be, among so many threads; for tests."""
        self.stack.only = PLANS.index(name)
        self.threads = threads

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
        cdef char *h_data = cnp.PyArray_BYTES(h)
        cdef char *c_data = NULL if c is None else cnp.PyArray_BYTES(c)
        try:
            workspace = self.workspaces.pop()
        except IndexError:
            workspace = Workspace()
        prepare(self, &call, workspace, T, B, lengths != NULL)
        if self.guard is not None:
            self.guard.__enter__()
        with nogil:
            execute(&self.stack, &call, source, target, h_data, c_data, lengths)
        if self.guard is not None:
            self.guard.__exit__(None, None, None)
        if workspace.size <= KEPT_BYTES:
            self.workspaces.append(workspace)
        return 0


cdef int prepare(
    Recurrent engine, Call *call, Workspace workspace, Py_ssize_t T, Py_ssize_t B, bint is_ragged,
) except -1:
    """Plan a call, and lay its scratch out in a workspace."""
    workspace.reserve(plan(&engine.stack, call, T, B, is_ragged, engine.threads))
    lay_out(&engine.stack, call, workspace.data, is_ragged)
    return 0


cdef class Stepper:
    """What makes one step after the other of a stack that runs forward, on states of its own.

    The base of Stream: its plain steps are made here, without a Python object on the way but the
    result. `step_checked` of the subclass makes all others.
    """

    cdef Recurrent engine       # None: no step is plain
    cdef cnp.ndarray h
    cdef cnp.ndarray c
    cdef Call call
    cdef Workspace workspace
    cdef Rows source, target
    cdef int axes, type_number
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef char *h_data
    cdef char *c_data
    cdef bint is_short, is_running

    def bind(self, Recurrent engine not None, cnp.ndarray h, c, bint is_batched):
        """Step these states from now on: h (L, B, P) and c (L, B, H) or None, without B where not
        is_batched."""
        cdef Py_ssize_t B = cnp.PyArray_DIM(h, 1) if is_batched else 1
        self.engine = engine
        self.h = h
        self.c = c
        self.h_data = cnp.PyArray_BYTES(h)
        self.c_data = NULL if c is None else cnp.PyArray_BYTES(c)
        self.axes = 2 if is_batched else 1
        self.type_number = engine.type_number
        self.x_shape[0] = self.y_shape[0] = B
        self.x_shape[self.axes - 1] = engine.stack.input_size
        self.y_shape[self.axes - 1] = engine.stack.output_size
        self.source.first = self.target.first = 0
        self.source.row = engine.stack.input_size * engine.stack.itemsize
        self.target.row = engine.stack.output_size * engine.stack.itemsize
        self.source.step = B * self.source.row
        self.target.step = B * self.target.row
        self.is_short = B * engine.weight_bytes <= SHORT_BYTES
        self.workspace = Workspace()
        prepare(engine, &self.call, self.workspace, 1, B, False)

    def step(self, x, out=None):
        """Make one time step.

        Parameters
        ----------
        x : array-like, shape (I,) or (B, I)
            Real numbers; tokens: integers, shape () or (B,).
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``x``.

        Returns
        -------
        ndarray, shape (features,) or (B, features)
            Of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError
            The shape of ``x``, a token or ``out`` does not fit.
        TypeError
            ``x`` does not hold real numbers (of tokens: whole ones), or ``out`` is no ndarray.
        RuntimeError
            Another thread is stepping the stream.
        """
        cdef cnp.ndarray y
        if self.engine is None or self.engine.guard is not None:
            return self.step_checked(x, out)
        # First of all: whoever is running reads source and target without the GIL.
        if self.is_running:
            raise RuntimeError("Stream.step: expected one thread at a time, got a second one.")
        if not is_plain(x, self.axes, self.x_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(x):
            return self.step_checked(x, out)
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.y_shape, self.type_number, 0)
        else:
            if (
                not is_plain(out, self.axes, self.y_shape, self.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or not is_apart(out, x)
            ):
                return self.step_checked(x, out)
            y = out
        self.source.data = cnp.PyArray_BYTES(x)
        self.target.data = cnp.PyArray_BYTES(y)
        self.call.parity ^= 1
        if self.is_short:
            execute(
                &self.engine.stack, &self.call, self.source, self.target, self.h_data, self.c_data, NULL)
            return y
        self.is_running = True
        with nogil:
            execute(
                &self.engine.stack, &self.call, self.source, self.target, self.h_data, self.c_data, NULL)
        self.is_running = False
        return y
