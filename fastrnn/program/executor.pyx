"""Runs the steps of a plan, one after the other, without the GIL and without allocations."""

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

from fastrnn.engine.backend cimport frnn_backend
from fastrnn.engine.workspace cimport Workspace, aligned
from fastrnn.program.steps cimport RunStep, Step

cnp.import_array()

cdef enum:
    MOST_ARRAYS = 64


cdef struct Place:
    # Where a step finds an array: at an address; in a loop, further on with each step of it.
    int base                    # 0: offset is the address. 1: the workspace. Then inputs and outputs
    Py_ssize_t offset
    Py_ssize_t advance


cdef struct Item:
    RunStep run                 # NULL: a loop of the `length` items after it
    const void *data
    const Place *places
    int arrays
    Py_ssize_t count
    int length


cdef class CompiledPlan:
    """Steps with the places of their arrays. Immutable, shared by threads.

    Parameters
    ----------
    items : list of (Step, places) and (int, list of these)
        A number is that of the repetitions of a loop. Places are (base, offset, advance): base 0 for an
        address, 1 for the workspace, then the inputs and the outputs.
    bases : int
        How many inputs and outputs there are.
    work_bytes : int
    tables : sequence of capsules
        The backends whose arithmetic the steps use.
    owners : object
        What the addresses point into.
    """

    cdef Item *items
    cdef Place *places
    cdef int count, bases
    cdef size_t work_bytes, scratch_bytes
    cdef const frnn_backend *entered    # sets how this thread computes
    cdef const frnn_backend *begun      # is told of the beginning and the end of a call
    cdef object owners
    cdef list spaces                    # Workspaces that no call is using
    cdef readonly double cost

    def __cinit__(self, items, int bases, size_t work_bytes, tables, owners):
        cdef Step step
        cdef Item *item
        cdef const frnn_backend *table
        cdef int i, at = 0
        flat = []
        for step_or_count, content in items:
            if isinstance(step_or_count, int):
                flat.append((step_or_count, len(content), None))
                flat += [(1, 0, pair) for pair in content]
            else:
                flat.append((1, 0, (step_or_count, content)))
        self.count = len(flat)
        self.bases = bases
        self.work_bytes = aligned(work_bytes)
        self.owners = [owners, items]
        self.spaces = []
        self.items = <Item *>PyMem_RawCalloc(max(self.count, 1), sizeof(Item))
        total = sum([len(pair[1]) for _, _, pair in flat if pair is not None])
        self.places = <Place *>PyMem_RawCalloc(max(total, 1), sizeof(Place))
        if self.items == NULL or self.places == NULL:
            raise MemoryError
        for i, (count, length, pair) in enumerate(flat):
            item = &self.items[i]
            item.count = count
            item.length = length
            if pair is None:
                continue
            step = <Step?>pair[0]
            if len(pair[1]) != step.info.arrays or step.info.arrays > MOST_ARRAYS:
                raise ValueError(
                    f"CompiledPlan: expected {step.info.arrays} arrays of a step, got {len(pair[1])}.")
            item.run = step.info.run
            item.data = step.info.data
            item.arrays = step.info.arrays
            item.places = &self.places[at]
            self.scratch_bytes = max(self.scratch_bytes, step.info.scratch_bytes)
            self.cost += step.info.cost
            for base, offset, advance in pair[1]:
                self.places[at] = Place(base, offset, advance)
                at += 1
        for capsule in tables:
            table = <const frnn_backend *>PyCapsule_GetPointer(capsule, "fastrnn.backend")
            if self.entered == NULL:
                self.entered = table
            if table.begin != NULL:
                self.begun = table

    def __dealloc__(self):
        PyMem_RawFree(self.items)
        PyMem_RawFree(self.places)

    def run(self, tuple inputs, tuple outputs):
        """Run all steps. The arrays have the sizes and strides of the plan; this is not checked here."""
        cdef char *bases[2 + 2 * MOST_ARRAYS]
        cdef Workspace workspace
        cdef int i, given = <int>len(inputs), total = given + <int>len(outputs)
        if total != self.bases:
            raise ValueError(f"CompiledPlan: expected {self.bases} arrays, got {total}.")
        for i in range(given):
            bases[2 + i] = cnp.PyArray_BYTES(inputs[i])
        for i in range(total - given):
            bases[2 + given + i] = cnp.PyArray_BYTES(outputs[i])
        workspace = self.space()
        bases[0] = NULL
        bases[1] = workspace.data
        with nogil:
            self.run_items(bases, workspace.data + self.work_bytes)
        if not workspace.is_large():
            self.spaces.append(workspace)

    cdef Workspace space(self):
        cdef Workspace workspace
        try:
            return self.spaces.pop()
        except IndexError:
            workspace = Workspace()
            workspace.reserve(self.work_bytes + self.scratch_bytes + 64)
            return workspace

    cdef void run_items(self, char **bases, char *scratch) noexcept nogil:
        cdef uint64_t before
        cdef Py_ssize_t step
        cdef int i = 0, j
        if self.begun != NULL:
            self.begun.begin()
        before = self.entered.enter() if self.entered != NULL else 0
        while i < self.count:
            if self.items[i].run != NULL:
                run_item(&self.items[i], bases, 0, scratch)
                i += 1
                continue
            for step in range(self.items[i].count):
                for j in range(i + 1, i + 1 + self.items[i].length):
                    run_item(&self.items[j], bases, step, scratch)
            i += 1 + self.items[i].length
        if self.entered != NULL:
            self.entered.leave(before)
        if self.begun != NULL:
            self.begun.end()


