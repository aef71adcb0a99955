"""What makes the steps of a stream; the base of Stream.

A plain step, of arrays that need neither conversion nor a message, is made here without a Python object on
the way but its result; `_step_checked` of the subclass makes all others.
"""

import os

cimport numpy as cnp
from libc.string cimport memcpy

from fastrnn.operators.runner cimport (
    SWEEP_ROWS, Runner, RunSpace, fit_steps, steps_room, may_share, place_arrays, plan_steps, run_path,
)
from fastrnn.engine.plain cimport are_tokens, is_apart, is_plain, is_whole
from fastrnn.engine.workspace cimport HAS_GIL
from fastrnn.streaming.errors import taken_stream

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t PyNumber_AsSsize_t(object number, void *overflow) except? -1  # NULL: too large is the largest

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    #define frnn_take(flag, mark) (_InterlockedCompareExchange((flag), (mark), 0) == 0)
    #define frnn_give(flag) ((void)_InterlockedExchange((flag), 0))
    #else
    static inline int frnn_take(long *flag, long mark)
    {
        long nobody = 0;
        return __atomic_compare_exchange_n(flag, &nobody, mark, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }
    #define frnn_give(flag) (__atomic_store_n((flag), 0, __ATOMIC_RELEASE))
    #endif
    """
    bint frnn_take(long *flag, long mark) noexcept nogil
    void frnn_give(long *flag) noexcept nogil

# A step that reads no more bytes of weights is over in about a microsecond (a few of baseline): too short to
# give the GIL away and take it back. Where there is none, no step is short.
cdef Py_ssize_t SHORT_BYTES = 256 * 1024 if HAS_GIL else -1
# How often the process was forked on the way here, and 1: what marks a stream as taken.
cdef long generation = 1


def _count_fork():
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def copy_arrays(list source, list target):
    """Copy arrays into others, each like its own and C-contiguous: all, since no interrupt comes between."""
    cdef cnp.ndarray value, array
    cdef Py_ssize_t i
    for i in range(len(source)):
        value = source[i]
        array = target[i]
        memcpy(cnp.PyArray_DATA(array), cnp.PyArray_DATA(value), cnp.PyArray_NBYTES(array))


cdef class Alone:
    """Keeps other threads from a stream while the block of a `with` runs.

    In compiled code, so that no interrupt comes between taking the stream and the block.
    """

    cdef Stepper stepper
    cdef str method
    cdef bint heals

    def __cinit__(self, Stepper stepper not None, str method, bint heals=False):
        """heals: what the block does makes a stream whole that a fork tore."""
        self.stepper = stepper
        self.method = method
        self.heals = heals

    def __enter__(self):
        self.stepper.take(self.method, self.heals)

    def __exit__(self, *_):
        frnn_give(&self.stepper.taken)


cdef class Stepper:
    """Steps of one sequence, or of rows that go in step, on states of its own."""

    cdef Runner chain            # None: no step is plain
    cdef RunSpace steps        # planned for one step
    cdef RunSpace chunks
    cdef list states
    cdef Py_ssize_t B
    cdef int axes
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef bint is_short          # a step is over so soon that the GIL is kept
    cdef bint is_divided        # a step may use several threads, whenever they are free
    cdef long taken             # 0: by nobody; else the generation of the process that took it

    def _bind(self, Runner chain not None, list states, batch_size):
        """Step these states from now on, in place: of each recurrent layer h (L, B, P), and c (L, B, H) or
        None, without B where batch_size is None; C-contiguous, of the chain's dtype."""
        cdef RunSpace space
        cdef Py_ssize_t i
        self.states = states
        self.B = 1 if batch_size is None else batch_size
        self.axes = 1 if batch_size is None else 2
        self.x_shape[0] = self.y_shape[0] = self.B
        if chain.tokens == 0:
            self.x_shape[self.axes - 1] = chain.features_in
        self.y_shape[self.axes - 1] = chain.features_out
        self.is_short = self.B * chain.weight_bytes <= SHORT_BYTES
        self.is_divided = may_share(&chain.path, 1, self.B, chain.threads)
        self.steps = RunSpace(chain)
        self.chunks = RunSpace(chain)
        arrays = [array for pair in states for array in pair if array is not None]
        for space in (self.steps, self.chunks):
            for i in range(len(arrays)):
                space.run.arrays[i] = cnp.PyArray_BYTES(arrays[i])
            place_arrays(&chain.path, &space.run, self.B)
        self.steps.reserve(steps_room(&chain.path, 1, self.B, chain.threads))
        self.chain = chain
        self.plan_step()

    cdef void plan_step(self) noexcept nogil:
        fit_steps(
            &self.chain.path, &self.steps.run, 1, self.B, self.chain.threads, self.steps.workspace.data,
            self.steps.workspace.size)

    cdef int take(self, str method, bint heals) except -1:
        """Keep other threads away; or raise, where one is at work already, or was at the fork."""
        if not frnn_take(&self.taken, generation):
            if self.taken in (0, generation) or not heals:
                raise taken_stream(f"Stream.{method}", self.taken not in (0, generation))
            self.taken = generation
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
        cdef cnp.ndarray y
        cdef Py_ssize_t token
        cdef const char *source
        cdef Runner chain = self.chain
        if chain is None:
            return self._step_checked(x, out)
        if chain.tokens == 0:
            if not is_plain(x, self.axes, self.x_shape, chain.type_number) or not cnp.PyArray_ISCARRAY_RO(x):
                return self._step_checked(x, out)
            source = cnp.PyArray_BYTES(x)
        elif self.axes == 1 and is_whole(x):
            token = PyNumber_AsSsize_t(x, NULL)
            if token < 0 or token >= chain.tokens:
                return self._step_checked(x, out)
            source = <const char *>&token
        elif are_tokens(x, self.axes - 1, self.x_shape, chain.tokens):
            source = cnp.PyArray_BYTES(x)
        else:
            return self._step_checked(x, out)
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.y_shape, chain.type_number, 0)
        else:
            if (
                not is_plain(out, self.axes, self.y_shape, chain.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or (cnp.PyArray_Check(x) and not is_apart(out, x))
            ):
                return self._step_checked(x, out)
            y = out
        if not frnn_take(&self.taken, generation):
            self.take("step", False)
        if self.is_short:
            run_path(&chain.path, &self.steps.run, source, cnp.PyArray_BYTES(y))
        else:
            with nogil:
                if self.is_divided:
                    self.plan_step()
                run_path(&chain.path, &self.steps.run, source, cnp.PyArray_BYTES(y))
        frnn_give(&self.taken)
        return y

    def _run_plain(self, str method, cnp.ndarray x, cnp.ndarray y):
        """Run checked arrays: x (T, B, I), tokens (T, B) of intp, into y (T, B, features).

        Both are without B where the stream has no rows, C-contiguous, of the chain's dtype.
        """
        self.take(method, False)
        try:
            self.run_blocks(cnp.PyArray_DIM(x, 0), cnp.PyArray_BYTES(x), cnp.PyArray_BYTES(y))
        finally:
            frnn_give(&self.taken)

    cdef int run_blocks(self, Py_ssize_t T, const char *source, char *target) except -1:
        cdef Runner chain = self.chain
        cdef RunSpace space = self.chunks
        cdef Py_ssize_t steps, rest, planned = 0
        if T == 0:
            return 0
        steps = T if chain.path.count == 1 else min(T, max(1, SWEEP_ROWS // self.B))
        rest = T % steps
        # All memory first: a state that has moved cannot go back.
        cdef size_t size = plan_steps(&chain.path, &space.run, steps, self.B, chain.threads)
        if rest:
            size = max(size, plan_steps(&chain.path, &space.run, rest, self.B, chain.threads))
        if size > space.workspace.size:
            size = max(size, steps_room(&chain.path, steps, self.B, chain.threads))
            if rest:
                size = max(size, steps_room(&chain.path, rest, self.B, chain.threads))
            space.reserve(size)
        with nogil:
            while T > 0:
                steps = min(steps, T)
                if steps != planned:
                    fit_steps(
                        &chain.path, &space.run, steps, self.B, chain.threads, space.workspace.data,
                        space.workspace.size)
                    planned = steps
                run_path(&chain.path, &space.run, source, target)
                source += steps * self.B * chain.path.in_bytes
                target += steps * self.B * chain.path.out_bytes
                T -= steps
        space.shrink()
        return 0
