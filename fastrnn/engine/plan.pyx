"""How a call is divided among threads, and where its memory lies.

A call is planned once, as a grid of phases and slices for threads/threads.h: whatever takes the least time
by a cost model, which knows what sharing work costs on these cores at the moment. The sums behind every
number are the same in every plan, so the bits are too. What a slice does in a phase is the drivers' matter
(_drivers.pyx).
"""

from fastrnn.engine.backend cimport frnn_cell
from fastrnn.engine.threads.team cimport available, frnn_sharing_cost, sharing_cost_now

# A block's gates should stay in the second-level cache while its steps use them up, but a projection of fewer
# rows than these wastes the weights that it reads.
cdef Py_ssize_t BLOCK_BYTES = 256 * 1024
cdef Py_ssize_t BLOCK_ROWS = 64
# The weights of a wide input drive the recurrent ones out of that cache, block by block. So a batch's blocks
# may be as high as its input is wide, which makes the weights that are read for a row as many as its gates;
# up to so many rows, steps and bytes. LSTM 256->256, 100x32 and 1024->1024, 10x64 take 0.97 and 0.93
# of the time that blocks of 64 rows take (Granite Rapids, builds in turns).
cdef Py_ssize_t WIDE_ROWS = 256
cdef Py_ssize_t WIDE_STEPS = 16
cdef Py_ssize_t WIDE_BYTES = 4 * 1024 * 1024
# Rows that a slice of a batch should have: fewer use the weights that they read badly.
cdef Py_ssize_t SLICE_ROWS = 4

# The cost model: nanoseconds of one core, of a kind from about 2020 on. What sharing costs is measured and
# stands beside them, so they should be about right; an error of half or double changes the plan of calls
# alone that gain little either way.
cdef double PRODUCTS_PER_NS = 70        # multiply-adds of float32
cdef double NEAR_BYTES_PER_NS = 140     # weights read from the second-level cache
cdef double FAR_BYTES_PER_NS = 100      # and from beyond
cdef double NEAR_BYTES = 512 * 1024    # that stay there from step to step
cdef double SHOWN = 0.2                 # of the shorter of the two: does not hide behind the longer
cdef double EXCHANGED_BYTES_PER_NS = 20  # of h that another core wrote
cdef double STEP_NS = 60                # a step besides its products
cdef double START_NS = 4000             # of sharing work at all
cdef double WORTH = 0.85                # of the time alone: a plan that takes more is not worth its threads

# The sharing cost that is taken for granted until a trial has measured it, and the least there can be.
cdef frnn_sharing_cost USUAL = frnn_sharing_cost(phase_ns=150, slowdown=1)
cdef frnn_sharing_cost LEAST = frnn_sharing_cost(phase_ns=0, slowdown=1)


# ---------------------------------------------------------------- planning

cdef Py_ssize_t count(Py_ssize_t whole, Py_ssize_t part) noexcept nogil:
    """How many parts of a size it takes."""
    return (whole + part - 1) // part


cdef Py_ssize_t parts_of(const Stack *stack, const frnn_cell *cell) noexcept nogil:
    """How many parts a cell has, which several threads may compute at the same time."""
    return count(cell.hidden_size, stack.backend.part_units(cell))


cdef Py_ssize_t widest_input(const Stack *stack) noexcept nogil:
    """The columns of what the layers of a stack read, at most."""
    return max(stack.input_size, stack.D * stack.output_size if stack.L > 1 else 0)


