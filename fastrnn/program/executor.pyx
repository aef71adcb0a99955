"""Runs the steps of a plan, one after the other, without the GIL and without allocations.

    CompiledPlan     steps with the places of their arrays
    ReferenceStep    an operator by its definition in NumPy
    RangeStep        the check of numbers, such as places in a table
"""

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

from fastrnn.engine.backend cimport frnn_backend
from fastrnn.engine.workspace cimport Workspace, aligned
from fastrnn.errors import message
from fastrnn.program.steps cimport Step

cnp.import_array()

cdef extern from *:
    """
    static PyObject *frnn_array(PyObject *dtype, int axes, npy_intp *sizes, npy_intp *strides, void *data) {
        Py_INCREF(dtype);  // NumPy takes this reference
        return PyArray_NewFromDescr(
            &PyArray_Type, (PyArray_Descr *)dtype, axes, sizes, strides, data,
            NPY_ARRAY_WRITEABLE | NPY_ARRAY_ALIGNED, NULL);
    }
    """
    # An array over memory that somebody else owns.
    object frnn_array(object dtype, int axes, cnp.npy_intp *sizes, cnp.npy_intp *strides, void *data)


cdef inline Report *report_of(char *scratch) noexcept nogil:
    return <Report *>(scratch - aligned(sizeof(Report)))


