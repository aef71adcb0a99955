"""The drivers: layers x directions x lengths x blocks of time x threads, above any backend.

A backend gives two operations, `project` and `step` (kernels/kernels.h). What is here is
written once for every cell, dtype and backend: which rows are projected together, which
rows are still running at a time step, where each result goes, which thread does what.

Time is taken in blocks: a block's inputs are projected at once, then its steps are made one
by one. A stack that runs forward only takes one block through all its layers before the next,
so its memory does not depend on T. Where a layer runs in both directions the next one needs
its whole output first, so such a stack keeps one or two whole sequences between its layers.

Lengths: the rows are sorted, longest first, so that at every step the running rows are the
first n. The reverse direction counts its steps from each row's own end: step s of a row of
length len is its time step len - 1 - s. So both directions are the same loop.

Threads: a call was planned (_plan.pyx) as a grid of phases and slices for threads/threads.h; what a slice
does in a phase is here.

Nothing here checks its arguments (layers does), and nothing allocates.
"""

from libc.limits cimport INT_MAX
from libc.stdint cimport uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastrnn.engine.backend cimport FRNN_F32, frnn_backend, frnn_cell, frnn_step
from fastrnn.engine.plan cimport (
    DIRECTIONS, PANELS, PIPELINE, ROWS, Call, Inputs, Lane, Row, Rows, Scratch, Span, Stack, States, Turn,
    block_of, count, cut_stages, dense_ns, dense_slices, most_rows, parts_of, rows_before,
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


# Whoever works alone for longer than this has a core that others should not plan with.
cdef double COUNTED_NS = 20000


# ---------------------------------------------------------------- rows and steps

cdef inline char *row_at(const Rows *rows, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    if rows.order != NULL:
        b = rows.order[b]
    return rows.data + (t - rows.first) * rows.step + b * rows.row


cdef inline char *state_at(const States *states, Py_ssize_t layer, Py_ssize_t b) noexcept nogil:
    if states.order != NULL:
        b = states.order[b]
    return states.data + layer * states.layer + b * states.row


cdef inline States states_from(const States *states, Py_ssize_t first) noexcept nogil:
    """Those of the rows from the first on."""
    cdef States rest = states[0]
    if rest.order != NULL:
        rest.order += first
    else:
        rest.data += first * rest.row
    return rest


cdef inline Py_ssize_t running(const Call *call, Py_ssize_t s, Py_ssize_t most) noexcept nogil:
    """How many rows, of the first `most`, have a step s."""
    if call.lengths == NULL:
        return most if s < call.T else 0
    while most > 0 and call.lengths[most - 1] <= s:
        most -= 1
    return most


cdef inline Py_ssize_t time_of(
    const Call *call, bint is_reverse, Py_ssize_t s, Py_ssize_t b,
) noexcept nogil:
    """The time step at which row b makes its step s."""
    if not is_reverse:
        return s
    return (call.T if call.lengths == NULL else call.lengths[b]) - 1 - s


cdef inline Py_ssize_t elements(Py_ssize_t stride, Py_ssize_t itemsize) noexcept nogil:
    """Of so many bytes; a shift, not a division, since every call wants several."""
    return stride >> (2 if itemsize == 4 else 3)


cdef inline bint is_blas_stride(
    Py_ssize_t stride, Py_ssize_t columns, Py_ssize_t itemsize,
) noexcept nogil:
    """Whether rows that are aligned, as all are here, may go to BLAS as they lie."""
    return columns <= elements(stride, itemsize) <= INT_MAX


cdef int longest_first(const void *left, const void *right) noexcept nogil:
    """The order of Rows, or of what begins with one, for qsort."""
    cdef const Row *a = <const Row *>left
    cdef const Row *b = <const Row *>right
    if a.length != b.length:
        return -1 if a.length > b.length else 1
    return -1 if a.index < b.index else 1


cdef void sort(Call *call, const Py_ssize_t *lengths) noexcept nogil:
    cdef Py_ssize_t b
    for b in range(call.B):
        # Checked already; another thread may have written to the caller's array since.
        call.sorting[b].length = min(max(lengths[b], 1), call.T)
        call.sorting[b].index = b
    qsort(call.sorting, call.B, sizeof(Row), longest_first)
    for b in range(call.B):
        call.order[b] = call.sorting[b].index
        call.sorted_lengths[b] = call.sorting[b].length


cdef void clear_padding(const Stack *stack, const Call *call) noexcept nogil:
    cdef Py_ssize_t b, t
    for b in range(call.B):
        for t in range(call.lengths[b], call.T):
            memset(row_at(&call.target, t, b), 0, stack.D * stack.output_size * stack.itemsize)


# ---------------------------------------------------------------- one direction of one layer

cdef Lane lane_of(
    const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t direction,
    Py_ssize_t begin, Py_ssize_t end, Scratch *scratch,
) noexcept nogil:
    """The lane of a layer and direction, begin to end; its chunk of time holds them."""
    cdef Lane lane
    cdef Py_ssize_t i = layer * stack.D + direction, row
    cdef Py_ssize_t chunk = begin // call.chunk
    lane.cell = stack.cells[i]
    lane.is_reverse = direction == 1
    lane.begin = begin
    lane.end = end
    lane.x = call.source if layer == 0 else between(stack, call, layer - 1, chunk)
    lane.y = call.target if layer == stack.L - 1 else between(stack, call, layer, chunk)
    lane.y.data += direction * stack.output_size * stack.itemsize
    lane.index = i
    lane.h = &call.h
    lane.c = &call.c
    lane.kept = &call.kept[i]
    row = elements(lane.y.row, stack.itemsize)
    # Rows that crowd are kept apart, unless there is but one step.
    lane.is_in_place = (
        lane.y.order == NULL
        and (call.lengths == NULL or not lane.is_reverse)
        and is_blas_stride(lane.y.row, stack.output_size, stack.itemsize)
        and (call.T == 1 or stack.backend.apart(call.B, row) == row)
    )
    # In a pipeline the inputs of a step may be gone when it is made.
    lane.is_lone = end - begin == 1 and call.kind != PIPELINE
    lane.ld_next = row if lane.is_in_place else call.ld_h
    lane.scratch = scratch
    return lane


cdef Rows between(const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t chunk) noexcept nogil:
    """What a layer gives the next one, of a chunk of time."""
    cdef Rows rows
    if call.kind == PIPELINE:
        rows.data = call.between[chunk % 2] + layer * call.between_slot
    else:
        rows.data = call.between[layer % 2]
    rows.first = chunk * call.chunk
    rows.row = stack.D * stack.output_size * stack.itemsize
    rows.step = call.B * rows.row
    rows.order = NULL
    return rows


cdef void gather_inputs(const Stack *stack, const Call *call, const Lane *lane) noexcept nogil:
    """Find the inputs of a lane, or bring them together in its scratch."""
    cdef Inputs *inputs = &lane.scratch.inputs
    cdef const Rows *x = &lane.x
    cdef Py_ssize_t steps = lane.end - lane.begin, s, b, n
    cdef Py_ssize_t first = min(
        time_of(call, lane.is_reverse, lane.begin, 0), time_of(call, lane.is_reverse, lane.end - 1, 0))
    cdef Py_ssize_t row_bytes = lane.cell.input_size * stack.itemsize
    cdef Py_ssize_t stride = x.step if call.B == 1 else x.row
    if (
        x.order == NULL
        and (call.lengths == NULL or not lane.is_reverse)
        and running(call, lane.end - 1, call.B) == call.B
        and (steps == 1 or call.B == 1 or x.row * call.B == x.step)
        and is_blas_stride(stride, lane.cell.input_size, stack.itemsize)
    ):
        inputs.data = row_at(x, first, 0)
        inputs.stride = elements(stride, stack.itemsize)
        inputs.rows = steps * call.B
        inputs.first = first
        return
    inputs.data = lane.scratch.x
    inputs.stride = lane.cell.input_size
    inputs.rows = 0
    inputs.first = -1
    n = call.B
    for s in range(lane.begin, lane.end):
        n = running(call, s, n)
        for b in range(n):
            memcpy(
                inputs.data + (inputs.rows + b) * row_bytes,
                row_at(x, time_of(call, lane.is_reverse, s, b), b), row_bytes,
            )
        inputs.rows += n


cdef inline char *next_h(const Call *call, const Lane *lane, Py_ssize_t s) noexcept nogil:
    """Where step s leaves h."""
    if lane.is_in_place:
        return row_at(&lane.y, time_of(call, lane.is_reverse, s, 0), 0)
    return lane.kept.h[s % 2]


cdef void project(
    const Stack *stack, const Lane *lane, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef const Inputs *inputs = &lane.scratch.inputs
    stack.backend.project(
        lane.cell, first, last, inputs.rows, inputs.data, inputs.stride, lane.scratch.gates,
        lane.scratch.step,
    )


cdef inline Span whole(const Stack *stack, Py_ssize_t columns) noexcept nogil:
    cdef Span span
    span.begin = 0
    span.size = columns * stack.itemsize
    return span


cdef inline Span units_of(const Stack *stack, const Lane *lane, const frnn_step *step) noexcept nogil:
    """What a step's parts are of a row of h and of c; a cell with a projection is not divided."""
    cdef Py_ssize_t units = stack.backend.part_units(lane.cell)
    cdef Span span
    span.begin = step.first * units * stack.itemsize
    span.size = min(step.last * units, stack.hidden_size) * stack.itemsize - span.begin
    return span


cdef void gather_states(
    const States *states, const Lane *lane, Py_ssize_t n, Span span, char *target, Py_ssize_t stride,
) noexcept nogil:
    """Bring together the h or c of the first n rows before the lane; stride: bytes between rows there."""
    cdef Py_ssize_t b
    for b in range(n):
        memcpy(target + b * stride + span.begin, state_at(states, lane.index, b) + span.begin, span.size)


cdef void keep_states(
    const States *states, const Lane *lane, const char *source, Py_ssize_t stride, Span span,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Leave the h or c of the rows from first to last, that excluded, which are behind their last step."""
    cdef Py_ssize_t b
    for b in range(first, last):
        memcpy(state_at(states, lane.index, b) + span.begin, source + b * stride + span.begin, span.size)


cdef void begin_step(const Stack *stack, const Call *call, const Lane *lane, frnn_step *step) noexcept nogil:
    """What is the same in all steps of a lane."""
    cdef const Inputs *inputs = &lane.scratch.inputs
    step.n = running(call, lane.begin, call.B)
    step.x = inputs.data if lane.is_lone else NULL
    step.ldx = inputs.stride
    step.gates = lane.scratch.gates
    step.rows = inputs.rows
    step.row = 0
    step.ld_next = lane.ld_next
    step.c = lane.c.data + lane.index * lane.c.layer if stack.has_cell_state else NULL
    step.ldc = elements(lane.c.row, stack.itemsize)
    step.c_order = lane.c.order
    step.scratch = lane.scratch.step
    step.first = 0
    step.last = parts_of(stack, lane.cell)
    if lane.kept.c != NULL:
        step.c = lane.kept.c
        step.ldc = call.ld_c
        step.c_order = NULL


cdef inline void gather_c(
    const Stack *stack, const Call *call, const Lane *lane, Py_ssize_t n, Span span,
) noexcept nogil:
    """Before the first step bring c together, if it is kept apart."""
    if lane.kept.c != NULL and lane.begin == 0:
        gather_states(lane.c, lane, n, span, lane.kept.c, call.ld_c * stack.itemsize)


cdef inline void aim_step(
    const Stack *stack, const Call *call, const Lane *lane, Py_ssize_t s, frnn_step *step,
) noexcept nogil:
    """Point a step at its gates and at h before and after it."""
    cdef const Inputs *inputs = &lane.scratch.inputs
    if inputs.first >= 0:
        step.row = (time_of(call, lane.is_reverse, s, 0) - inputs.first) * call.B
    if s > lane.begin or (s > 0 and not lane.is_in_place):
        step.h_prev = next_h(call, lane, s - 1)
        step.ld_prev = lane.ld_next
    elif lane.h.order == NULL:
        step.h_prev = lane.h.data + lane.index * lane.h.layer
        step.ld_prev = elements(lane.h.row, stack.itemsize)
    else:
        gather_states(
            lane.h, lane, step.n, whole(stack, stack.output_size), lane.scratch.h,
            stack.output_size * stack.itemsize)
        step.h_prev = lane.scratch.h
        step.ld_prev = stack.output_size
    step.h_next = next_h(call, lane, s)
    step.is_odd = (s + call.parity) % 2


cdef inline void make_step(
    const Stack *stack, const Call *call, const Lane *lane, Py_ssize_t s, frnn_step *step, Span span,
) noexcept nogil:
    """Make step s, as far as its parts go, and bring what it has of h to its place."""
    cdef Py_ssize_t b, stride = lane.ld_next * stack.itemsize
    stack.backend.step(lane.cell, step)
    step.row += step.n
    if lane.is_in_place:
        return
    for b in range(step.n):
        memcpy(
            row_at(&lane.y, time_of(call, lane.is_reverse, s, b), b) + span.begin,
            <const char *>step.h_next + b * stride + span.begin, span.size)


cdef void run_steps(const Stack *stack, const Call *call, const Lane *lane) noexcept nogil:
    """Make the steps of a lane that is projected."""
    cdef frnn_step step
    cdef Py_ssize_t s, n_after
    cdef Span h = whole(stack, stack.output_size), c = whole(stack, stack.hidden_size)
    begin_step(stack, call, lane, &step)
    gather_c(stack, call, lane, step.n, c)
    for s in range(lane.begin, lane.end):
        aim_step(stack, call, lane, s, &step)
        make_step(stack, call, lane, s, &step, h)
        n_after = running(call, s + 1, step.n)
        keep_h(stack, call, lane, s, n_after, step.n, h)
        keep_c(stack, call, lane, n_after, step.n, c)
        step.n = n_after


cdef inline void keep_h(
    const Stack *stack, const Call *call, const Lane *lane, Py_ssize_t s, Py_ssize_t n_after, Py_ssize_t n,
    Span span,
) noexcept nogil:
    """Leave the h of the rows that are through, and behind a lane that has it in place of all: the next one
    finds it there."""
    if lane.is_in_place and s + 1 == lane.end:
        n_after = 0
    keep_states(lane.h, lane, next_h(call, lane, s), lane.ld_next * stack.itemsize, span, n_after, n)


cdef inline void keep_c(
    const Stack *stack, const Call *call, const Lane *lane, Py_ssize_t n_after, Py_ssize_t n, Span span,
) noexcept nogil:
    """Leave the c of the rows that are through, if it is kept apart."""
    if lane.kept.c != NULL:
        keep_states(lane.c, lane, lane.kept.c, call.ld_c * stack.itemsize, span, n_after, n)


cdef void run_lane(const Stack *stack, const Call *call, const Lane *lane) noexcept nogil:
    gather_inputs(stack, call, lane)
    if not lane.is_lone:
        project(stack, lane, 0, parts_of(stack, lane.cell))
    run_steps(stack, call, lane)


cdef void run_chunk(const Stack *stack, const Call *call, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Take a chunk of time through all layers."""
    cdef Py_ssize_t layer, direction, s
    cdef Lane lane
    for layer in range(stack.L):
        for direction in range(stack.D):
            s = begin
            while s < end:
                lane = lane_of(
                    stack, call, layer, direction, s, min(s + call.block, end), call.scratches)
                run_lane(stack, call, &lane)
                s += call.block


# ---------------------------------------------------------------- the plans: what a slice does in a phase

cdef struct Work:
    # What the threads of a call share.
    const Stack *stack
    Call *call


cdef Py_ssize_t divide_rows(const Stack *stack, Call *call) noexcept nogil:
    """Give every slice its rows, those with lengths by their sum; the phases are chunks of time."""
    cdef Py_ssize_t first = 0, last, phases = 1, total = 0, so_far = 0, b
    cdef Py_ssize_t most = most_rows(call.B, call.slices)
    cdef int part
    cdef Call *own
    if call.lengths != NULL:
        for b in range(call.B):
            total += call.lengths[b]
    for part in range(call.slices):
        own = &call.parts[part]
        last = rows_before(call.B, part + 1, call.slices)
        if call.lengths != NULL:
            last = first
            while last < call.B - (call.slices - 1 - part) and last < first + most and (
                last == first or call.B - last > (call.slices - 1 - part) * most
                or (so_far + call.lengths[last] // 2) * call.slices < total * (part + 1)
            ):
                so_far += call.lengths[last]
                last += 1
        own.T = call.T
        own.parity = call.parity
        own.lengths = NULL
        own.source = call.source
        own.target = call.target
        if call.lengths != NULL:
            own.lengths = call.lengths + first
            own.T = call.lengths[first]
            own.source.order += first
            own.target.order += first
        else:
            own.source.data += first * own.source.row
            own.target.data += first * own.target.row
        # Its memory was laid out for a number of rows; with lengths a slice may have fewer.
        own.block = max(1, min(block_of(stack, own.T, last - first, 1), own.block * own.B // (last - first)))
        own.B = last - first
        own.chunk = own.block if stack.D == 1 else own.T
        own.h = states_from(&call.h, first)
        own.c = states_from(&call.c, first)
        phases = max(phases, count(own.T, own.chunk))
        first = last
    return phases


cdef void run_rows(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Work *work = <const Work *>context
    cdef const Call *own = &work.call.parts[slice]
    cdef Py_ssize_t begin = phase * own.chunk
    cdef uint64_t before
    if begin < own.T:
        before = work.stack.backend.enter()
        run_chunk(work.stack, own, begin, min(begin + own.chunk, own.T))
        work.stack.backend.leave(before)


cdef void run_direction(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Work *work = <const Work *>context
    cdef const Call *call = work.call
    cdef Py_ssize_t blocks = count(call.T, call.block)
    cdef Py_ssize_t begin = phase % blocks * call.block
    cdef uint64_t before = work.stack.backend.enter()
    cdef Lane lane = lane_of(
        work.stack, call, phase // blocks, slice, begin, min(begin + call.block, call.T),
        &call.scratches[slice],
    )
    run_lane(work.stack, call, &lane)
    work.stack.backend.leave(before)


cdef inline Py_ssize_t lane_phases(Py_ssize_t steps) noexcept nogil:
    """Of a lane that is divided by panels: its projection, its steps, and h behind the last of them."""
    return steps + 1 + (steps > 1)


cdef Py_ssize_t panel_phases(const Stack *stack, const Call *call) noexcept nogil:
    cdef Py_ssize_t rest = call.T % call.block
    return stack.L * stack.D * (
        call.T // call.block * lane_phases(call.block) + (lane_phases(rest) if rest else 0))


cdef void take_lane(
    const Stack *stack, const Call *call, int slice, bint is_first, Turn *turn,
) noexcept nogil:
    """Go on to the next lane: block by block of a chunk, layer by layer, direction by direction."""
    cdef Py_ssize_t index = 0, begin = 0, parts
    if not is_first and stack.D == 1:
        index = (turn.lane.index + 1) % stack.L
        begin = turn.lane.begin if index > 0 else turn.lane.end
    elif not is_first:
        begin = turn.lane.end % call.T
        index = turn.lane.index + (begin == 0)
    turn.lane = lane_of(
        stack, call, index // stack.D, index % stack.D, begin, min(begin + call.block, call.T),
        &call.scratches[slice])
    gather_inputs(stack, call, &turn.lane)
    begin_step(stack, call, &turn.lane, &turn.step)
    parts = turn.step.last
    turn.step.first = rows_before(parts, slice, call.slices)
    turn.step.last = rows_before(parts, slice + 1, call.slices)
    turn.units = units_of(stack, &turn.lane, &turn.step)
    gather_c(stack, call, &turn.lane, turn.step.n, turn.units)
    turn.s = begin if turn.lane.is_lone else begin - 1


cdef void run_panels(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """A slice takes its phases in order, so what it does next is kept from one to the next."""
    cdef const Work *work = <const Work *>context
    cdef const Stack *stack = work.stack
    cdef Turn *turn = &work.call.turns[slice]
    cdef const Lane *lane = &turn.lane
    cdef Py_ssize_t n_after
    cdef uint64_t before = stack.backend.enter()
    if phase == 0 or turn.s > lane.end:
        take_lane(stack, work.call, slice, phase == 0, turn)
    if turn.s < lane.begin:
        project(stack, lane, turn.step.first, turn.step.last)
    elif turn.s < lane.end:
        aim_step(stack, work.call, lane, turn.s, &turn.step)
        if turn.step.n == 1:
            # RNN of 128 units, 100x1 on two threads takes 0.93 of the time (Zen 4, that case of
            # `python -m bench --threads 2` in builds in turns).
            frnn_fetch(<const char *>turn.step.h_prev, stack.output_size * stack.itemsize)
        make_step(stack, work.call, lane, turn.s, &turn.step, turn.units)
    else:
        n_after = running(work.call, lane.end, turn.step.n)
        keep_h(stack, work.call, lane, lane.end - 1, n_after, turn.step.n, turn.units)
        keep_c(stack, work.call, lane, n_after, turn.step.n, turn.units)
    turn.s += 1
    stack.backend.leave(before)


cdef void run_stages(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Work *work = <const Work *>context
    cdef const Stack *stack = work.stack
    cdef const Call *call = work.call
    cdef Py_ssize_t block = phase - slice, begin = block * call.block
    cdef int stage
    cdef uint64_t before
    cdef Lane lane
    if block < 0 or begin >= call.T:
        return
    before = stack.backend.enter()
    for stage in range(call.stages[slice], call.stages[slice + 1]):
        lane = lane_of(
            stack, call, stage // 2, 0, begin, min(begin + call.block, call.T),
            &call.scratches[stage // 2 * 2 + block % 2])
        if stage % 2 == 1:
            run_steps(stack, call, &lane)
            continue
        gather_inputs(stack, call, &lane)
        if not lane.is_lone:
            project(stack, &lane, 0, parts_of(stack, lane.cell))
    stack.backend.leave(before)


# ---------------------------------------------------------------- a call

cdef void execute(
    const Stack *stack, Call *call, Rows source, Rows target, const Py_ssize_t *lengths,
) noexcept nogil:
    """Run a call that is planned and laid out. With lengths, its states have no order of their own."""
    cdef Work work
    cdef Py_ssize_t begin = 0
    cdef uint64_t before
    if stack.backend.begin != NULL:
        stack.backend.begin()
    work.stack = stack
    work.call = call
    call.lengths = source.order = target.order = NULL
    if lengths != NULL:
        sort(call, lengths)
        call.lengths = call.sorted_lengths
        source.order = target.order = call.h.order = call.c.order = call.order
    call.source = source
    call.target = target
    if call.kind == ROWS:
        share(run_rows, &work, divide_rows(stack, call), call.slices, call.threads, call.longest)
    elif call.kind == DIRECTIONS:
        share(run_direction, &work, stack.L * count(call.T, call.block), 2, call.threads, call.longest)
    elif call.kind == PANELS and is_blas_stride(target.row, stack.output_size, stack.itemsize):
        share(run_panels, &work, panel_phases(stack, call), call.slices, call.threads, call.longest)
    elif call.kind == PIPELINE:
        cut_stages(stack, call.block, call.B, call.slices, call.stages)
        share(
            run_stages, &work, count(call.T, call.block) + call.slices - 1, call.slices, call.threads,
            call.longest,
        )
    else:
        if call.alone > COUNTED_NS:
            count_caller(1)
        before = stack.backend.enter()
        while begin < call.T:
            run_chunk(stack, call, begin, min(begin + call.chunk, call.T))
            begin += call.chunk
        stack.backend.leave(before)
        if call.alone > COUNTED_NS:
            count_caller(-1)
    if lengths != NULL:
        clear_padding(stack, call)
    if stack.backend.end != NULL:
        stack.backend.end()


# ---------------------------------------------------------------- a projection alone

cdef struct Projection:
    const frnn_backend *backend
    const frnn_cell *cell
    Py_ssize_t n
    const char *x
    char *out
    int slices


cdef void run_dense_rows(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Projection *work = <const Projection *>context
    cdef Py_ssize_t itemsize = 4 if work.cell.dtype == FRNN_F32 else 8
    cdef Py_ssize_t first = rows_before(work.n, slice, work.slices)
    cdef Py_ssize_t last = rows_before(work.n, slice + 1, work.slices)
    cdef uint64_t before = work.backend.enter()
    work.backend.dense(
        work.cell, last - first, work.x + first * work.cell.input_size * itemsize, work.cell.input_size,
        work.out + first * work.cell.hidden_size * itemsize, work.cell.hidden_size,
    )
    work.backend.leave(before)


cdef void run_dense(
    const frnn_backend *backend, const frnn_cell *cell, Py_ssize_t n, const void *x, void *out, int threads,
) noexcept nogil:
    """Project x (n, I) into out (n, H), rows divided among threads where that pays."""
    cdef Projection work
    work.backend = backend
    work.cell = cell
    work.n = n
    work.x = <const char *>x
    work.out = <char *>out
    work.slices = dense_slices(cell, n, threads)
    if backend.begin != NULL:
        backend.begin()
    if work.slices == 1:
        run_dense_rows(&work, 0, 0)
    else:
        share(run_dense_rows, &work, 1, work.slices, work.slices, dense_ns(cell, n))
    if backend.end != NULL:
        backend.end()