cdef inline void run_item(const Item *item, char **bases, Py_ssize_t step, char *scratch) noexcept nogil:
    cdef char *arrays[MOST_ARRAYS]
    cdef const Place *place
    cdef int i
    for i in range(item.arrays):
        place = &item.places[i]
        arrays[i] = bases[place.base] + place.offset + step * place.advance
    item.run(item.data, arrays, scratch)


# ---------------------------------------------------------------- operators without a kernel

cdef class ReferenceStep(Step):
    """An operator by its definition in NumPy.

    Parameters
    ----------
    function : callable of arrays
        It returns an array or several.
    inputs, outputs : list of (dtype, shape, strides)
    """

    cdef object function
    cdef tuple inputs, outputs

    def __init__(self, function, inputs, outputs):
        self.function = function
        self.inputs = tuple([(np.dtype(dtype), shape, strides) for dtype, shape, strides in inputs])
        self.outputs = tuple([(np.dtype(dtype), shape, strides) for dtype, shape, strides in outputs])
        self.info.run = run_reference
        self.info.data = <void *>self
        self.info.arrays = len(self.inputs) + len(self.outputs)
        self.info.cost = 10000

    cdef compute(self, char *const *arrays):
        cdef int i, count = <int>len(self.inputs)
        given = [array_at(arrays[i], self.inputs[i]) for i in range(count)]
        with np.errstate(all="ignore"):
            results = self.function(*given)
        if not isinstance(results, (tuple, list)):
            results = [results]
        for i in range(len(self.outputs)):
            array_at(arrays[count + i], self.outputs[i])[...] = results[i]


cdef object array_at(char *data, tuple form):
    """An array over memory that somebody else owns. form: its dtype, shape and strides."""
    cdef cnp.npy_intp sizes[32]
    cdef cnp.npy_intp steps[32]
    cdef int i, axes
    dtype, shape, strides = form
    axes = <int>len(shape)
    for i in range(axes):
        sizes[i] = shape[i]
        steps[i] = strides[i]
    Py_INCREF(dtype)
    return PyArray_NewFromDescr(
        np.ndarray, dtype, axes, sizes, steps, data, cnp.NPY_ARRAY_WRITEABLE | cnp.NPY_ARRAY_ALIGNED, NULL)


cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        object subtype, object descr, int nd, cnp.npy_intp *dims, cnp.npy_intp *strides, void *data,
        int flags, void *obj)


cdef void run_reference(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    with gil:
        try:
            (<ReferenceStep>data).compute(arrays)
        except BaseException as error:
            failures.append(error)


# What went wrong in steps that call Python: `CompiledPlan` cannot stop in the middle.
failures = []
