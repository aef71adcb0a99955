"""How many steps and rows a call has, and how time is cut into blocks and sweeps."""

from fastrnn.engine.backend cimport frnn_cell
from fastrnn.engine.layer_stack cimport Stack

cdef enum:
    # A block's gates should stay in the second-level cache until its steps have used them. But a projection
    # of fewer than BLOCK_ROWS rows wastes the weights that it reads.
    BLOCK_BYTES = 256 * 1024
    BLOCK_ROWS = 64
    # The weights of a wide input evict the recurrent ones from that cache, once a block. So the blocks of a
    # batch may have as many rows as the input has columns, up to these rows, steps and bytes: LSTM 1024,
    # 10x64 takes 0.93 of the time (docs/tuning.md).
    WIDE_ROWS = 256
    WIDE_STEPS = 16
    WIDE_BYTES = 4 * 1024 * 1024
    # A slice of a batch should have this many rows: with fewer, weights are read for too little work.
    SLICE_ROWS = 4


cdef struct Shape:
    # T steps of B rows, and how they are cut.
    Py_ssize_t T, B
    Py_ssize_t block            # steps that are projected together
    Py_ssize_t sweep            # steps that go through all layers before the next ones do


cdef inline Py_ssize_t count(Py_ssize_t n, Py_ssize_t most) noexcept nogil:
    """How many times `most` it takes to have n."""
    return (n + most - 1) // most


cdef inline Py_ssize_t rows_before(Py_ssize_t rows, int slice, int slices) noexcept nogil:
    """Where a slice of rows, or of parts, that are divided evenly begins."""
    return rows * slice // slices


cdef inline Py_ssize_t parts_of(const Stack *stack, const frnn_cell *cell) noexcept nogil:
    """How many parts a cell has that threads may compute at the same time."""
    return count(cell.hidden_size, stack.part_units)


cdef inline Py_ssize_t widest_input(const Stack *stack) noexcept nogil:
    """The most columns that a layer of the stack reads."""
    return max(stack.input_size, stack.D * stack.output_size if stack.L > 1 else 0)


cdef inline Py_ssize_t short_block(const Stack *stack, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """The steps of a block where the input is narrow, or where blocks should be short."""
    return max(1, min(T, max(BLOCK_BYTES // stack.gate_bytes, BLOCK_ROWS) // B))


cdef inline Py_ssize_t block_of(const Stack *stack, Py_ssize_t T, Py_ssize_t B, int slices) noexcept nogil:
    """The steps of a block whose inputs each of these slices may copy."""
    cdef Py_ssize_t columns = widest_input(stack)
    cdef Py_ssize_t row_bytes = max(stack.gate_bytes, slices * columns * stack.itemsize)
    cdef Py_ssize_t wide = min(min(columns, WIDE_ROWS), min(WIDE_STEPS * B, WIDE_BYTES // row_bytes))
    return max(short_block(stack, T, B), min(T, wide // B))


cdef inline Shape cut(const Stack *stack, Py_ssize_t T, Py_ssize_t B, Py_ssize_t block) noexcept nogil:
    """T steps of B rows in blocks of this many steps."""
    cdef Shape shape
    shape.T = T
    shape.B = B
    shape.block = block
    # A layer in both directions gives the next one its output when all steps are made.
    shape.sweep = block if stack.D == 1 else T
    return shape
