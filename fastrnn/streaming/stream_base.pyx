"""What a stream does in compiled code; the base of Stream.

A plain step, of arrays that need neither conversion nor a message, makes no Python object but its result. The
stream's `calls` make every other one.
"""

cimport numpy as cnp
from libc.string cimport memcpy

from fastrnn.operators.runner cimport (
    Path, Runner, RunSpace, may_share, place_arrays, plan_steps, run_path, steps_room,
)
from fastrnn.engine.plain_arrays cimport are_tokens, is_apart, is_plain, is_whole
from fastrnn.engine.workspace cimport HAS_GIL
from fastrnn.streaming.atomics cimport Atomic, replace
from fastrnn.streaming.stream_holder cimport ITS_OWN, TORN, Claim, claim, let_go
from fastrnn.streaming.errors import bound_twice, taken_stream

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t PyNumber_AsSsize_t(object number, void *overflow) except? -1  # NULL: too large is the largest


def copy_arrays(list source, list target):
    """Copy arrays into others, each like its own and C-contiguous: all, since no interrupt comes between."""
    cdef cnp.ndarray value, array
    cdef Py_ssize_t i
    for i in range(len(source)):
        value = source[i]
        array = target[i]
        memcpy(cnp.PyArray_DATA(array), cnp.PyArray_DATA(value), cnp.PyArray_NBYTES(array))


cdef class Exclusive:
    """Keeps other threads from a stream while the body of a `with` runs.

    In compiled code, so that no interrupt comes between taking the stream and the body.
    """

    cdef StreamBase stream
    cdef str method
    cdef bint sets_all

    def __cinit__(self, StreamBase stream not None, str method, bint sets_all=False):
        """sets_all: the body sets the whole state, so it may enter a stream that a fork tore."""
        self.stream = stream
        self.method = method
        self.sets_all = sets_all

    def __enter__(self):
        self.stream.take(self.method, self.sets_all)

    def __exit__(self, *_):
        let_go(&self.stream.holder)


