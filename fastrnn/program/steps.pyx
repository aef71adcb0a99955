"""Steps over arrays: maps, reductions, functions of rows, rows by their number.

A step is made once for given sizes, strides (in bytes) and types, and checks them. It runs in compiled
code, without the GIL and without allocations. Products are in product_steps.
"""

cimport numpy as cnp
import numpy as np
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT64_MAX, INT64_MIN, uint8_t

from fastrnn.engine.array_kernels cimport (
    FRNN_AXES, FRNN_MAP_PLACES, FRNN_MAP_TILE, FRNN_REDUCE_ANY, FRNN_REDUCE_ALL, FRNN_REDUCE_ARGMAX,
    FRNN_REDUCE_ARGMIN, FRNN_REDUCE_BYTES, FRNN_REDUCE_MAX, FRNN_REDUCE_MEAN, FRNN_REDUCE_MIN,
    FRNN_REDUCE_PROD, FRNN_REDUCE_SUM, FRNN_REDUCE_SUM_ABS,
    FRNN_REDUCE_SUM_SQUARES, FRNN_REDUCE_VAR, FRNN_TYPE_BOOL,
    FRNN_TYPE_FLOAT32, FRNN_TYPE_FLOAT64, FRNN_TYPE_INT32, FRNN_TYPE_INT64, frnn_array_kernels, frnn_gather,
    frnn_instruction, frnn_map, frnn_map_bytes, frnn_number, frnn_reduce, frnn_view,
)
from fastrnn.engine.backend cimport (
    FRNN_LAYER_NORM, FRNN_LOG_SOFTMAX, FRNN_SOFTMAX, frnn_backend, frnn_rows,
)
from fastrnn.engine.weight_memory import aligned as aligned_memory
from fastrnn.engine.simd.array_tables import INTEGER_OPERATIONS, MAP_OPERATIONS
from fastrnn.program.map_program import DEFAULTS, SLOW, Scalar, collapse, plain_program, turned_axis

cnp.import_array()

cdef enum:
    INSTRUCTIONS = 64

# What a map may have at most: axes once those that lie together are one; inputs, scalars, registers and
# outputs together; instructions.
MOST_AXES = FRNN_AXES
MOST_PLACES = FRNN_MAP_PLACES
MOST_INSTRUCTIONS = INSTRUCTIONS

cdef dict TYPES = {
    "bool": FRNN_TYPE_BOOL,
    "int32": FRNN_TYPE_INT32,
    "int64": FRNN_TYPE_INT64,
    "float32": FRNN_TYPE_FLOAT32,
    "float64": FRNN_TYPE_FLOAT64,
}

cdef dict REDUCTIONS = {
    "sum": FRNN_REDUCE_SUM,
    "mean": FRNN_REDUCE_MEAN,
    "sum_squares": FRNN_REDUCE_SUM_SQUARES,
    "sum_abs": FRNN_REDUCE_SUM_ABS,
    "var": FRNN_REDUCE_VAR,
    "prod": FRNN_REDUCE_PROD,
    "max": FRNN_REDUCE_MAX,
    "min": FRNN_REDUCE_MIN,
    "any": FRNN_REDUCE_ANY,
    "all": FRNN_REDUCE_ALL,
    "argmax": FRNN_REDUCE_ARGMAX,
    "argmin": FRNN_REDUCE_ARGMIN,
}
cdef set FLOAT_REDUCTIONS = {"mean", "sum_squares", "sum_abs", "var"}

cdef dict ROW_KINDS = {
    "softmax": FRNN_SOFTMAX,
    "log_softmax": FRNN_LOG_SOFTMAX,
    "layer_norm": FRNN_LAYER_NORM,
}

cdef const frnn_array_kernels *kernels_of(object kernels) except NULL:
    return <const frnn_array_kernels *>PyCapsule_GetPointer(kernels, "fastrnn.array_kernels")