cdef Py_ssize_t short_block(const Stack *stack, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """The time steps of a block where the input is narrow, or blocks should be short."""
    return max(1, min(T, max(BLOCK_BYTES // stack.gate_bytes, BLOCK_ROWS) // B))


cdef Py_ssize_t block_of(const Stack *stack, Py_ssize_t T, Py_ssize_t B, int slices) noexcept nogil:
    """The time steps of a block of which so many slices may each have the inputs."""
    cdef Py_ssize_t columns = widest_input(stack)
    cdef Py_ssize_t row_bytes = max(stack.gate_bytes, slices * columns * stack.itemsize)
    cdef Py_ssize_t wide = min(min(columns, WIDE_ROWS), min(WIDE_STEPS * B, WIDE_BYTES // row_bytes))
    return max(short_block(stack, T, B), min(T, wide // B))


cdef Py_ssize_t rows_before(Py_ssize_t rows, int part, int parts) noexcept nogil:
    """Where a part of evenly divided rows begins."""
    return rows * part // parts


cdef Py_ssize_t most_rows(Py_ssize_t B, int slices) noexcept nogil:
    """How many rows a slice of a ragged batch has at most: they are divided by their lengths, which are not
    known when memory is laid out."""
    return min(B, 2 * count(B, slices))


cdef double pass_ns(const Stack *stack, Py_ssize_t columns, double rows, double share) noexcept nogil:
    """A pass of some rows over a share of one cell's weights of so many columns."""
    cdef double weights = <double>columns * stack.hidden_size * stack.cells[0].gates * share
    cdef double size = weights * stack.itemsize
    cdef double products = rows * weights * stack.itemsize / 4 / PRODUCTS_PER_NS
    cdef double far = max(0.0, size - NEAR_BYTES)
    cdef double reading = (size - far) / NEAR_BYTES_PER_NS + far / FAR_BYTES_PER_NS
    return max(products, reading) + SHOWN * min(products, reading)


cdef double exchange_ns(const Stack *stack, double rows, int slices) noexcept nogil:
    """Fetching the h that the other slices of a step wrote."""
    cdef double size = rows * stack.output_size * stack.itemsize
    return size * (slices - 1) / slices / EXCHANGED_BYTES_PER_NS


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
    """Choose how to divide T steps of B rows now: whatever takes the least time by the cost model. Gives the
    memory that is wanted.

    threads is the most that may be used; fewer are, where other calls have them.
    """
    cdef int free
    choose(stack, call, T, B, is_ragged, threads, NULL)
    if call.kind != ALONE and stack.only < 0:
        free = available(call.slices)
        if free < call.slices:
            choose(stack, call, T, B, is_ragged, free, NULL)
    return lay_out(stack, call, NULL, is_ragged)


cdef size_t room(const Stack *stack, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads) noexcept nogil:
    """The memory that such calls want, however many threads are free then and whatever sharing costs."""
    cdef size_t size = 0
    cdef Call call
    cdef frnn_sharing_cost cost
    cdef int free
    for free in range(1, threads + 1):
        cost = LEAST
        while cost.phase_ns <= 2000:
            choose(stack, &call, T, B, is_ragged, free, &cost)
            size = max(size, lay_out(stack, &call, NULL, is_ragged))
            if call.kind == ALONE:  # and so it is where a phase costs more
                break
            cost.phase_ns = max(125, 2 * cost.phase_ns)
    return size


cdef void choose(
    const Stack *stack, Call *call, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads,
    const frnn_sharing_cost *cost,
) noexcept nogil:
    """The plan, if this many threads are free at this sharing cost; NULL: what it is now."""
    cdef double phases, alone, longest, work
    cdef Py_ssize_t block, parts, most
    cdef int slices
    cdef Choice choice
    call.T = T
    call.B = B
    alone = stack_ns(stack, T, B, 1)
    choice.only = stack.only
    choice.kind = ALONE
    choice.slices = 1
    choice.block = block_of(stack, T, B, 1)
    choice.longest = 0
    choice.time = alone * WORTH
    choice.cost = cost
    if choice.time < START_NS and choice.only < 0:
        threads = 1
    # Rows: as many slices as threads, each through all time and layers.
    slices = <int>min(threads, B // SLICE_ROWS)
    if slices > 1:
        most = count(B, slices)
        block = block_of(stack, T, most, 1)
        phases = count(T, block) if stack.D == 1 else 1
        longest = stack_ns(stack, T, most, 1)
        consider(&choice, ROWS, slices, choice.block, phases, longest, longest / phases)
    block = block_of(stack, T, B, 1)
    if threads > 1 and stack.D == 2:
        phases = stack.L * count(T, block)
        consider(&choice, DIRECTIONS, 2, block, phases, alone / 2, alone / 2 / phases)
    parts = parts_of(stack, stack.cells[0])
    slices = <int>min(threads, parts)
    if slices > 1 and stack.cells[0].w_hr == NULL and not is_ragged:
        block = block_of(stack, T, B, slices)
        phases = stack.L * stack.D * (T + count(T, block))
        longest = project_ns(stack, stack.L - 1, block, B, <double>count(parts, slices) / parts)
        work = stack.L * stack.D * T * exchange_ns(stack, B, slices)
        work += stack_ns(stack, T, B, <double>count(parts, slices) / parts)
        consider(&choice, PANELS, slices, block, phases, work, longest)
    slices = <int>min(threads, 2 * stack.L)
    if slices > 1 and stack.D == 1 and not is_ragged:
        # Shorter blocks: the first slice is alone in the first one, the last in the last.
        block = max(1, min(short_block(stack, T, B), max(min(count(T, 16), BLOCK_ROWS), count(8, B))))
        phases = count(T, block) + slices - 1
        longest = cut_stages(stack, block, B, slices, NULL)
        consider(&choice, PIPELINE, slices, block, phases, phases * longest, longest)
    call.kind = choice.kind
    call.slices = call.threads = choice.slices
    call.block = choice.block
    call.alone = alone
    call.longest = choice.longest
    call.chunk = call.block if stack.D == 1 else T


cdef struct Choice:
    # The best plan so far, by its time.
    int only
    const frnn_sharing_cost *cost
    Kind kind
    int slices
    Py_ssize_t block
    double time, longest


cdef void consider(
    Choice *choice, Kind kind, int slices, Py_ssize_t block,
    double phases, double work, double longest,
) noexcept nogil:
    """Take a plan of so many phases and nanoseconds of work, `longest` of them in a slice, if it is better
    than the one so far."""
    cdef frnn_sharing_cost cost = sharing_cost_now(slices, USUAL) if choice.cost == NULL else choice.cost[0]
    cdef double time = START_NS + phases * cost.phase_ns + work * cost.slowdown
    if choice.only == <int>kind or (choice.only < 0 and time < choice.time):
        choice.kind = kind
        choice.slices = slices
        choice.block = block
        choice.time = time
        choice.longest = longest


# ---------------------------------------------------------------- a projection alone

cdef double dense_ns(const frnn_cell *cell, Py_ssize_t n) noexcept nogil:
    return <double>n * cell.input_size * cell.hidden_size / PRODUCTS_PER_NS


cdef int dense_slices(const frnn_cell *cell, Py_ssize_t n, int threads) noexcept nogil:
    """Among how many threads the rows of a projection are divided."""
    return slices_of(dense_ns(cell, n), n // SLICE_ROWS, threads)


cdef int slices_of(double time, Py_ssize_t parts, int threads) noexcept nogil:
    """Among how many threads parts that do not depend on one another are divided, all of which take one core
    so many nanoseconds."""
    if threads == 1 or parts < 2 or time < 4 * START_NS:
        return 1
    return <int>min(available(threads), parts)


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
    cdef Py_ssize_t B = call.B
    cdef int part
    if is_ragged:
        call.sorting = <Row *>take(&cursor, B * sizeof(Row))
        call.order = <Py_ssize_t *>take(&cursor, B * sizeof(Py_ssize_t))
        call.sorted_lengths = <Py_ssize_t *>take(&cursor, B * sizeof(Py_ssize_t))
    if call.kind != ROWS:
        lay_out_scratch(stack, call, &cursor, is_ragged, memory == NULL)
        return cursor - memory
    call.parts = <Call *>take(&cursor, call.slices * sizeof(Call))
    cdef Call measured
    for part in range(call.slices):
        measured = call[0]
        measured.kind = ALONE
        measured.slices = 1
        if is_ragged:
            measured.B = most_rows(B, call.slices)
        else:
            measured.B = rows_before(B, part + 1, call.slices) - rows_before(B, part, call.slices)
        measured.block = block_of(stack, call.T, measured.B, 1)
        measured.chunk = measured.block if stack.D == 1 else call.T
        lay_out_scratch(stack, &measured, &cursor, is_ragged, memory == NULL)
        if memory != NULL:
            call.parts[part] = measured
    return cursor - memory


cdef void lay_out_kept(
    const Stack *stack, Call *call, char **cursor, bint is_ragged, bint is_measured,
) noexcept nogil:
    """Where states are apart: rows that crowd in the same sets of a cache, and those with lengths. LSTM
    512->512, 100x32 takes 0.99 of the time (Zen 4, builds in turns; with avx2 0.98)."""
    cdef Py_ssize_t B = call.B, i
    cdef Kept kept
    call.ld_h = stack.backend.apart(B, stack.output_size)
    call.ld_c = stack.backend.apart(B, stack.hidden_size)
    call.kept = <Kept *>take(cursor, stack.L * stack.D * sizeof(Kept))
    for i in range(stack.L * stack.D):
        kept.h[0] = take(cursor, B * call.ld_h * stack.itemsize)
        kept.h[1] = take(cursor, B * call.ld_h * stack.itemsize)
        kept.c = NULL
        # In the order of lengths two threads would write to one cache line: LSTM of 16 units, 64 rows on two
        # threads take 0.93 of the time this way (Zen 3, builds in turns).
        if stack.has_cell_state and (is_ragged or (call.T > 1 and call.ld_c > stack.hidden_size)):
            kept.c = take(cursor, B * call.ld_c * stack.itemsize)
        if not is_measured:
            call.kept[i] = kept


cdef void lay_out_scratch(
    const Stack *stack, Call *call, char **cursor, bint is_ragged, bint is_measured,
) noexcept nogil:
    cdef Py_ssize_t B = call.B, rows = call.block * call.B, size = 0, i
    cdef Py_ssize_t output_row = stack.D * stack.output_size * stack.itemsize
    cdef Py_ssize_t input_row = widest_input(stack) * stack.itemsize
    cdef int count = scratches_of(stack, call), number
    cdef Scratch scratch
    lay_out_kept(stack, call, cursor, is_ragged, is_measured)
    for i in range(stack.L * stack.D):
        size = max(size, <Py_ssize_t>stack.backend.project_bytes(stack.cells[i], rows))
        size = max(size, <Py_ssize_t>stack.backend.step_bytes(stack.cells[i], B))
    call.scratches = <Scratch *>take(cursor, count * sizeof(Scratch))
    for number in range(count):
        # The slices of a step share its gates, each its own part of them.
        if number == 0 or call.kind != PANELS:
            scratch.gates = take(cursor, rows * stack.gate_bytes)
        scratch.x = take(cursor, rows * input_row)
        scratch.step = take(cursor, size)
        scratch.h = take(cursor, B * stack.output_size * stack.itemsize)
        if not is_measured:
            call.scratches[number] = scratch
    call.between_slot = (call.chunk * B * output_row + 63) & ~63
    for i in range(2):
        size = call.between_slot if stack.L > i + 1 else 0
        if call.kind == PIPELINE:
            size = call.between_slot * (stack.L - 1)
        call.between[i] = take(cursor, size)
    if call.kind == PANELS:
        call.turns = <Turn *>take(cursor, call.slices * sizeof(Turn))
    if call.kind == PIPELINE:
        call.stages = <int *>take(cursor, (call.slices + 1) * sizeof(int))