cdef class CompiledPlan:
    """Steps with the places of their arrays. Immutable, shared by threads.

    Parameters
    ----------
    items : list of (Step, places) and (int, list of these)
        A number is that of the repetitions of a loop. Places are (base, offset, advance): base 0 for an
        address, 1 for the workspace, then the inputs and the outputs.
    shapes : list of tuple of int
        Of the inputs.
    results : list of (bytes, dtype, shape, strides, offset)
        Of each output: the memory that it takes, and the array in it.
    work_bytes : int
    tables : sequence of capsules
        The backends whose arithmetic the steps use.
    owners : object
        What the addresses point into.
    """

    def __cinit__(self, items, shapes, results, size_t work_bytes, tables, owners):
        cdef Step step
        cdef Item *item
        cdef Result *result
        cdef const frnn_backend *table
        cdef int i, j, at = 0
        flat = []
        for step_or_count, content in items:
            if isinstance(step_or_count, int):
                flat.append((step_or_count, len(content), None))
                flat += [(1, 0, pair) for pair in content]
            else:
                flat.append((1, 0, (step_or_count, content)))
        self.count = len(flat)
        self.inputs = len(shapes)
        self.outputs = len(results)
        self.axes = sum([len(shape) for shape in shapes])
        self.pointer_bytes = aligned((2 + self.inputs + self.outputs) * sizeof(char *))
        self.work_bytes = aligned(work_bytes)
        self.owners = [owners, items]
        self.spaces = []
        self.items = <Item *>PyMem_RawCalloc(max(self.count, 1), sizeof(Item))
        total = sum([len(pair[1]) + 1 for _, _, pair in flat if pair is not None])
        self.places = <Place *>PyMem_RawCalloc(max(total, 1), sizeof(Place))
        self.results = <Result *>PyMem_RawCalloc(max(self.outputs, 1), sizeof(Result))
        self.sizes = <cnp.npy_intp *>PyMem_RawCalloc(max(self.axes, 1), sizeof(cnp.npy_intp))
        if self.items == NULL or self.places == NULL or self.results == NULL or self.sizes == NULL:
            raise MemoryError
        for i, size in enumerate([size for shape in shapes for size in shape]):
            self.sizes[i] = size
        self.dtypes = tuple([np.dtype(dtype) for _, dtype, _, _, _ in results])
        for i, (size, _, shape, strides, offset) in enumerate(results):
            result = &self.results[i]
            if len(shape) > MOST_AXES:
                raise ValueError(message("Program", f"results of at most {MOST_AXES} axes", f"{len(shape)}"))
            result.axes = len(shape)
            result.type_number = self.dtypes[i].num
            result.bytes = size
            result.offset = offset
            dense = self.dtypes[i].itemsize
            result.is_dense = True
            for j in range(result.axes - 1, -1, -1):
                result.sizes[j] = shape[j]
                result.strides[j] = strides[j]
                result.is_dense = result.is_dense and (shape[j] == 1 or strides[j] == dense)
                dense *= shape[j]
            result.is_dense = result.is_dense and offset == 0 and size == dense
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
            if step.info.own_bytes:
                item.arrays += 1
                self.places[at] = Place(1, self.work_bytes + self.own_bytes, 0)
                self.own_bytes += aligned(step.info.own_bytes)
                at += 1
        for capsule in tables:
            if capsule is None:
                continue
            table = <const frnn_backend *>PyCapsule_GetPointer(capsule, "fastrnn.backend")
            if self.entered == NULL:
                self.entered = table
            if table.begin != NULL:
                self.begun = table

    def __dealloc__(self):
        PyMem_RawFree(self.items)
        PyMem_RawFree(self.places)
        PyMem_RawFree(self.results)
        PyMem_RawFree(self.sizes)

    def run(self, tuple inputs):
        """Run all steps, and give the outputs in a list.

        The inputs are C-contiguous arrays of the shapes and types of the plan, which is not checked here.
        """
        cdef Workspace workspace
        cdef char **bases
        cdef char *scratch
        cdef Report *report
        cdef cnp.ndarray output
        cdef int i
        if len(inputs) != self.inputs:
            raise ValueError(f"CompiledPlan: expected {self.inputs} arrays, got {len(inputs)}.")
        workspace = self.space()
        bases = <char **>workspace.data
        bases[0] = NULL
        bases[1] = workspace.data + self.pointer_bytes
        scratch = bases[1] + self.work_bytes + self.own_bytes + aligned(sizeof(Report))
        report = report_of(scratch)
        report.error = NULL
        report.ranges = NULL
        for i in range(self.inputs):
            bases[2 + i] = cnp.PyArray_BYTES(<cnp.ndarray>inputs[i])
        held = []
        for i in range(self.outputs):
            output = self.memory_of(&self.results[i])
            bases[2 + self.inputs + i] = cnp.PyArray_BYTES(output)
            held.append(output)
        with nogil:
            self.run_items(bases, scratch)
        error = None
        if report.error != NULL:
            error = <object>report.error
            Py_XDECREF(report.error)
        elif report.ranges != NULL:
            error = (<RangeStep>report.ranges.step).error(report.number)
        if not workspace.is_large():
            self.spaces.append(workspace)
        if error is not None:
            raise error
        for i in range(self.outputs):
            if not self.results[i].is_dense:
                held[i] = array_in(&self.results[i], self.dtypes[i], held[i])
        return held

    cdef cnp.ndarray memory_of(self, Result *result):
        """New memory for an output: the output itself, or bytes that it lies in."""
        cdef cnp.npy_intp size = result.bytes
        if result.is_dense:
            return cnp.PyArray_EMPTY(result.axes, result.sizes, result.type_number, 0)
        return cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)

    cdef Workspace space(self):
        cdef Workspace workspace
        try:
            return self.spaces.pop()
        except IndexError:
            workspace = Workspace()
            workspace.reserve(
                self.pointer_bytes + self.work_bytes + self.own_bytes + aligned(sizeof(Report))
                + self.scratch_bytes + 64)
            memset(workspace.data + self.pointer_bytes + self.work_bytes, 0, self.own_bytes)
            return workspace

    cdef void run_items(self, char **bases, char *scratch) noexcept nogil:
        cdef const Report *report = report_of(scratch)
        cdef uint64_t before
        if self.begun != NULL:
            self.begun.begin()
        before = self.entered.enter() if self.entered != NULL else 0
        self.run_until_failure(bases, scratch, report)
        if self.entered != NULL:
            self.entered.leave(before)
        if self.begun != NULL:
            self.begun.end()

    cdef void run_until_failure(self, char **bases, char *scratch, const Report *report) noexcept nogil:
        cdef Py_ssize_t step
        cdef int i = 0, j
        while i < self.count:
            if self.items[i].run != NULL:
                run_item(&self.items[i], bases, 0, scratch)
                if report.error != NULL or report.ranges != NULL:
                    return
                i += 1
                continue
            for step in range(self.items[i].count):
                for j in range(i + 1, i + 1 + self.items[i].length):
                    run_item(&self.items[j], bases, step, scratch)
                    if report.error != NULL or report.ranges != NULL:
                        return
            i += 1 + self.items[i].length


cdef inline void run_item(const Item *item, char **bases, Py_ssize_t step, char *scratch) noexcept nogil:
    cdef char *arrays[MOST_ARRAYS + 1]
    cdef const Place *place
    cdef int i
    for i in range(item.arrays):
        place = &item.places[i]
        arrays[i] = bases[place.base] + place.offset + step * place.advance
    item.run(item.data, arrays, scratch)


cdef object array_in(Result *result, object dtype, cnp.ndarray memory):
    """The output that lies in some memory."""
    array = frnn_array(
        dtype, result.axes, result.sizes, result.strides, cnp.PyArray_BYTES(memory) + result.offset)
    cnp.set_array_base(array, memory)
    return array


