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

Threads: a call is planned once (`plan`), as a grid of phases and slices for pool/pool.h. The sums
behind every number are the same in every plan, so the bits are too.

Nothing here checks its arguments (layers does), and nothing allocates.
"""

from libc.limits cimport INT_MAX
from libc.stdint cimport uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastrnn._kernels cimport FRNN_F32, frnn_backend, frnn_cell, frnn_step
from fastrnn._pool cimport frnn_available, frnn_cores, frnn_limit_cores, frnn_share

# A block's gates should stay in the second-level cache while its steps use them up, but
# a projection of fewer rows than these wastes the weights that it reads.
cdef Py_ssize_t BLOCK_BYTES = 256 * 1024
cdef Py_ssize_t BLOCK_ROWS = 64
# Rows that a slice of a batch should have: fewer use the weights that they read badly.
cdef Py_ssize_t SLICE_ROWS = 4

# The cost model: nanoseconds of one core, of a kind from about 2020 on. Only their ratios to one another
# matter, and an error of half or double changes the plan of calls alone that gain little either way.
cdef double PRODUCTS_PER_NS = 80        # multiply-adds of float32
cdef double NEAR_BYTES_PER_NS = 180     # weights read from the second-level cache
cdef double FAR_BYTES_PER_NS = 100      # and from beyond
cdef double NEAR_BYTES = 512 * 1024    # that stay there from step to step
cdef double STEP_NS = 60                # a step besides its products
cdef double PHASE_NS = 250              # threads that wait for one another, and fetch what the others wrote
cdef double START_NS = 4000             # of having company at all
cdef double WORTH = 0.85                # of the time alone: a plan that takes more is not worth its threads


# ---------------------------------------------------------------- the pool, for Python

def cores():
    """The cores that this thread may run on now, at most those that `limit_cores` allows."""
    return frnn_cores()


def limit_cores(int most):
    """Never use more cores than that; 0: as many as there are."""
    frnn_limit_cores(most)


# ---------------------------------------------------------------- memory

cdef inline char *take(char **cursor, Py_ssize_t size) noexcept nogil:
    """The next `size` bytes at the cursor, which moves on to the next cache line."""
    cdef char *begin = cursor[0]
    cursor[0] = begin + ((size + 63) & ~63)
    return begin


cdef int scratches_of(const Stack *stack, const Call *call) noexcept nogil:
    if call.kind == PIPELINE:
        return <int>(2 * stack.L)
    return call.slices if call.kind == PANELS or call.kind == DIRECTIONS else 1


cdef size_t lay_out(const Stack *stack, Call *call, char *memory, bint is_ragged) noexcept nogil:
    """Point a planned call's scratch into memory, and give its size; from NULL, measure it."""
    cdef char *cursor = memory
    cdef Py_ssize_t B = call.B, size
    cdef int part
    if is_ragged:
        size = stack.L * stack.D * B * stack.itemsize
        call.own_h = take(&cursor, size * stack.output_size)
        call.own_c = take(&cursor, size * stack.hidden_size if stack.has_cell_state else 0)
        call.sorting = <Row *>take(&cursor, B * sizeof(Row))
        call.order = <Py_ssize_t *>take(&cursor, B * sizeof(Py_ssize_t))
        call.sorted_lengths = <Py_ssize_t *>take(&cursor, B * sizeof(Py_ssize_t))
    if call.kind != ROWS:
        lay_out_scratch(stack, call, &cursor, memory == NULL)
        return cursor - memory
    call.parts = <Call *>take(&cursor, call.slices * sizeof(Call))
    cdef Call measured
    for part in range(call.slices):
        # The rows of a slice are only known with the lengths: each has room for most of them.
        measured = call[0]
        measured.kind = ALONE
        measured.slices = 1
        if not is_ragged:
            measured.B = rows_before(B, part + 1, call.slices) - rows_before(B, part, call.slices)
        measured.block = block_of(stack, call.T, measured.B)
        measured.chunk = measured.block if stack.D == 1 else call.T
        lay_out_scratch(stack, &measured, &cursor, memory == NULL)
        if memory != NULL:
            call.parts[part] = measured
    return cursor - memory