cdef class Step:
    """What a plan runs. Made by the classes below."""

    @property
    def arrays(self):
        """How many arrays it takes: inputs, then outputs."""
        return self.info.arrays

    @property
    def scratch_bytes(self):
        return self.info.scratch_bytes

    @property
    def cost(self):
        """The nanoseconds that it should take on one core."""
        return self.info.cost

    def run(self, *arrays):
        """Run it over arrays that have the sizes, strides and types for which it was made: for tests."""
        cdef char *pointers[65]
        cdef object scratch = aligned_memory(max(self.info.scratch_bytes, 1))
        cdef object own = aligned_memory(max(self.info.own_bytes, 1))
        cdef char *memory = cnp.PyArray_BYTES(scratch)
        cdef int i
        own[:] = 0
        if len(arrays) != self.info.arrays:
            raise ValueError(f"Step.run: expected {self.info.arrays} arrays, got {len(arrays)}.")
        for i in range(len(arrays)):
            pointers[i] = cnp.PyArray_BYTES(arrays[i])
        pointers[self.info.arrays] = cnp.PyArray_BYTES(own)
        with nogil:
            self.info.run(self.info.data, pointers, memory)


# ---------------------------------------------------------------- maps

cdef struct MapData:
    const frnn_array_kernels *kernels
    frnn_map map
    bint is_whole