cdef class StreamBase:
    """The steps of one sequence, or of rows that go in step, on states of its own."""

    cdef Runner runner
    cdef const Path *path  # the runner's; NULL: no step is plain
    cdef Py_ssize_t tokens
    cdef int type_number
    cdef RunSpace one_step      # planned
    cdef RunSpace several_steps
    cdef object calls           # whose `step` and `run` take arguments of any kind
    cdef list arrays            # of the states
    cdef Py_ssize_t B
    cdef int axes
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef bint is_short          # a step is over so soon that the GIL is kept, if there is one
    cdef bint is_divided        # a step may use several threads, whenever they are free
    cdef Atomic holder          # 0: nobody
    cdef Atomic is_bound

    def _bind(self, Runner runner, list arrays, batch_size, calls):
        """Step the states in these arrays from now on, in place: (layers, B, columns), without B where
        batch_size is None, those of all operators in order; C-contiguous, of the runner's dtype."""
        cdef RunSpace space
        if not replace(&self.is_bound, False, True):
            raise bound_twice(type(self).__name__)
        self.calls = calls
        if runner is None:
            return
        self.arrays = arrays
        self.B = 1 if batch_size is None else batch_size
        self.axes = 1 if batch_size is None else 2
        self.x_shape[0] = self.y_shape[0] = self.B
        if runner.tokens == 0:
            self.x_shape[self.axes - 1] = runner.features_in
        self.y_shape[self.axes - 1] = runner.features_out
        self.is_short = HAS_GIL and runner.has_short_step(self.B)
        self.is_divided = may_share(&runner.path, 1, self.B)
        self.one_step = RunSpace(runner)
        self.several_steps = RunSpace(runner)
        for space in (self.one_step, self.several_steps):
            place_arrays(&runner.path, &space.run, arrays, self.B)
        self.one_step.reserve_steps(steps_room(&runner.path, 1, self.B), 0)
        self.runner = runner
        self.tokens = runner.tokens
        self.type_number = runner.type_number
        self.path = &runner.path
        self.plan_step()

    cdef void plan_step(self) noexcept nogil:
        plan_steps(self.path, &self.one_step.run, 1, self.B, self.path.threads)

    cdef int take(self, str method, bint sets_all) except -1:
        """Keep other threads away; or raise, where one is at work already, or was at the fork."""
        cdef Claim answer = claim(&self.holder, sets_all)
        if answer != ITS_OWN:
            raise taken_stream(f"Stream.{method}", answer == TORN)
        return 0

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
            Another thread is using the stream.
        """
        cdef Claim answer
        cdef cnp.ndarray y
        cdef Py_ssize_t token
        cdef const char *source
        if self.path == NULL:
            return self.calls.step(self, x, out)
        if self.tokens == 0:
            if not is_plain(x, self.axes, self.x_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(x):
                return self.calls.step(self, x, out)
            source = cnp.PyArray_BYTES(x)
        elif self.axes == 1 and is_whole(x):
            token = PyNumber_AsSsize_t(x, NULL)
            if token < 0 or token >= self.tokens:
                return self.calls.step(self, x, out)
            source = <const char *>&token
        elif are_tokens(x, self.axes - 1, self.x_shape, self.tokens):
            source = cnp.PyArray_BYTES(x)
        else:
            return self.calls.step(self, x, out)
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.y_shape, self.type_number, 0)
        else:
            if (
                not is_plain(out, self.axes, self.y_shape, self.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or (cnp.PyArray_Check(x) and not is_apart(out, x))
            ):
                return self.calls.step(self, x, out)
            y = out
        answer = claim(&self.holder, False)
        if answer != ITS_OWN:
            raise taken_stream("Stream.step", answer == TORN)
        if self.is_short:
            run_path(self.path, &self.one_step.run, source, cnp.PyArray_BYTES(y))
        else:
            with nogil:
                if self.is_divided:
                    self.plan_step()
                run_path(self.path, &self.one_step.run, source, cnp.PyArray_BYTES(y))
        let_go(&self.holder)
        return y

    def run(self, chunk, out=None):
        """Make several time steps in one call.

        The result is that of `step` called for each time step. An interrupt waits until all steps are made.
        The state then includes these steps, but the output is lost.

        Parameters
        ----------
        chunk : array-like, shape (T, I) or (T, B, I)
            Real numbers. For layers that take tokens: integers of shape (T,) or (T, B). An empty chunk,
            also ``[]``, makes no step. If the model takes one feature and the stream has no rows, numbers
            of shape (T,) are read as (T, 1).
        out : ndarray, optional
            An array for the result: C-contiguous, of its shape and dtype, and apart from ``chunk``.

        Returns
        -------
        ndarray, shape (T, features) or (T, B, features)
            ``out`` if given. The dtype is that of the last layer that has one.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As in `step`.
        """
        cdef cnp.npy_intp x_shape[3]
        cdef cnp.npy_intp y_shape[3]
        cdef cnp.ndarray y
        cdef int i
        if self.path == NULL or not cnp.PyArray_CheckExact(chunk) or cnp.PyArray_SIZE(chunk) == 0:
            return self.calls.run(self, chunk, out)
        x_shape[0] = y_shape[0] = cnp.PyArray_DIM(chunk, 0)
        for i in range(self.axes):
            x_shape[i + 1] = self.x_shape[i]
            y_shape[i + 1] = self.y_shape[i]
        if self.tokens == 0:
            is_fit = is_plain(chunk, self.axes + 1, x_shape, self.type_number)
            is_fit = is_fit and cnp.PyArray_ISCARRAY_RO(chunk)
        else:
            is_fit = are_tokens(chunk, self.axes, x_shape, self.tokens)
        if not is_fit:
            return self.calls.run(self, chunk, out)
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes + 1, y_shape, self.type_number, 0)
        elif (
            is_plain(out, self.axes + 1, y_shape, self.type_number) and cnp.PyArray_ISCARRAY(out)
            and is_apart(out, chunk)
        ):
            y = out
        else:
            return self.calls.run(self, chunk, out)
        self._run_plain("run", chunk, y)
        return y

    def _run_plain(self, str method, cnp.ndarray x, cnp.ndarray y):
        """Run checked arrays: x (T, B, I), tokens (T, B) of intp, into y (T, B, features).

        Both are without B where the stream has no rows, C-contiguous, of the runner's dtype.
        """
        self.take(method, False)
        try:
            self.runner.run_steps(
                self.several_steps, cnp.PyArray_DIM(x, 0), self.B, cnp.PyArray_BYTES(x), cnp.PyArray_BYTES(y))
        finally:
            let_go(&self.holder)

    def _chunk_bytes(self):
        """The memory that is kept for chunks; for tests."""
        self.take("_chunk_bytes", False)
        size = self.several_steps.workspace.size
        let_go(&self.holder)
        return size
