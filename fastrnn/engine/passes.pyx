"""Passes: one direction of one layer over a block of time.

The inputs of a block are projected at once; then its steps are made one by one. A stack that runs forward
only takes one block through all its layers before the next one, so its memory does not depend on T. Where a
layer runs in both directions the next one needs its whole output first, so such a stack keeps one or two
whole sequences between its layers.

With lengths the rows are sorted, longest first: at every step the running rows are the first n. The reverse
direction counts its steps from each row's own end: step s of a row of length len is its time step len - 1 -
s. So both directions are the same loop. The plan says how a pass is made (call.pxd): nothing is decided here.
"""

from libc.string cimport memcpy, memset

from fastrnn.engine.backend cimport frnn_step
from fastrnn.engine.call cimport BETWEEN, OUTSIDE, Call, Inputs, Pass, PassPlan, Rows, Scratch, Span
from fastrnn.engine.addresses cimport elements, row_at, running, time_of
from fastrnn.engine.blocks cimport Shape
from fastrnn.engine.layer_stack cimport Stack
from fastrnn.engine.steps cimport (
    aim_step, begin_step, gather_c, keep_c, keep_h, make_step, project, whole,
)


cdef Pass pass_of(
    const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t direction,
    Py_ssize_t begin, Scratch *scratch,
) noexcept nogil:
    """The pass of a layer and direction over the block that begins at this step."""
    cdef Pass pass_
    cdef const PassPlan *plan = call.passes
    cdef Py_ssize_t i = layer * stack.D + direction, sweep = begin // plan.shape.sweep
    cdef Py_ssize_t end = min(begin + plan.shape.block, plan.shape.T), steps = end - begin
    cdef int source = OUTSIDE if layer == 0 else BETWEEN
    cdef int target = OUTSIDE if layer == stack.L - 1 else BETWEEN
    pass_.cell = stack.cells[i]
    pass_.is_reverse = direction == 1
    pass_.begin = begin
    pass_.end = end
    pass_.x = call.source if source == OUTSIDE else between(stack, call, layer - 1, sweep)
    pass_.y = call.target if target == OUTSIDE else between(stack, call, layer, sweep)
    pass_.y.data += direction * stack.output_size * stack.itemsize
    pass_.index = i
    pass_.h = &call.h
    pass_.c = &call.c
    pass_.working = &call.working[i]
    pass_.is_gathered = steps > plan.direct_steps[source][direction] or end > plan.common_steps
    pass_.is_projected = steps >= plan.projected_steps
    pass_.is_in_place = plan.is_in_place[target][direction]
    pass_.ld_next = elements(stack, pass_.y.row) if pass_.is_in_place else plan.ld_h
    pass_.scratch = scratch
    return pass_


cdef Rows between(const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t sweep) noexcept nogil:
    """What a layer gives the next one in a sweep."""
    cdef Rows rows
    if call.passes.is_pipelined:
        rows.data = call.between[sweep % 2] + layer * call.between_slot
    else:
        rows.data = call.between[layer % 2]
    rows.first = sweep * call.passes.shape.sweep
    rows.row = stack.D * stack.output_size * stack.itemsize
    rows.step = call.passes.shape.B * rows.row
    rows.order = NULL
    return rows


cdef void find_inputs(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil:
    """Point at the inputs of a pass where they lie, or gather them in its scratch."""
    cdef Inputs *inputs = &pass_.scratch.inputs
    cdef const Rows *x = &pass_.x
    cdef Py_ssize_t B = call.passes.shape.B, row_bytes = pass_.cell.input_size * stack.itemsize, s, b, n
    if not pass_.is_gathered:
        inputs.first = min(
            time_of(call, pass_.is_reverse, pass_.begin, 0),
            time_of(call, pass_.is_reverse, pass_.end - 1, 0))
        inputs.data = row_at(x, inputs.first, 0)
        inputs.stride = elements(stack, x.step if B == 1 else x.row)
        inputs.rows = (pass_.end - pass_.begin) * B
        return
    inputs.data = pass_.scratch.x
    inputs.stride = pass_.cell.input_size
    inputs.rows = 0
    inputs.first = -1
    n = B
    for s in range(pass_.begin, pass_.end):
        n = running(call, s, n)
        for b in range(n):
            memcpy(
                inputs.data + (inputs.rows + b) * row_bytes,
                row_at(x, time_of(call, pass_.is_reverse, s, b), b), row_bytes,
            )
        inputs.rows += n


cdef void run_pass(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil:
    find_inputs(stack, call, pass_)
    if pass_.is_projected:
        project(stack, pass_, 0, call.passes.parts)
    run_steps(stack, call, pass_)


cdef void run_steps(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil:
    """Make the steps of a pass."""
    cdef frnn_step step
    cdef Py_ssize_t s, n_after
    cdef Span h = whole(stack, stack.output_size), c = whole(stack, stack.hidden_size)
    begin_step(stack, call, pass_, &step)
    gather_c(stack, call, pass_, step.n, c)
    for s in range(pass_.begin, pass_.end):
        aim_step(stack, call, pass_, s, &step)
        make_step(stack, call, pass_, s, &step, h)
        n_after = running(call, s + 1, step.n)
        keep_h(stack, call, pass_, s, n_after, step.n, h)
        keep_c(stack, call, pass_, n_after, step.n, c)
        step.n = n_after


cdef void run_sweep(const Stack *stack, const Call *call, Py_ssize_t begin) noexcept nogil:
    """Take the steps of the sweep that begins at this one through all layers."""
    cdef const Shape *shape = &call.passes.shape
    cdef Py_ssize_t end = min(begin + shape.sweep, shape.T), layer, direction, s
    cdef Pass pass_
    for layer in range(stack.L):
        for direction in range(stack.D):
            s = begin
            while s < end:
                pass_ = pass_of(stack, call, layer, direction, s, call.scratches)
                run_pass(stack, call, &pass_)
                s += shape.block


cdef void clear_padding(
    const Stack *stack, const Call *call, Py_ssize_t T, Py_ssize_t B,
) noexcept nogil:
    """Let all outputs after the last step of a row be 0."""
    cdef Py_ssize_t b, t
    for b in range(B):
        for t in range(call.lengths[b], T):
            memset(row_at(&call.target, t, b), 0, stack.D * stack.output_size * stack.itemsize)
