"""Passes: one direction of one layer over a block of time.

The inputs of a block are projected at once; then its steps are made one by one. A stack that runs forward
only takes one block through all its layers before the next one, so its memory does not depend on T. Where a
layer runs in both directions the next one needs its whole output first, so such a stack keeps one or two
whole sequences between its layers.

With lengths the rows are sorted, longest first: at every step the running rows are the first n. The reverse
direction counts its steps from each row's own end: step s of a row of length len is its time step len - 1 -
s. So both directions are the same loop.
"""

from libc.string cimport memcpy

from fastrnn.engine.backend cimport frnn_step
from fastrnn.engine.call cimport Call, Inputs, Pass, Rows, Scratch, Span
from fastrnn.engine.addresses cimport elements, is_blas_stride, row_at, running, time_of
from fastrnn.engine.blocks cimport parts_of
from fastrnn.engine.layer_stack cimport Stack
from fastrnn.engine.steps cimport (
    aim_step, begin_step, gather_c, keep_c, keep_h, make_step, project, whole,
)


cdef Pass pass_of(
    const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t direction,
    Py_ssize_t begin, Py_ssize_t end, Scratch *scratch,
) noexcept nogil:
    """The pass of a layer and direction from begin to end, which lie in one sweep."""
    cdef Pass pass_
    cdef Py_ssize_t i = layer * stack.D + direction, row
    cdef Py_ssize_t sweep = begin // call.shape.sweep
    pass_.cell = stack.cells[i]
    pass_.is_reverse = direction == 1
    pass_.begin = begin
    pass_.end = end
    pass_.x = call.source if layer == 0 else between(stack, call, layer - 1, sweep)
    pass_.y = call.target if layer == stack.L - 1 else between(stack, call, layer, sweep)
    pass_.y.data += direction * stack.output_size * stack.itemsize
    pass_.index = i
    pass_.h = &call.h
    pass_.c = &call.c
    pass_.working = &call.working[i]
    row = elements(stack, pass_.y.row)
    # Rows that crowd are kept apart, unless there is but one step.
    pass_.is_in_place = (
        pass_.y.order == NULL
        and (call.lengths == NULL or not pass_.is_reverse)
        and is_blas_stride(stack, pass_.y.row, stack.output_size)
        and (call.shape.T == 1 or stack.backend.apart(call.shape.B, row) == row)
    )
    # In a pipeline the inputs of a step may be gone when it is made.
    pass_.is_lone = end - begin == 1 and not call.is_pipelined
    pass_.ld_next = row if pass_.is_in_place else call.ld_h
    pass_.scratch = scratch
    return pass_


cdef Rows between(const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t sweep) noexcept nogil:
    """What a layer gives the next one in a sweep."""
    cdef Rows rows
    if call.is_pipelined:
        rows.data = call.between[sweep % 2] + layer * call.between_slot
    else:
        rows.data = call.between[layer % 2]
    rows.first = sweep * call.shape.sweep
    rows.row = stack.D * stack.output_size * stack.itemsize
    rows.step = call.shape.B * rows.row
    rows.order = NULL
    return rows


cdef void gather_inputs(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil:
    """Find the inputs of a pass, or bring them together in its scratch."""
    cdef Inputs *inputs = &pass_.scratch.inputs
    cdef const Rows *x = &pass_.x
    cdef Py_ssize_t steps = pass_.end - pass_.begin, s, b, n
    cdef Py_ssize_t first = min(
        time_of(call, pass_.is_reverse, pass_.begin, 0), time_of(call, pass_.is_reverse, pass_.end - 1, 0))
    cdef Py_ssize_t row_bytes = pass_.cell.input_size * stack.itemsize
    cdef Py_ssize_t stride = x.step if call.shape.B == 1 else x.row
    if (
        x.order == NULL
        and (call.lengths == NULL or not pass_.is_reverse)
        and running(call, pass_.end - 1, call.shape.B) == call.shape.B
        and (steps == 1 or call.shape.B == 1 or x.row * call.shape.B == x.step)
        and is_blas_stride(stack, stride, pass_.cell.input_size)
    ):
        inputs.data = row_at(x, first, 0)
        inputs.stride = elements(stack, stride)
        inputs.rows = steps * call.shape.B
        inputs.first = first
        return
    inputs.data = pass_.scratch.x
    inputs.stride = pass_.cell.input_size
    inputs.rows = 0
    inputs.first = -1
    n = call.shape.B
    for s in range(pass_.begin, pass_.end):
        n = running(call, s, n)
        for b in range(n):
            memcpy(
                inputs.data + (inputs.rows + b) * row_bytes,
                row_at(x, time_of(call, pass_.is_reverse, s, b), b), row_bytes,
            )
        inputs.rows += n


cdef void run_pass(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil:
    gather_inputs(stack, call, pass_)
    if not pass_.is_lone:
        project(stack, pass_, 0, parts_of(stack, pass_.cell))
    run_steps(stack, call, pass_)


cdef void run_steps(const Stack *stack, const Call *call, const Pass *pass_) noexcept nogil:
    """Make the steps of a pass, whose inputs are projected."""
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


cdef void run_sweep(const Stack *stack, const Call *call, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Take the steps of a sweep through all layers."""
    cdef Py_ssize_t layer, direction, s
    cdef Pass pass_
    for layer in range(stack.L):
        for direction in range(stack.D):
            s = begin
            while s < end:
                pass_ = pass_of(
                    stack, call, layer, direction, s, min(s + call.shape.block, end), call.scratches)
                run_pass(stack, call, &pass_)
                s += call.shape.block
