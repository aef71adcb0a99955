"""What a slice does in a phase, for every way in which a plan divides a call.

Nothing is decided here: the plan says who does what, and the grid of phases and slices runs on the team
(threads/threads.h). Nothing checks its arguments, and nothing allocates.
"""

from libc.stdint cimport uint64_t

from fastrnn.engine.call cimport Call, Pass, UnitProgress
from fastrnn.engine.passes cimport clear_padding, find_inputs, pass_of, run_pass, run_steps, run_sweep
from fastrnn.engine.plan cimport BY_DIRECTION, BY_ROWS, BY_UNITS, PIPELINED, Plan
from fastrnn.engine.addresses cimport running, states_from
from fastrnn.engine.blocks cimport Shape, count
from fastrnn.engine.layer_stack cimport Stack
from fastrnn.engine.steps cimport (
    aim_step, begin_step, gather_c, keep_c, keep_h, make_step, project, units_of,
)
from fastrnn.engine.threads.team cimport count_caller, share


cdef extern from *:
    """
    /* Ask for memory that another core wrote, all of it at once. */
    static inline void frnn_fetch(const char *data, ptrdiff_t size)
    {
    #if defined(__GNUC__)
        for (ptrdiff_t i = 0; i < size; i += 64)
            __builtin_prefetch(data + i);
        __builtin_prefetch(data + size - 1);
    #else
        (void)data;
        (void)size;
    #endif
    }
    """
    void frnn_fetch(const char *data, Py_ssize_t size) noexcept nogil


cdef struct Work:
    # What the threads of a call share.
    const Stack *stack
    const Plan *plan
    Call *call


cdef void run_call(const Stack *stack, const Plan *plan, Call *call) noexcept nogil:
    """Run a call that is planned and laid out."""
    cdef Work work
    work.stack = stack
    work.plan = plan
    work.call = call
    if stack.backend.begin != NULL:
        stack.backend.begin()
    if plan.division == BY_ROWS:
        place_slices(plan, call)
        share(run_rows, &work, plan.phases, plan.slices, plan.slices, plan.longest_ns)
    elif plan.division == BY_DIRECTION:
        share(run_direction, &work, plan.phases, plan.slices, plan.slices, plan.longest_ns)
    elif plan.division == BY_UNITS:
        share(run_units, &work, plan.phases, plan.slices, plan.slices, plan.longest_ns)
    elif plan.division == PIPELINED:
        share(run_stages, &work, plan.phases, plan.slices, plan.slices, plan.longest_ns)
    else:
        run_alone(stack, plan, call)
    if call.lengths != NULL:
        clear_padding(stack, call, plan.request.T, plan.request.B)
    if stack.backend.end != NULL:
        stack.backend.end()


# ---------------------------------------------------------------- alone

cdef void run_alone(const Stack *stack, const Plan *plan, const Call *call) noexcept nogil:
    cdef Py_ssize_t begin = 0
    cdef uint64_t before
    if plan.is_counted:
        count_caller(1)
    before = stack.backend.enter()
    while begin < call.passes.shape.T:
        run_sweep(stack, call, begin)
        begin += call.passes.shape.sweep
    stack.backend.leave(before)
    if plan.is_counted:
        count_caller(-1)


# ---------------------------------------------------------------- by rows

cdef void place_slices(const Plan *plan, Call *call) noexcept nogil:
    """Point the call of each slice at its rows."""
    cdef Py_ssize_t first
    cdef int slice
    cdef Call *own
    for slice in range(plan.slices):
        own = &call.slices[slice]
        first = plan.first[slice]
        own.parity = call.parity
        own.lengths = NULL
        own.source = call.source
        own.target = call.target
        if call.lengths != NULL:
            own.lengths = call.lengths + first
            own.source.order += first
            own.target.order += first
        else:
            own.source.data += first * own.source.row
            own.target.data += first * own.target.row
        own.h = states_from(&call.h, first)
        own.c = states_from(&call.c, first)