# ---------------------------------------------------------------- operators without a kernel

cdef class ReferenceStep(Step):
    """An operator by its definition in NumPy.

    Parameters
    ----------
    where : str
        The operator's name, for messages.
    function : callable of arrays
        It returns an array or several.
    inputs, outputs : list of (dtype, shape, strides)
    """

    cdef object where, function
    cdef tuple inputs, outputs

    def __init__(self, where, function, inputs, outputs):
        self.where = where
        self.function = function
        self.inputs = tuple([(np.dtype(dtype), shape, strides) for dtype, shape, strides in inputs])
        self.outputs = tuple([(np.dtype(dtype), shape, strides) for dtype, shape, strides in outputs])
        self.info.run = run_reference
        self.info.data = <void *>self
        self.info.arrays = len(self.inputs) + len(self.outputs)
        self.info.cost = 10000

    def run(self, *arrays):
        """Run it over arrays, as `Step.run` does. Errors are raised here."""
        cdef char *pointers[MOST_ARRAYS]
        cdef int i
        if len(arrays) != self.info.arrays or len(arrays) > MOST_ARRAYS:
            raise ValueError(f"ReferenceStep.run: expected {self.info.arrays} arrays, got {len(arrays)}.")
        for i in range(len(arrays)):
            pointers[i] = cnp.PyArray_BYTES(arrays[i])
        self.compute(pointers)

    cdef compute(self, char *const *arrays):
        cdef int i, count = <int>len(self.inputs)
        given = [array_at(arrays[i], self.inputs[i]) for i in range(count)]
        results = self.function(*given)
        if not isinstance(results, (tuple, list)):
            results = [results]
        for i in range(len(self.outputs)):
            target = array_at(arrays[count + i], self.outputs[i])
            if np.shape(results[i]) != target.shape:
                raise ValueError(message(
                    self.where, "a result whose shape depends on sizes alone",
                    f"{np.shape(results[i])} instead of {target.shape}"))
            target[...] = results[i]


cdef object array_at(char *data, tuple form):
    """An array over memory that somebody else owns. form: its dtype, shape and strides."""
    cdef cnp.npy_intp sizes[MOST_AXES]
    cdef cnp.npy_intp steps[MOST_AXES]
    cdef int i, axes
    dtype, shape, strides = form
    axes = <int>len(shape)
    for i in range(axes):
        sizes[i] = shape[i]
        steps[i] = strides[i]
    return frnn_array(dtype, axes, sizes, steps, data)


cdef void run_reference(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    with gil:
        try:
            (<ReferenceStep>data).compute(arrays)
        except BaseException as error:  # KeyboardInterrupt as well
            Py_INCREF(error)
            report_of(scratch).error = <PyObject *>error


# ---------------------------------------------------------------- numbers in a range

cdef class RangeStep(Step):
    """The check that numbers are in a range. Its array: the numbers, C-contiguous.

    Parameters
    ----------
    where, what : str
        The operator, and what the numbers are, for the message.
    low, high : int
        The smallest and the largest number.
    count : int
    dtype : {"int32", "int64"}
    hint : str
    """

    cdef RangeData data
    cdef object where, what, hint

    def __init__(self, where, what, int64_t low, int64_t high, Py_ssize_t count, str dtype, hint=""):
        self.where, self.what, self.hint = where, what, hint
        self.data.low, self.data.high, self.data.count = low, high, count
        self.data.is_narrow = dtype == "int32"
        self.data.step = <PyObject *>self
        self.info.run = run_range
        self.info.data = &self.data
        self.info.arrays = 1
        self.info.cost = 10 + 0.3 * count

    def run(self, *arrays):
        """Check one array. Errors are raised here."""
        cdef int64_t number = 0
        if not are_within(&self.data, cnp.PyArray_BYTES(arrays[0]), &number):
            raise self.error(number)

    cdef error(self, int64_t number):
        expected = f"{self.what} from {self.data.low} to {self.data.high}"
        return ValueError(message(self.where, expected, f"{number}", self.hint))


cdef bint are_within(const RangeData *data, const char *numbers, int64_t *wrong) noexcept nogil:
    cdef const int64_t *wide = <const int64_t *>numbers
    cdef const int32_t *narrow = <const int32_t *>numbers
    cdef int64_t number
    cdef Py_ssize_t i
    for i in range(data.count):
        number = narrow[i] if data.is_narrow else wide[i]
        if number < data.low or number > data.high:
            wrong[0] = number
            return False
    return True


cdef void run_range(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef Report *report = report_of(scratch)
    if not are_within(<const RangeData *>data, arrays[0], &report.number):
        report.ranges = <const RangeData *>data