cdef void lay_out_scratch(const Stack *stack, Call *call, char **cursor, bint is_measured) noexcept nogil:
    cdef Py_ssize_t B = call.B, rows = call.block * call.B, size = 0, i
    cdef Py_ssize_t output_row = stack.D * stack.output_size * stack.itemsize
    cdef Py_ssize_t input_row = stack.input_size * stack.itemsize
    cdef int count = scratches_of(stack, call), number
    cdef Scratch scratch
    if stack.L > 1:
        input_row = max(input_row, output_row)
    for i in range(stack.L * stack.D):
        size = max(size, <Py_ssize_t>stack.backend.scratch_bytes(stack.cells[i], B))
    call.scratches = <Scratch *>take(cursor, count * sizeof(Scratch))
    for number in range(count):
        # The slices of a step share its gates, each its own part of them.
        if number == 0 or call.kind != PANELS:
            scratch.gates = take(cursor, rows * stack.gate_bytes)
            scratch.x = take(cursor, rows * input_row)
            for i in range(2):
                scratch.output[i] = take(cursor, B * stack.output_size * stack.itemsize)
        scratch.step = take(cursor, size)
        if not is_measured:
            call.scratches[number] = scratch
    call.between_slot = (call.chunk * B * output_row + 63) & ~63
    for i in range(2):
        size = call.between_slot if stack.L > i + 1 else 0
        if call.kind == PIPELINE:
            size = call.between_slot * (stack.L - 1)
        call.between[i] = take(cursor, size)
    if call.kind == PIPELINE:
        call.stages = <int *>take(cursor, (call.slices + 1) * sizeof(int))


# ---------------------------------------------------------------- planning

cdef inline Py_ssize_t count(Py_ssize_t whole, Py_ssize_t part) noexcept nogil:
    """How many parts of a size it takes."""
    return (whole + part - 1) // part


