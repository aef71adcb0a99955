"""Where the memory of a call lies: all in one place, of a size that its plan tells."""

from fastrnn.engine.call cimport Call, PassPlan, Scratch, UnitProgress, WorkingState
from fastrnn.engine.plan cimport BY_ROWS, BY_UNITS, Plan
from fastrnn.engine.workspace cimport aligned
from fastrnn.engine.blocks cimport widest_input


cdef struct Memory:
    # Memory that is given out from its beginning. Where there is none (NULL) nothing is written: what a call
    # wants is only measured.
    char *begin
    Py_ssize_t used


cdef size_t bytes_of(const Stack *stack, const Plan *plan) noexcept nogil:
    cdef Call call
    cdef Memory memory = Memory(NULL, 0)
    lay_out_call(stack, plan, &call, &memory)
    return memory.used


cdef void lay_out(const Stack *stack, const Plan *plan, Call *call, char *memory) noexcept nogil:
    """Point the scratch of a planned call into memory, of `plan.bytes` at least."""
    cdef Memory whole = Memory(memory, 0)
    call.source = plan.request.source
    call.target = plan.request.target
    call.lengths = plan.request.lengths
    lay_out_call(stack, plan, call, &whole)


cdef inline char *reserve(Memory *memory, Py_ssize_t size) noexcept nogil:
    """The next bytes. They begin with a cache line."""
    cdef Py_ssize_t begin = memory.used
    memory.used += aligned(size)
    return NULL if memory.begin == NULL else memory.begin + begin


cdef void lay_out_call(const Stack *stack, const Plan *plan, Call *call, Memory *memory) noexcept nogil:
    """The whole call; or, by rows, a call for each slice."""
    cdef Call own
    cdef int slice
    call.passes = plan.passes
    if plan.division != BY_ROWS:
        lay_out_passes(stack, plan, call, memory)
        return
    call.slices = <Call *>reserve(memory, plan.slices * sizeof(Call))
    for slice in range(plan.slices):
        own.passes = &plan.passes[slice]
        lay_out_passes(stack, plan, &own, memory)
        if memory.begin != NULL:
            call.slices[slice] = own


cdef void lay_out_passes(const Stack *stack, const Plan *plan, Call *call, Memory *memory) noexcept nogil:
    cdef const PassPlan *passes = call.passes
    cdef Py_ssize_t B = passes.shape.B, rows = passes.shape.block * B, size, i
    cdef Py_ssize_t output_row = stack.D * stack.output_size * stack.itemsize
    cdef Py_ssize_t input_row = widest_input(stack) * stack.itemsize
    cdef int number
    cdef Scratch scratch
    lay_out_working_states(stack, call, memory)
    call.scratches = <Scratch *>reserve(memory, plan.scratches * sizeof(Scratch))
    for number in range(plan.scratches):
        # The slices of a step share its gates: each has those of its own parts.
        if number == 0 or plan.division != BY_UNITS:
            scratch.gates = reserve(memory, rows * stack.gate_bytes)
        scratch.x = reserve(memory, rows * input_row)
        scratch.step = reserve(memory, passes.backend_bytes)
        scratch.h = reserve(memory, B * stack.output_size * stack.itemsize)
        if memory.begin != NULL:
            call.scratches[number] = scratch
    call.between_slot = aligned(passes.shape.sweep * B * output_row)
    for i in range(2):
        size = call.between_slot if stack.L > i + 1 else 0
        if passes.is_pipelined:
            size = call.between_slot * (stack.L - 1)
        call.between[i] = reserve(memory, size)
    if plan.division == BY_UNITS:
        call.progress = <UnitProgress *>reserve(memory, plan.slices * sizeof(UnitProgress))


cdef void lay_out_working_states(const Stack *stack, Call *call, Memory *memory) noexcept nogil:
    cdef const PassPlan *passes = call.passes
    cdef Py_ssize_t B = passes.shape.B, i
    cdef WorkingState working
    call.working = <WorkingState *>reserve(memory, stack.L * stack.D * sizeof(WorkingState))
    for i in range(stack.L * stack.D):
        working.h[0] = reserve(memory, B * passes.ld_h * stack.itemsize)
        working.h[1] = reserve(memory, B * passes.ld_h * stack.itemsize)
        working.c = NULL
        if passes.is_c_apart:
            working.c = reserve(memory, B * passes.ld_c * stack.itemsize)
        if memory.begin != NULL:
            call.working[i] = working
