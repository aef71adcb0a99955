"""Where the memory of a call lies: one piece, of a size that its plan tells."""

from fastrnn.engine.call cimport Call, Scratch, UnitProgress, WorkingState
from fastrnn.engine.plan cimport BY_DIRECTION, BY_ROWS, BY_UNITS, PIPELINED, Plan
from fastrnn.engine.workspace cimport aligned
from fastrnn.engine.blocks cimport widest_input


cdef struct Memory:
    # How much of a piece of memory is taken. Of no piece (NULL) nothing is written: it is only measured.
    char *begin
    Py_ssize_t taken


cdef size_t bytes_of(const Stack *stack, const Plan *plan) noexcept nogil:
    cdef Call call
    cdef Memory memory = Memory(NULL, 0)
    divide(stack, plan, &call, &memory)
    return memory.taken


cdef void lay_out(const Stack *stack, const Plan *plan, Call *call, char *memory) noexcept nogil:
    """Point the scratch of a planned call into memory, of `plan.bytes` at least."""
    cdef Memory rest = Memory(memory, 0)
    divide(stack, plan, call, &rest)


cdef inline char *take(Memory *memory, Py_ssize_t size) noexcept nogil:
    """The next bytes; what is taken after them begins with a cache line."""
    cdef Py_ssize_t begin = memory.taken
    memory.taken += aligned(size)
    return NULL if memory.begin == NULL else memory.begin + begin


cdef void divide(const Stack *stack, const Plan *plan, Call *call, Memory *memory) noexcept nogil:
    """The whole call; or, by rows, a call for each slice."""
    cdef Call part
    cdef int slice
    call.shape = plan.shape
    call.is_pipelined = plan.division == PIPELINED
    if plan.division != BY_ROWS:
        give_scratch(stack, plan, call, scratches_of(stack, plan), memory)
        return
    call.parts = <Call *>take(memory, plan.slices * sizeof(Call))
    for slice in range(plan.slices):
        part.shape = plan.shares[slice].shape
        part.is_pipelined = False
        give_scratch(stack, plan, &part, 1, memory)
        if memory.begin != NULL:
            call.parts[slice] = part


cdef int scratches_of(const Stack *stack, const Plan *plan) noexcept nogil:
    if plan.division == PIPELINED:
        return <int>(2 * stack.L)
    return plan.slices if plan.division == BY_UNITS or plan.division == BY_DIRECTION else 1


cdef void give_scratch(
    const Stack *stack, const Plan *plan, Call *call, int count, Memory *memory,
) noexcept nogil:
    cdef Py_ssize_t B = call.shape.B, rows = call.shape.block * B, size = 0, i
    cdef Py_ssize_t output_row = stack.D * stack.output_size * stack.itemsize
    cdef Py_ssize_t input_row = widest_input(stack) * stack.itemsize
    cdef int number
    cdef Scratch scratch
    give_working_states(stack, plan, call, memory)
    for i in range(stack.L * stack.D):
        size = max(size, <Py_ssize_t>stack.backend.project_bytes(stack.cells[i], rows))
        size = max(size, <Py_ssize_t>stack.backend.step_bytes(stack.cells[i], B))
    call.scratches = <Scratch *>take(memory, count * sizeof(Scratch))
    for number in range(count):
        # The slices of a step share its gates, each its own part of them.
        if number == 0 or plan.division != BY_UNITS:
            scratch.gates = take(memory, rows * stack.gate_bytes)
        scratch.x = take(memory, rows * input_row)
        scratch.step = take(memory, size)
        scratch.h = take(memory, B * stack.output_size * stack.itemsize)
        if memory.begin != NULL:
            call.scratches[number] = scratch
    call.between_slot = aligned(call.shape.sweep * B * output_row)
    for i in range(2):
        size = call.between_slot if stack.L > i + 1 else 0
        if call.is_pipelined:
            size = call.between_slot * (stack.L - 1)
        call.between[i] = take(memory, size)
    if plan.division == BY_UNITS:
        call.progress = <UnitProgress *>take(memory, plan.slices * sizeof(UnitProgress))


cdef void give_working_states(
    const Stack *stack, const Plan *plan, Call *call, Memory *memory,
) noexcept nogil:
    """Where states are kept apart: rows that crowd in the same sets of a cache, and rows with lengths."""
    cdef Py_ssize_t B = call.shape.B, i
    cdef WorkingState working
    call.ld_h = stack.backend.apart(B, stack.output_size)
    call.ld_c = stack.backend.apart(B, stack.hidden_size)
    call.working = <WorkingState *>take(memory, stack.L * stack.D * sizeof(WorkingState))
    for i in range(stack.L * stack.D):
        working.h[0] = take(memory, B * call.ld_h * stack.itemsize)
        working.h[1] = take(memory, B * call.ld_h * stack.itemsize)
        working.c = NULL
        # In the order of lengths two threads would write to one cache line: LSTM of 16 units, 64 rows on two
        # threads takes 0.93 of the time this way.
        if stack.has_cell_state and (
            plan.is_ragged or (call.shape.T > 1 and call.ld_c > stack.hidden_size)
        ):
            working.c = take(memory, B * call.ld_c * stack.itemsize)
        if memory.begin != NULL:
            call.working[i] = working