cdef class MapStep(Step):
    """A chain of element-wise operations in one pass.

    Parameters
    ----------
    kernels : capsule
        A table of ``ARRAY_TABLES``, of the arithmetic.
    arithmetic : {"float32", "float64", "int64"}
        The type in which all is computed. Inputs are converted to it as they are read, outputs from it as
        they are written. Tables of both arithmetics compute "int64".
    shape : tuple of int
    inputs : list of (dtype, strides)
        Strides in bytes, one for each axis; 0 where the input is broadcast.
    program : list of (operation, operands, parameters)
        Values are numbered: first the inputs, then the results of the program, one after the other. An
        operand is the number of a value, or a ``Scalar``. Operations are those of ``MAP_OPERATIONS`` (or
        ``INTEGER_OPERATIONS``), and "relu6" and "selu".
    outputs : list of (dtype, strides, operand)
        An output may lie exactly where an input lies, and shares no memory with inputs otherwise.
    """

    cdef MapData data
    cdef frnn_view views[FRNN_MAP_PLACES]
    cdef uint8_t is_direct[FRNN_MAP_PLACES]
    cdef uint8_t results[FRNN_MAP_PLACES]
    cdef frnn_number numbers[FRNN_MAP_PLACES]
    cdef frnn_instruction program[INSTRUCTIONS]

    def __init__(self, kernels, str arithmetic, shape, inputs, program, outputs):
        cdef frnn_map *map = &self.data.map
        self.owner = kernels
        self.data.kernels = kernels_of(kernels)
        self.data.is_whole = arithmetic == "int64"
        if not self.data.is_whole and self.data.kernels.arithmetic != arithmetic.encode():
            raise ValueError(
                f"MapStep: expected kernels of {arithmetic}, got {self.data.kernels.arithmetic.decode()}.")
        map.views = self.views
        map.is_direct = self.is_direct
        map.results = self.results
        map.numbers = self.numbers
        map.program = self.program
        program, outputs = plain_program(
            [(name, list(operands), tuple(parameters)) for name, operands, parameters in program],
            list(outputs), inputs)
        self._set_views(shape, inputs, outputs)
        self._set_tiles(arithmetic)
        self._set_program(arithmetic, program, outputs)
        self._widen_tiles()
        self.info.run = run_map
        self.info.data = &self.data
        self.info.arrays = map.inputs + map.outputs
        self.info.scratch_bytes = frnn_map_bytes(map)
        each = sum(0.2 + 0.4 * (name in SLOW) for name, _, _ in program)
        self.info.cost = 20 + np.prod(shape, dtype=float) * each

    def _set_views(self, shape, inputs, outputs):
        cdef frnn_map *map = &self.data.map
        arrays = [array[:2] for array in (*inputs, *outputs)]
        if len(arrays) > FRNN_MAP_PLACES:
            raise ValueError(f"MapStep: expected at most {FRNN_MAP_PLACES} arrays, got {len(arrays)}.")
        # Inner loops go along the axis along which the first output lies.
        order = sorted(range(len(shape)), key=lambda axis: -abs(outputs[0][1][axis]))
        sizes, strides = collapse(
            [shape[axis] for axis in order], [[strides[axis] for axis in order] for _, strides in arrays])
        if len(sizes) > FRNN_AXES:
            raise ValueError(f"MapStep: expected at most {FRNN_AXES} axes, got {len(sizes)}.")
        axis = turned_axis(strides)
        if axis is not None:
            for numbers in (sizes, *strides):
                numbers.insert(len(numbers) - 2, numbers.pop(axis))
        map.axes = len(sizes)
        map.inputs = len(inputs)
        map.outputs = len(outputs)
        for axis, size in enumerate(sizes):
            map.sizes[axis] = size
        for i, (dtype, _) in enumerate(arrays):
            self.views[i].type = TYPES[dtype]
            for axis in range(len(sizes)):
                self.views[i].strides[axis] = strides[i][axis]

    def _set_tiles(self, str arithmetic):
        cdef frnn_map *map = &self.data.map
        cdef Py_ssize_t columns = map.sizes[map.axes - 1], rows = 1, itemsize = np.dtype(arithmetic).itemsize
        cdef Py_ssize_t row, column
        cdef int i
        cdef bint is_turned = False
        if map.axes > 1:
            rows = map.sizes[map.axes - 2]
            for i in range(map.inputs + map.outputs):
                row = abs(self.views[i].strides[map.axes - 2])
                is_turned |= row != 0 and row < abs(self.views[i].strides[map.axes - 1])
        map.tile_rows = 1
        map.tile_columns = min(columns, FRNN_MAP_TILE)
        if is_turned:
            # Both axes in equal parts, so that what comes from memory together is used together.
            map.tile_rows = min(rows, 16)
            map.tile_columns = min(columns, FRNN_MAP_TILE // max(map.tile_rows, 1))
        elif 2 * columns <= FRNN_MAP_TILE and rows > 1:
            map.tile_rows = min(rows, FRNN_MAP_TILE // max(columns, 1))
        for i in range(map.inputs + map.outputs):
            column = self.views[i].strides[map.axes - 1]
            row = self.views[i].strides[map.axes - 2] if map.axes > 1 else 0
            self.is_direct[i] = self.views[i].type == <int>TYPES[arithmetic] and column == itemsize and (
                map.tile_rows == 1 or (map.tile_columns == columns and row == columns * itemsize))

    def _widen_tiles(self):
        """Take whole rows at once where nothing is kept in registers."""
        cdef frnn_map *map = &self.data.map
        cdef int i
        if map.registers > 0 or map.tile_rows > 1:
            return
        for i in range(map.inputs + map.outputs):
            if not self.is_direct[i] and (i >= map.inputs or self.views[i].strides[map.axes - 1] != 0):
                return
        map.tile_columns = map.sizes[map.axes - 1]

    def _set_program(self, str arithmetic, program, outputs):
        cdef frnn_map *map = &self.data.map
        cdef int i, place
        inputs = map.inputs
        names = INTEGER_OPERATIONS if self.data.is_whole else MAP_OPERATIONS
        scalars = []
        for _, operands, _ in program:
            scalars += [operand for operand in operands if isinstance(operand, Scalar)]
        first = inputs + len(scalars)
        reads = [
            [operand for operand in operands if not isinstance(operand, Scalar)]
            for _, operands, _ in program
        ]
        last_input = max(
            [i for i, values in enumerate(reads) if min(values, default=inputs) < inputs], default=-1)
        # An output is written where it is made once no input is read any more: it may lie where one lies.
        direct, given = {}, [value for _, _, value in outputs]
        for i, value in enumerate(given):
            is_direct = self.is_direct[inputs + i] and value - inputs >= last_input and value >= inputs
            self.is_direct[inputs + i] = is_direct and value not in direct
            if self.is_direct[inputs + i]:
                direct[value] = i
        last = {value: i for i, values in enumerate(reads) for value in values}
        last.update((value, len(program)) for value in given)
        places, free, registers, number = dict(zip(range(inputs), range(inputs))), [], 0, 0
        if len(program) > INSTRUCTIONS:
            raise ValueError(f"MapStep: expected at most {INSTRUCTIONS} operations, got {len(program)}.")
        outputs_at = []
        for i, (name, operands, parameters) in enumerate(program):
            if name not in names:
                raise ValueError(f"MapStep: expected an operation of {arithmetic}, got {name!r}.")
            operand_places = []
            for operand in operands:
                if isinstance(operand, Scalar):
                    operand_places.append(inputs + number)
                    self.set_number(&self.numbers[number], operand.value)
                    number += 1
                else:
                    operand_places.append(places[operand])
            free += {places[value] for value in reads[i] if last[value] == i and value >= inputs
                     and value not in direct}
            value = inputs + i
            if value in direct:
                place = -1 - direct[value]  # known once the registers are counted
            elif free:
                place = free.pop()
            else:
                place = first + registers
                registers += 1
            if value not in last and place >= 0:
                free.append(place)
            places[value] = place
            self.program[i].operation = names[name]
            parameters = parameters or DEFAULTS.get(name, ())
            for k in range(3):
                self.set_number(&self.program[i].p[k], parameters[k] if k < len(parameters) else 0)
            outputs_at.append((place, [*operand_places, *operand_places[:1] * 2][:3]))
        if first + registers + len(outputs) > FRNN_MAP_PLACES:
            raise ValueError(
                f"MapStep: expected at most {FRNN_MAP_PLACES} inputs, scalars, values and outputs, "
                f"got {first + registers + len(outputs)}.")
        map.scalars = len(scalars)
        map.registers = registers
        map.instructions = len(program)

        def final(place):
            return place if place >= 0 else first + registers - 1 - place
        for i, (place_, operand_places) in enumerate(outputs_at):
            self.program[i].to = final(place_)
            a, b, c = [final(place) for place in operand_places]
            self.program[i].a, self.program[i].b, self.program[i].c = a, b, c
        for i, value in enumerate(given):
            self.results[i] = final(places[value])

    cdef set_number(self, frnn_number *number, value):
        if self.data.is_whole:
            if value >= 2.0 ** 63:
                number.whole = INT64_MAX
            elif value < -(2.0 ** 63):
                number.whole = INT64_MIN
            else:
                number.whole = int(value)
        else:
            number.real = value


cdef void run_map(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const MapData *self = <const MapData *>data
    if self.is_whole:
        self.kernels.map_whole(&self.map, arrays, scratch)
    else:
        self.kernels.map(&self.map, arrays, scratch)


# ---------------------------------------------------------------- reductions

cdef struct ReduceData:
    const frnn_array_kernels *kernels
    frnn_reduce reduce


cdef class ReduceStep(Step):
    """A reduction over any axes.

    Parameters
    ----------
    kernels : capsule
        A table of ``ARRAY_TABLES``, of the arithmetic.
    reduction : str
        "sum", "mean", "sum_squares", "sum_abs", "var", "prod", "max", "min", "any", "all", "argmax" or
        "argmin".
    arithmetic : {"float32", "float64", "int64"}
        The type in which it is computed: elements are converted as they are read.
    shape, strides, dtype
        Of the input; strides in bytes.
    axes : sequence of int
        The axes to reduce, 0 or more. Elements are taken in the order of these axes.
    out_strides : sequence of int
        In bytes, of the axes that stay, in order.
    out_dtype : str
        "int64" for "argmax" and "argmin".
    correction : float
        Of "var".
    """

    cdef ReduceData data

    def __init__(
        self, kernels, str reduction, str arithmetic, shape, strides, str dtype, axes, out_strides,
        str out_dtype, double correction=1,
    ):
        cdef frnn_reduce *reduce = &self.data.reduce
        self.owner = kernels
        self.data.kernels = kernels_of(kernels)
        reduce.reduction = REDUCTIONS[reduction]
        reduce.is_whole = arithmetic == "int64"
        if reduce.is_whole and reduction in FLOAT_REDUCTIONS:
            raise ValueError(
                f"ReduceStep: expected floating-point numbers for {reduction}, got {arithmetic}.")
        if not reduce.is_whole and self.data.kernels.arithmetic != arithmetic.encode():
            raise ValueError(
                f"ReduceStep: expected kernels of {arithmetic}, got {self.data.kernels.arithmetic.decode()}.")
        reduce.correction = correction
        reduce.input.type = TYPES[dtype]
        reduce.output.type = TYPES[out_dtype]
        axes = sorted(axes)
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        out = dict(zip(kept, out_strides))
        kept.sort(key=lambda axis: -abs(strides[axis]))
        kept_sizes, (kept_strides, kept_out) = collapse(
            [shape[axis] for axis in kept], [[strides[axis] for axis in kept], [out[axis] for axis in kept]])
        if kept_sizes == [1]:
            kept_sizes = []
        sizes, (reduced_strides,) = collapse(
            [shape[axis] for axis in axes], [[strides[axis] for axis in axes]])
        if sizes == [1]:
            reduced_strides = [np.dtype(dtype).itemsize]
        if len(kept_sizes) + len(sizes) > FRNN_AXES:
            raise ValueError(
                f"ReduceStep: expected at most {FRNN_AXES} axes, got {len(kept_sizes) + len(sizes)}.")
        reduce.kept = len(kept_sizes)
        reduce.reduced = len(sizes)
        for axis, size in enumerate((*kept_sizes, *sizes)):
            reduce.sizes[axis] = size
        for axis in range(len(kept_sizes)):
            reduce.input.strides[axis] = kept_strides[axis]
            reduce.output.strides[axis] = kept_out[axis]
        for axis in range(len(sizes)):
            reduce.input.strides[len(kept_sizes) + axis] = reduced_strides[axis]
        self.info.run = run_reduce
        self.info.data = &self.data
        self.info.arrays = 2
        self.info.scratch_bytes = FRNN_REDUCE_BYTES
        self.info.cost = 20 + 0.3 * np.prod(shape, dtype=float)


cdef void run_reduce(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const ReduceData *self = <const ReduceData *>data
    if self.reduce.is_whole:
        self.kernels.reduce_whole(&self.reduce, arrays[0], arrays[1], scratch)
    else:
        self.kernels.reduce(&self.reduce, arrays[0], arrays[1], scratch)


# ---------------------------------------------------------------- functions of rows

cdef struct RowFunctionData:
    const frnn_backend *backend
    frnn_rows rows
    Py_ssize_t n


cdef class RowFunctionStep(Step):
    """A softmax or layer norm of n rows of features, which lie one after the other; in place or not.

    Parameters
    ----------
    backend : capsule
        A table with row functions, such as ``row_table`` of engine.backends gives.
    name : {"softmax", "log_softmax", "layer_norm"}
    n, features : int
    weight, bias : numpy.ndarray or None
        Of a layer norm: (features,), C-contiguous, of the backend's arithmetic. They never change.
    eps : float
    """

    cdef RowFunctionData data

    def __init__(
        self, backend, str name, Py_ssize_t n, Py_ssize_t features, weight=None, bias=None, double eps=1e-5,
    ):
        self.owner = backend, weight, bias
        self.data.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.data.rows.kind = ROW_KINDS[name]
        self.data.rows.features = features
        self.data.rows.eps = eps
        self.data.n = n
        if weight is not None:
            self.data.rows.weight = cnp.PyArray_DATA(weight)
        if bias is not None:
            self.data.rows.bias = cnp.PyArray_DATA(bias)
        self.info.run = run_row_function
        self.info.data = &self.data
        self.info.arrays = 2
        self.info.cost = 20 + 1.0 * n * features


cdef void run_row_function(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const RowFunctionData *self = <const RowFunctionData *>data
    self.backend.rows(&self.rows, self.n, arrays[0], arrays[1])


# ---------------------------------------------------------------- rows by their number

cdef struct GatherData:
    const frnn_array_kernels *kernels
    frnn_gather gather


cdef class GatherStep(Step):
    """out[i, j, k] = table[i, index[i, j, k], k], for ``take_bytes`` bytes each.

    An index below 0 counts from the end; one beyond the table gives its first or last row. Arrays: the
    table, the index, the output.

    Parameters
    ----------
    kernels : capsule
    sizes : (int, int, int)
        Of i, j and k.
    size : int
        The rows of the table.
    take_bytes : int
    index_dtype : {"int32", "int64"}
    table_strides, index_strides, out_strides : (int, int, int)
        In bytes. The second of the table's is that from row to row.
    """

    cdef GatherData data

    def __init__(
        self, kernels, sizes, Py_ssize_t size, Py_ssize_t take_bytes, str index_dtype, table_strides,
        index_strides, out_strides,
    ):
        cdef frnn_gather *gather = &self.data.gather
        self.owner = kernels
        self.data.kernels = kernels_of(kernels)
        if index_dtype not in ("int32", "int64"):
            raise ValueError(f"GatherStep: expected an index of int32 or int64, got {index_dtype}.")
        gather.outer, gather.count, gather.inner = sizes
        gather.size = size
        gather.bytes = take_bytes
        gather.index_type = TYPES[index_dtype]
        gather.table_outer, gather.table_axis, gather.table_inner = table_strides
        gather.index_outer, gather.index_axis, gather.index_inner = index_strides
        gather.out_outer, gather.out_axis, gather.out_inner = out_strides
        self.info.run = run_gather
        self.info.data = &self.data
        self.info.arrays = 3
        self.info.cost = 10 + np.prod(sizes, dtype=float) * (2 + take_bytes / 20.0)


cdef void run_gather(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const GatherData *self = <const GatherData *>data
    self.kernels.gather(&self.gather, arrays[0], arrays[1], arrays[2])