cdef void run_rows(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """A phase is a sweep of each slice."""
    cdef const Work *work = <const Work *>context
    cdef const Call *own = &work.call.slices[slice]
    cdef Py_ssize_t begin = phase * own.passes.shape.sweep
    cdef uint64_t before
    if begin < own.passes.shape.T:
        before = work.stack.backend.enter()
        run_sweep(work.stack, own, begin)
        work.stack.backend.leave(before)


# ---------------------------------------------------------------- by direction

cdef void run_direction(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """A phase is a block of a layer."""
    cdef const Work *work = <const Work *>context
    cdef const Call *call = work.call
    cdef const Shape *shape = &call.passes.shape
    cdef Py_ssize_t blocks = count(shape.T, shape.block)
    cdef uint64_t before = work.stack.backend.enter()
    cdef Pass pass_ = pass_of(
        work.stack, call, phase // blocks, slice, phase % blocks * shape.block, &call.scratches[slice])
    run_pass(work.stack, call, &pass_)
    work.stack.backend.leave(before)


# ---------------------------------------------------------------- by units

cdef void next_pass(
    const Stack *stack, const Plan *plan, const Call *call, int slice, bint is_first, UnitProgress *progress,
) noexcept nogil:
    """Go on to the next pass: block by block of a sweep, layer by layer, direction by direction."""
    cdef Py_ssize_t index = 0, begin = 0
    cdef Pass *now = &progress.now
    if not is_first and stack.D == 1:
        index = (now.index + 1) % stack.L
        begin = now.begin if index > 0 else now.end
    elif not is_first:
        begin = now.end % call.passes.shape.T
        index = now.index + (begin == 0)
    now[0] = pass_of(
        stack, call, index // stack.D, index % stack.D, begin, &call.scratches[slice])
    find_inputs(stack, call, now)
    begin_step(stack, call, now, &progress.step)
    progress.step.first = plan.first[slice]
    progress.step.last = plan.first[slice + 1]
    progress.units = units_of(stack, now.cell, progress.step.first, progress.step.last)
    gather_c(stack, call, now, progress.step.n, progress.units)
    progress.s = begin - 1 if now.is_projected else begin


cdef void run_units(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """A phase is the projection of a pass, one of its steps, or leaving its state. A slice takes its phases
    in order, so what it does next is kept from one to the next."""
    cdef const Work *work = <const Work *>context
    cdef const Stack *stack = work.stack
    cdef UnitProgress *progress = &work.call.progress[slice]
    cdef const Pass *now = &progress.now
    cdef Py_ssize_t n_after
    cdef uint64_t before = stack.backend.enter()
    if phase == 0 or progress.s > now.end:
        next_pass(stack, work.plan, work.call, slice, phase == 0, progress)
    if progress.s < now.begin:
        project(stack, now, progress.step.first, progress.step.last)
    elif progress.s < now.end:
        aim_step(stack, work.call, now, progress.s, &progress.step)
        if progress.step.n == 1:
            # RNN 128, 100x1 on two threads takes 0.93 of the time.
            frnn_fetch(<const char *>progress.step.h_prev, stack.output_size * stack.itemsize)
        make_step(stack, work.call, now, progress.s, &progress.step, progress.units)
    else:
        n_after = running(work.call, now.end, progress.step.n)
        keep_h(stack, work.call, now, now.end - 1, n_after, progress.step.n, progress.units)
        keep_c(stack, work.call, now, n_after, progress.step.n, progress.units)
    progress.s += 1
    stack.backend.leave(before)


# ---------------------------------------------------------------- pipelined

cdef void run_stages(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """A phase is a block for each slice, one block later for each slice before it."""
    cdef const Work *work = <const Work *>context
    cdef const Stack *stack = work.stack
    cdef const Call *call = work.call
    cdef Py_ssize_t block = phase - slice, begin = block * call.passes.shape.block
    cdef Py_ssize_t stage
    cdef uint64_t before
    cdef Pass pass_
    if block < 0 or begin >= call.passes.shape.T:
        return
    before = stack.backend.enter()
    for stage in range(work.plan.first[slice], work.plan.first[slice + 1]):
        pass_ = pass_of(
            stack, call, stage // 2, 0, begin, &call.scratches[stage // 2 * 2 + block % 2])
        if stage % 2 == 1:
            run_steps(stack, call, &pass_)
            continue
        find_inputs(stack, call, &pass_)
        project(stack, &pass_, 0, call.passes.parts)
    stack.backend.leave(before)