cdef inline Py_ssize_t block_of(const Stack *stack, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    return max(1, min(T, max(BLOCK_BYTES // stack.gate_bytes, BLOCK_ROWS) // B))


cdef inline Py_ssize_t rows_before(Py_ssize_t rows, int part, int parts) noexcept nogil:
    """Where a part of evenly divided rows begins."""
    return rows * part // parts


cdef double pass_ns(const Stack *stack, Py_ssize_t columns, double rows, double share) noexcept nogil:
    """A pass of some rows over a share of one cell's weights of so many columns."""
    cdef double weights = <double>columns * stack.hidden_size * stack.cells[0].gates * share
    cdef double size = weights * stack.itemsize
    cdef double products = rows * weights * stack.itemsize / 4 / PRODUCTS_PER_NS
    cdef double far = max(0.0, size - NEAR_BYTES)
    return max(products, (size - far) / NEAR_BYTES_PER_NS + far / FAR_BYTES_PER_NS)


cdef double project_ns(
    const Stack *stack, Py_ssize_t layer, double steps, double rows, double share,
) noexcept nogil:
    cdef Py_ssize_t columns = stack.input_size if layer == 0 else stack.D * stack.output_size
    return pass_ns(stack, columns, steps * rows, share)


cdef double step_ns(const Stack *stack, double rows, double share) noexcept nogil:
    return STEP_NS + pass_ns(stack, stack.output_size, rows, share)


cdef double lane_ns(
    const Stack *stack, Py_ssize_t layer, double steps, double rows, double share,
) noexcept nogil:
    """One direction of one layer."""
    return project_ns(stack, layer, steps, rows, share) + steps * step_ns(stack, rows, share)


cdef double stack_ns(const Stack *stack, double steps, double rows, double share) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t layer
    for layer in range(stack.L):
        total += stack.D * lane_ns(stack, layer, steps, rows, share)
    return total


cdef double stage_ns(const Stack *stack, int stage, double steps, double rows) noexcept nogil:
    if stage % 2 == 0:
        return project_ns(stack, stage // 2, steps, rows, 1)
    return steps * step_ns(stack, rows, 1)


cdef double cut_stages(
    const Stack *stack, Py_ssize_t steps, Py_ssize_t rows, int slices, int *cuts,
) noexcept nogil:
    """Divide the stages of a block among slices, in their order, evenly; give the longest slice's time."""
    cdef double total = 0, done = 0, longest = 0, own = 0
    cdef int stages = <int>(2 * stack.L), stage, piece = 0
    for stage in range(stages):
        total += stage_ns(stack, stage, steps, rows)
    if cuts != NULL:
        cuts[0] = 0
    for stage in range(stages):
        own += stage_ns(stack, stage, steps, rows)
        done += stage_ns(stack, stage, steps, rows)
        longest = max(longest, own)
        # A slice ends where its share of the whole is reached, or each stage left needs its own.
        if piece < slices - 1 and (
            done + (stage_ns(stack, stage + 1, steps, rows) if stage + 1 < stages else 0) / 2
            >= total * (piece + 1) / slices
            or stages - stage - 1 == slices - 1 - piece
        ):
            piece += 1
            own = 0
            if cuts != NULL:
                cuts[piece] = stage + 1
    if cuts != NULL:
        cuts[slices] = stages
    return longest


cdef size_t plan(
    const Stack *stack, Call *call, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads,
) noexcept nogil:
    """Choose how to divide T steps of B rows: whatever takes the least time by the cost model.

    threads is the most that may be used; fewer are, where other calls have them. Gives the memory
    that is wanted, whoever may be free at the next such call.
    """
    cdef int available
    cdef size_t size
    cdef Call other
    choose(stack, call, T, B, is_ragged, threads)
    size = lay_out(stack, call, NULL, is_ragged)
    if call.kind == ALONE or stack.only >= 0:
        return size
    choose(stack, &other, T, B, is_ragged, 1)
    size = max(size, lay_out(stack, &other, NULL, is_ragged))
    available = frnn_available(call.slices)
    if available < call.slices:
        choose(stack, call, T, B, is_ragged, available)
        size = max(size, lay_out(stack, call, NULL, is_ragged))
    return size


cdef void choose(
    const Stack *stack, Call *call, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads,
) noexcept nogil:
    """The plan, if so many threads are free."""
    cdef double phases, alone, longest
    cdef Py_ssize_t block, parts, most
    cdef int slices
    cdef Choice choice
    call.T = T
    call.B = B
    call.parity = 0
    alone = stack_ns(stack, T, B, 1)
    choice.only = stack.only
    choice.kind = ALONE
    choice.slices = 1
    choice.block = block_of(stack, T, B)
    choice.longest = 0
    choice.time = alone * WORTH
    # Rows: as many slices as threads, each through all time and layers.
    slices = <int>min(threads, B // SLICE_ROWS)
    if slices > 1:
        most = count(B, slices)
        block = block_of(stack, T, most)
        phases = count(T, block) if stack.D == 1 else 1
        longest = stack_ns(stack, T, most, 1)
        consider(&choice, ROWS, slices, choice.block, phases * PHASE_NS + longest, longest / phases)
    block = block_of(stack, T, B)
    if threads > 1 and stack.D == 2:
        phases = stack.L * count(T, block)
        consider(&choice, DIRECTIONS, 2, block, phases * PHASE_NS + alone / 2, alone / 2 / phases)
    parts = stack.backend.parts(stack.cells[0])
    slices = <int>min(threads, parts)
    if slices > 1 and stack.cells[0].w_hr == NULL and not is_ragged:
        phases = stack.L * stack.D * (T + count(T, block))
        longest = project_ns(stack, stack.L - 1, block, B, <double>count(parts, slices) / parts)
        consider(&choice, PANELS, slices, block, phases * PHASE_NS + stack_ns(
            stack, T, B, <double>count(parts, slices) / parts), longest)
    slices = <int>min(threads, 2 * stack.L)
    if slices > 1 and stack.D == 1 and not is_ragged:
        # Shorter blocks: the first slice is alone in the first one, the last in the last.
        block = max(1, min(block, max(min(count(T, 16), BLOCK_ROWS), count(8, B))))
        phases = count(T, block) + slices - 1
        longest = cut_stages(stack, block, B, slices, NULL)
        consider(&choice, PIPELINE, slices, block, phases * (PHASE_NS + longest), longest)
    call.kind = choice.kind
    call.slices = call.threads = choice.slices
    call.block = choice.block
    call.longest = choice.longest
    call.chunk = call.block if stack.D == 1 else T


cdef struct Choice:
    # The best plan so far, by its time.
    int only
    Kind kind
    int slices
    Py_ssize_t block
    double time, longest


cdef void consider(
    Choice *choice, Kind kind, int slices, Py_ssize_t block, double time, double longest,
) noexcept nogil:
    """Take a plan if it is better than the one so far."""
    time += START_NS
    if choice.only == <int>kind or (choice.only < 0 and time < choice.time):
        choice.kind = kind
        choice.slices = slices
        choice.block = block
        choice.time = time
        choice.longest = longest


# ---------------------------------------------------------------- rows and steps

cdef inline char *row_at(const Rows *rows, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    if rows.order != NULL:
        b = rows.order[b]
    return rows.data + (t - rows.first) * rows.step + b * rows.row


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


cdef inline bint is_blas_stride(
    Py_ssize_t stride, Py_ssize_t columns, Py_ssize_t itemsize,
) noexcept nogil:
    return (
        stride % itemsize == 0
        and columns * itemsize <= stride <= <Py_ssize_t>INT_MAX * itemsize
    )


cdef int longest_first(const void *left, const void *right) noexcept nogil:
    cdef const Row *a = <const Row *>left
    cdef const Row *b = <const Row *>right
    if a.length != b.length:
        return -1 if a.length > b.length else 1
    return -1 if a.index < b.index else 1


cdef inline void move_row(char *outside, char *inside, Py_ssize_t size, bint inward) noexcept nogil:
    if inward:
        memcpy(inside, outside, size)
    else:
        memcpy(outside, inside, size)


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


cdef void move_states(const Stack *stack, const Call *call, char *h, char *c, bint inward) noexcept nogil:
    """Copy the caller's states into sorted order, or back out of it."""
    cdef Py_ssize_t h_row = stack.output_size * stack.itemsize, c_row = stack.hidden_size * stack.itemsize
    cdef Py_ssize_t i, b, inside, outside
    for i in range(stack.L * stack.D):
        for b in range(call.B):
            inside = i * call.B + b
            outside = i * call.B + call.order[b]
            move_row(h + outside * h_row, call.own_h + inside * h_row, h_row, inward)
            if c != NULL:
                move_row(c + outside * c_row, call.own_c + inside * c_row, c_row, inward)


cdef void clear_padding(const Stack *stack, const Call *call) noexcept nogil:
    cdef Py_ssize_t b, t
    for b in range(call.B):
        for t in range(call.lengths[b], call.T):
            memset(row_at(&call.target, t, b), 0, stack.D * stack.output_size * stack.itemsize)


# ---------------------------------------------------------------- one direction of one layer

cdef struct Lane:
    # One direction of one layer over a block of time.
    const frnn_cell *cell
    bint is_reverse
    Py_ssize_t begin, end       # its steps
    Rows x, y
    char *h                     # (B, P): the state before, and then that of every row behind its last step
    char *c                     # (B, H), or NULL
    bint is_in_place            # h goes straight to y
    bint is_lone                # one step, which projects its own inputs, block by block of its weights
    Py_ssize_t ld_next
    Scratch *scratch


cdef Lane lane_of(
    const Stack *stack, const Call *call, Py_ssize_t layer, Py_ssize_t direction,
    Py_ssize_t begin, Py_ssize_t end, Scratch *scratch,
) noexcept nogil:
    """The lane of a layer and direction, begin to end; its chunk of time holds them."""
    cdef Lane lane
    cdef Py_ssize_t i = layer * stack.D + direction
    cdef Py_ssize_t chunk = begin // call.chunk
    lane.cell = stack.cells[i]
    lane.is_reverse = direction == 1
    lane.begin = begin
    lane.end = end
    lane.x = call.source if layer == 0 else between(stack, call, layer - 1, chunk)
    lane.y = call.target if layer == stack.L - 1 else between(stack, call, layer, chunk)
    lane.y.data += direction * stack.output_size * stack.itemsize
    lane.h = call.h + i * call.h_layer
    lane.c = call.c + i * call.c_layer if stack.has_cell_state else NULL
    lane.is_in_place = (
        lane.y.order == NULL
        and (call.lengths == NULL or not lane.is_reverse)
        and is_blas_stride(lane.y.row, stack.output_size, stack.itemsize)
    )
    # In a pipeline the inputs of a step may be gone when it is made.
    lane.is_lone = end - begin == 1 and call.kind != PIPELINE
    lane.ld_next = lane.y.row // stack.itemsize if lane.is_in_place else stack.output_size
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


cdef void gather(const Stack *stack, const Call *call, const Lane *lane) noexcept nogil:
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
        inputs.stride = stride // stack.itemsize
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
    return lane.scratch.output[s % 2]


cdef void project(
    const Stack *stack, const Lane *lane, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef const Inputs *inputs = &lane.scratch.inputs
    stack.backend.project(
        lane.cell, first, last, inputs.rows, inputs.data, inputs.stride, lane.scratch.gates)


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
    step.c = lane.c
    step.scratch = lane.scratch.step
    step.first = 0
    step.last = stack.backend.parts(lane.cell)


cdef inline void aim_step(
    const Stack *stack, const Call *call, const Lane *lane, Py_ssize_t s, frnn_step *step,
) noexcept nogil:
    """Point a step at its gates and at h before and after it."""
    cdef const Inputs *inputs = &lane.scratch.inputs
    if inputs.first >= 0:
        step.row = (time_of(call, lane.is_reverse, s, 0) - inputs.first) * call.B
    step.h_prev = lane.h if s == lane.begin else next_h(call, lane, s - 1)
    step.ld_prev = stack.output_size if s == lane.begin else lane.ld_next
    step.h_next = next_h(call, lane, s)
    step.is_odd = (s + call.parity) % 2


cdef void run_steps(const Stack *stack, const Call *call, const Lane *lane) noexcept nogil:
    """Make the steps of a lane that is projected."""
    cdef frnn_step step
    cdef Py_ssize_t s, b, n_after, h_row = stack.output_size * stack.itemsize
    begin_step(stack, call, lane, &step)
    for s in range(lane.begin, lane.end):
        aim_step(stack, call, lane, s, &step)
        stack.backend.step(lane.cell, &step)
        step.row += step.n
        if not lane.is_in_place:
            for b in range(step.n):
                memcpy(
                    row_at(&lane.y, time_of(call, lane.is_reverse, s, b), b),
                    <char *>step.h_next + b * h_row, h_row,
                )
        n_after = running(call, s + 1, step.n) if s + 1 < lane.end else 0
        for b in range(n_after, step.n):
            memcpy(lane.h + b * h_row, <char *>step.h_next + b * lane.ld_next * stack.itemsize, h_row)
        step.n = n_after


cdef void run_lane(const Stack *stack, const Call *call, const Lane *lane) noexcept nogil:
    gather(stack, call, lane)
    if not lane.is_lone:
        project(stack, lane, 0, stack.backend.parts(lane.cell))
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

cdef Py_ssize_t divide_rows(const Stack *stack, Call *call) noexcept nogil:
    """Give every slice its rows, those with lengths by their sum; the phases are chunks of time."""
    cdef Py_ssize_t first = 0, last, phases = 1, total = 0, so_far = 0, b
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
            while last < call.B - (call.slices - 1 - part) and (
                last == first or part == call.slices - 1
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
        own.block = max(1, min(block_of(stack, own.T, last - first), own.block * own.B // (last - first)))
        own.B = last - first
        own.chunk = own.block if stack.D == 1 else own.T
        own.h = call.h + first * stack.output_size * stack.itemsize
        own.c = call.c + first * stack.hidden_size * stack.itemsize if stack.has_cell_state else NULL
        own.h_layer = call.h_layer
        own.c_layer = call.c_layer
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


cdef void run_panels(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Work *work = <const Work *>context
    cdef const Stack *stack = work.stack
    cdef const Call *call = work.call
    cdef Py_ssize_t lanes = stack.L * stack.D, whole = lane_phases(call.block)
    cdef Py_ssize_t block, index, begin, end, parts, first, last, s, b
    cdef uint64_t before
    cdef frnn_step step
    cdef Lane lane
    # Which lane that is: block by block of a chunk, layer by layer, direction by direction.
    if stack.D == 1:
        block = min(phase // (whole * lanes), call.T // call.block)
        phase -= block * whole * lanes
        begin = block * call.block
        end = min(begin + call.block, call.T)
        index = phase // lane_phases(end - begin)
        phase %= lane_phases(end - begin)
    else:
        index = phase // (panel_phases(stack, call) // lanes)
        phase %= panel_phases(stack, call) // lanes
        block = min(phase // whole, call.T // call.block)
        phase -= block * whole
        begin = block * call.block
        end = min(begin + call.block, call.T)
    lane = lane_of(stack, call, index // stack.D, index % stack.D, begin, end, &call.scratches[slice])
    gather(stack, call, &lane)
    parts = stack.backend.parts(lane.cell)
    first = rows_before(parts, slice, call.slices)
    last = rows_before(parts, slice + 1, call.slices)
    before = stack.backend.enter()
    s = begin + phase - (end - begin > 1)
    if s < begin:
        project(stack, &lane, first, last)
    elif s < end:
        begin_step(stack, call, &lane, &step)
        aim_step(stack, call, &lane, s, &step)
        step.first = first
        step.last = last
        stack.backend.step(lane.cell, &step)
    elif slice == 0:
        for b in range(call.B):
            memcpy(
                lane.h + b * stack.output_size * stack.itemsize,
                next_h(call, &lane, end - 1) + b * lane.ld_next * stack.itemsize,
                stack.output_size * stack.itemsize,
            )
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
        gather(stack, call, &lane)
        if not lane.is_lone:
            project(stack, &lane, 0, stack.backend.parts(lane.cell))
    stack.backend.leave(before)


# ---------------------------------------------------------------- a call

cdef bint is_dense(const Stack *stack, const Call *call) noexcept nogil:
    """Whether inputs and outputs lie so that the units of a step can be divided."""
    return (
        (call.B == 1 or call.block == 1 or call.source.row * call.B == call.source.step)
        and is_blas_stride(
            call.source.step if call.B == 1 else call.source.row, stack.input_size, stack.itemsize)
        and is_blas_stride(call.target.row, stack.output_size, stack.itemsize)
    )


cdef void execute(
    const Stack *stack, Call *call, Rows source, Rows target, char *h, char *c, const Py_ssize_t *lengths,
) noexcept nogil:
    """Run a call that is planned and laid out."""
    cdef Work work
    cdef Py_ssize_t begin = 0
    cdef uint64_t before
    work.stack = stack
    work.call = call
    call.h_layer = call.B * stack.output_size * stack.itemsize
    call.c_layer = call.B * stack.hidden_size * stack.itemsize
    call.lengths = source.order = target.order = NULL
    call.h = h
    call.c = c
    if lengths != NULL:
        sort(call, lengths)
        call.lengths = call.sorted_lengths
        source.order = target.order = call.order
        move_states(stack, call, h, c, True)
        call.h = call.own_h
        call.c = call.own_c
    call.source = source
    call.target = target
    if call.kind == ROWS:
        frnn_share(run_rows, &work, divide_rows(stack, call), call.slices, call.threads, call.longest)
    elif call.kind == DIRECTIONS:
        frnn_share(run_direction, &work, stack.L * count(call.T, call.block), 2, call.threads, call.longest)
    elif call.kind == PANELS and is_dense(stack, call):
        frnn_share(run_panels, &work, panel_phases(stack, call), call.slices, call.threads, call.longest)
    elif call.kind == PIPELINE:
        cut_stages(stack, call.block, call.B, call.slices, call.stages)
        frnn_share(
            run_stages, &work, count(call.T, call.block) + call.slices - 1, call.slices, call.threads,
            call.longest,
        )
    else:
        before = stack.backend.enter()
        while begin < call.T:
            run_chunk(stack, call, begin, min(begin + call.chunk, call.T))
            begin += call.chunk
        stack.backend.leave(before)
    if lengths != NULL:
        move_states(stack, call, h, c, False)
        clear_padding(stack, call)


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
    cdef double products = <double>n * cell.input_size * cell.hidden_size
    work.backend = backend
    work.cell = cell
    work.n = n
    work.x = <const char *>x
    work.out = <char *>out
    work.slices = 1
    if threads > 1 and n >= 2 * SLICE_ROWS and products / PRODUCTS_PER_NS > 4 * START_NS:
        work.slices = <int>min(frnn_available(threads), n // SLICE_ROWS)
    frnn_share(run_dense_rows, &work, 1, work.slices, work.slices, products / PRODUCTS_PER_NS)
