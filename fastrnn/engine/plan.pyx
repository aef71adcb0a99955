"""How a call is divided among threads, and how its passes are made.

A call is planned once, as a grid of phases and slices for the team (threads/threads.h). Of the ways to
divide it (`list_candidates`), the one is chosen that should end first: by the cost model (cost.pxd), and by
what sharing costs on these cores at the moment. Every number is the same sum in every plan, so the bits are
the same too. What a slice does in a phase is said in divisions.pyx.
"""

from fastrnn.engine.addresses cimport elements, is_blas_stride
from fastrnn.engine.call cimport BETWEEN, OUTSIDE, PassPlan
from fastrnn.engine.cost cimport exchange_ns, project_ns, stack_ns, stage_ns
from fastrnn.engine.memory_layout cimport bytes_of
from fastrnn.engine.blocks cimport (
    BLOCK_ROWS, SLICE_ROWS, Shape, block_of, count, cut, parts_of, rows_before, short_block,
)
from fastrnn.engine.threads.team cimport available, sharing_cost_now, frnn_sharing_cost

cdef double START_NS = 4000             # to bring the threads together
cdef double WORTH = 0.85                # a plan that takes more of the time alone is not worth its threads
cdef double COUNTED_NS = 20000          # a caller that works alone for longer than this is counted

# What it costs to share work, until that was measured, and at the least.
cdef frnn_sharing_cost USUAL = frnn_sharing_cost(phase_ns=150, slowdown=1)
cdef frnn_sharing_cost LEAST = frnn_sharing_cost(phase_ns=0, slowdown=1)

cdef enum:
    MOST_CANDIDATES = 5


cdef struct Candidate:
    # A way to divide a call.
    Division division
    int slices
    Py_ssize_t phases
    double work_ns              # of all phases
    double longest_ns           # of a slice of a phase
    Py_ssize_t first[FRNN_MOST_THREADS + 1]     # as in a plan
    Shape shapes[FRNN_MOST_THREADS]             # BY_ROWS: (slices,); else that of the call


cdef struct Candidates:
    # Those of a call. The first is ALONE.
    int count
    Candidate each[MOST_CANDIDATES]


# ---------------------------------------------------------------- choosing

cdef void make_plan(const Stack *stack, Plan *plan, Policy policy) noexcept nogil:
    """Plan the call that is requested for the threads that are free now."""
    cdef Candidates found
    cdef const Candidate *best
    cdef int free
    list_candidates(stack, &found, &plan.request, policy)
    best = choose(&found, policy, NULL)
    if best.division != ALONE and policy.division < 0:
        free = available(best.slices)
        if free < best.slices:
            policy.threads = free
            list_candidates(stack, &found, &plan.request, policy)
            best = choose(&found, policy, NULL)
    write_plan(stack, plan, best)


cdef void plan_for(
    const Stack *stack, Plan *plan, Policy policy, frnn_sharing_cost sharing,
) noexcept nogil:
    """The plan if all threads of the policy are free and sharing costs this."""
    cdef Candidates found
    list_candidates(stack, &found, &plan.request, policy)
    write_plan(stack, plan, choose(&found, policy, &sharing))


cdef size_t room(const Stack *stack, const Request *request, Policy policy) noexcept nogil:
    """The bytes that such calls want at most, whatever their lengths, whatever threads are free and whatever
    sharing costs."""
    cdef Candidates found
    cdef PassPlan passes[FRNN_MOST_THREADS]
    cdef Plan plan
    cdef Policy fewer = policy
    cdef size_t size = 0
    cdef int threads, i
    plan.passes = passes
    plan.request = request[0]
    plan.request.lengths = NULL
    for threads in range(1, policy.threads + 1):
        fewer.threads = threads
        list_candidates(stack, &found, &plan.request, fewer)
        for i in range(found.count):
            if i == 0 or policy.division >= 0 or shared_ns(&found.each[i], LEAST) < worth_ns(&found):
                write_plan(stack, &plan, &found.each[i])
                size = max(size, plan.bytes)
    return size


cdef bint may_divide(const Stack *stack, const Request *request, Policy policy) noexcept nogil:
    """Whether such calls are divided if all threads are free and sharing costs the least."""
    cdef Candidates found
    list_candidates(stack, &found, request, policy)
    return choose(&found, policy, &LEAST).division != ALONE


cdef const Candidate *choose(
    const Candidates *found, Policy policy, const frnn_sharing_cost *sharing,
) noexcept nogil:
    """The one that should end first if sharing costs this (NULL: what it costs now)."""
    cdef const Candidate *best = &found.each[0]
    cdef double time, least = worth_ns(found)
    cdef int i
    for i in range(1, found.count):
        time = shared_ns(
            &found.each[i],
            sharing_cost_now(found.each[i].slices, USUAL) if sharing == NULL else sharing[0])
        if policy.division >= 0 or time < least:
            best = &found.each[i]
            least = time
    return best


cdef inline double worth_ns(const Candidates *found) noexcept nogil:
    """The time that is not worth several threads."""
    return found.each[0].work_ns * WORTH


cdef inline double shared_ns(const Candidate *candidate, frnn_sharing_cost cost) noexcept nogil:
    return START_NS + candidate.phases * cost.phase_ns + candidate.work_ns * cost.slowdown


# ---------------------------------------------------------------- the ways to divide a call

cdef void list_candidates(
    const Stack *stack, Candidates *found, const Request *request, Policy policy,
) noexcept nogil:
    """One thread alone, and the ways to divide the call that the policy allows."""
    cdef Candidate *alone = &found.each[0]
    cdef int threads = policy.threads
    alone.division = ALONE
    alone.slices = 1
    alone.phases = 1
    alone.work_ns = alone.longest_ns = stack_ns(stack, request.T, request.B, 1)
    alone.shapes[0] = cut(stack, request.T, request.B, block_of(stack, request.T, request.B, 1))
    found.count = 1
    if threads < 2 or (worth_ns(found) < START_NS and policy.division < 0):
        return
    if is_allowed(BY_ROWS, policy) and by_rows(stack, &found.each[found.count], request, threads):
        found.count += 1
    if is_allowed(BY_DIRECTION, policy) and by_direction(stack, &found.each[found.count], alone):
        found.count += 1
    if is_allowed(BY_UNITS, policy) and by_units(stack, &found.each[found.count], request, threads):
        found.count += 1
    if is_allowed(PIPELINED, policy) and pipelined(stack, &found.each[found.count], request, threads):
        found.count += 1


cdef inline bint is_allowed(Division division, Policy policy) noexcept nogil:
    return policy.division < 0 or policy.division == <int>division


cdef bint by_rows(
    const Stack *stack, Candidate *candidate, const Request *request, int threads,
) noexcept nogil:
    """As many slices as threads, each through all time and layers; whether there is such a candidate."""
    candidate.division = BY_ROWS
    candidate.slices = <int>min(threads, request.B // SLICE_ROWS)
    if candidate.slices < 2:
        return False
    candidate.work_ns = stack_ns(stack, request.T, count(request.B, candidate.slices), 1)
    share_rows(stack, candidate, request)
    candidate.longest_ns = candidate.work_ns / candidate.phases
    return True


cdef void share_rows(const Stack *stack, Candidate *candidate, const Request *request) noexcept nogil:
    """Give every slice its rows: as many as the others; with lengths, as many steps as the others."""
    cdef const Py_ssize_t *lengths = request.lengths
    cdef Py_ssize_t T = request.T, B = request.B, first = 0, last, total = 0, so_far = 0, b, block
    cdef int slices = candidate.slices, slice
    # With lengths a slice may have twice as many rows as in even shares. Its memory is that of this many,
    # whatever it gets.
    cdef Py_ssize_t most = min(B, 2 * count(B, slices))
    cdef Py_ssize_t most_block = block_of(stack, T, most, 1)
    candidate.phases = 1
    if lengths != NULL:
        for b in range(B):
            total += lengths[b]
    for slice in range(slices):
        if not request.is_ragged:
            last = rows_before(B, slice + 1, slices)
            block = block_of(stack, T, last - first, 1)
        elif lengths == NULL:
            last = first + most
            block = most_block
        else:
            last = first
            while last < B - (slices - 1 - slice) and last < first + most and (
                last == first or B - last > (slices - 1 - slice) * most
                or (so_far + lengths[last] // 2) * slices < total * (slice + 1)
            ):
                so_far += lengths[last]
                last += 1
            T = lengths[first]
            block = max(1, min(block_of(stack, T, last - first, 1), most_block * most // (last - first)))
        candidate.first[slice] = first
        candidate.shapes[slice] = cut(stack, T, last - first, block)
        candidate.phases = max(candidate.phases, count(T, candidate.shapes[slice].sweep))
        first = last
    candidate.first[slices] = first


cdef bint by_direction(
    const Stack *stack, Candidate *candidate, const Candidate *alone,
) noexcept nogil:
    if stack.D < 2:
        return False
    candidate.division = BY_DIRECTION
    candidate.slices = 2
    candidate.shapes[0] = alone.shapes[0]
    candidate.phases = stack.L * count(alone.shapes[0].T, alone.shapes[0].block)
    candidate.work_ns = alone.work_ns / 2
    candidate.longest_ns = candidate.work_ns / candidate.phases
    return True


cdef bint by_units(
    const Stack *stack, Candidate *candidate, const Request *request, int threads,
) noexcept nogil:
    """A slice computes some parts of every cell: all cells of a stack have the same ones."""
    cdef Py_ssize_t T = request.T, B = request.B, parts = parts_of(stack, stack.cells[0]), block, rest
    cdef int slices = <int>min(threads, parts), slice
    cdef double share
    if slices < 2 or stack.cells[0].w_hr.data != NULL or request.is_ragged:
        return False
    share = <double>count(parts, slices) / parts
    block = block_of(stack, T, B, slices)
    rest = T % block
    candidate.division = BY_UNITS
    candidate.slices = slices
    candidate.shapes[0] = cut(stack, T, B, block)
    candidate.phases = stack.L * stack.D * (
        T // block * pass_phases(stack, block) + (pass_phases(stack, rest) if rest else 0))
    candidate.longest_ns = project_ns(stack, stack.L - 1, block, B, share)
    candidate.work_ns = stack.L * stack.D * T * exchange_ns(stack, B, slices)
    candidate.work_ns += stack_ns(stack, T, B, share)
    for slice in range(slices + 1):
        candidate.first[slice] = rows_before(parts, slice, slices)
    return True


cdef inline Py_ssize_t pass_phases(const Stack *stack, Py_ssize_t steps) noexcept nogil:
    """Of a pass that is divided by units: its projection, unless a lone step makes that too, its steps, and
    leaving its state."""
    return steps + 1 + (steps > 1 or not stack.steps_take_x)


cdef bint pipelined(
    const Stack *stack, Candidate *candidate, const Request *request, int threads,
) noexcept nogil:
    """A slice makes some of the stages of every block."""
    cdef Py_ssize_t T = request.T, B = request.B, block
    if stack.D > 1 or request.is_ragged:
        return False
    candidate.division = PIPELINED
    candidate.slices = <int>min(threads, 2 * stack.L)
    # Shorter blocks: the first slice is alone in the first one, the last in the last.
    block = max(1, min(short_block(stack, T, B), max(min(count(T, 16), BLOCK_ROWS), count(8, B))))
    candidate.shapes[0] = cut(stack, T, B, block)
    candidate.phases = count(T, block) + candidate.slices - 1
    share_stages(stack, candidate, block, B)
    candidate.work_ns = candidate.phases * candidate.longest_ns
    return True


cdef void share_stages(
    const Stack *stack, Candidate *candidate, Py_ssize_t steps, Py_ssize_t rows,
) noexcept nogil:
    """Give every slice its stages of a block, in order and evenly."""
    cdef double total = 0, done = 0, longest = 0, own = 0
    cdef int slices = candidate.slices, stages = <int>(2 * stack.L), stage, slice = 0
    for stage in range(stages):
        total += stage_ns(stack, stage, steps, rows)
    candidate.first[0] = 0
    for stage in range(stages):
        own += stage_ns(stack, stage, steps, rows)
        done += stage_ns(stack, stage, steps, rows)
        longest = max(longest, own)
        # A slice ends where its share of the whole is reached, or each stage left needs a slice of its own.
        if slice < slices - 1 and (
            done + (stage_ns(stack, stage + 1, steps, rows) if stage + 1 < stages else 0) / 2
            >= total * (slice + 1) / slices
            or stages - stage - 1 == slices - 1 - slice
        ):
            slice += 1
            own = 0
            candidate.first[slice] = stage + 1
    candidate.first[slices] = stages
    candidate.longest_ns = longest


# ---------------------------------------------------------------- what a plan says

cdef void write_plan(const Stack *stack, Plan *plan, const Candidate *chosen) noexcept nogil:
    """Let the plan be that of the candidate that was chosen."""
    cdef int slice
    plan.division = chosen.division
    plan.slices = chosen.slices
    plan.phases = chosen.phases
    plan.is_counted = plan.division == ALONE and chosen.work_ns > COUNTED_NS
    plan.longest_ns = chosen.longest_ns
    plan.scratches = 1
    if plan.division == BY_DIRECTION or plan.division == BY_UNITS:
        plan.scratches = plan.slices
    elif plan.division == PIPELINED:
        plan.scratches = <int>(2 * stack.L)
    if plan.division == BY_ROWS or plan.division == BY_UNITS or plan.division == PIPELINED:
        for slice in range(plan.slices + 1):
            plan.first[slice] = chosen.first[slice]
    for slice in range(plan.slices if plan.division == BY_ROWS else 1):
        plan_passes(
            stack, &plan.passes[slice], &plan.request, chosen.shapes[slice],
            chosen.first[slice] if plan.division == BY_ROWS else 0, plan.division == PIPELINED)
    plan.bytes = bytes_of(stack, plan)


cdef void plan_passes(
    const Stack *stack, PassPlan *passes, const Request *request, Shape shape, Py_ssize_t first,
    bint is_pipelined,
) noexcept nogil:
    """Decide how the passes over some rows are made; `first` is the first of these rows."""
    cdef Py_ssize_t B = shape.B, stride = request.source.step if B == 1 else request.source.row
    cdef Py_ssize_t direct_steps, i
    cdef bint is_in_place, is_ragged = request.is_ragged
    passes.shape = shape
    passes.parts = parts_of(stack, stack.cells[0])
    passes.is_pipelined = is_pipelined
    # In a pipeline the inputs of a step may be gone when it is made.
    passes.projected_steps = 1 if is_pipelined or not stack.steps_take_x else 2
    passes.common_steps = shape.T if request.lengths == NULL else request.lengths[first + B - 1]
    # The caller's rows are in order of length only where all have the same.
    direct_steps = 0
    if not is_ragged and is_blas_stride(stack, stride, stack.input_size):
        direct_steps = shape.T if B == 1 or request.source.row * B == request.source.step else 1
    is_in_place = (
        not is_ragged and is_blas_stride(stack, request.target.row, stack.output_size)
        and is_roomy(stack, &shape, elements(stack, request.target.row)))
    passes.direct_steps[OUTSIDE][0] = passes.direct_steps[OUTSIDE][1] = direct_steps
    passes.is_in_place[OUTSIDE][0] = passes.is_in_place[OUTSIDE][1] = is_in_place
    # A step of the reverse direction is another time step of each row that has a length.
    is_in_place = stack.L > 1 and is_roomy(stack, &shape, stack.D * stack.output_size)
    passes.direct_steps[BETWEEN][0] = shape.T
    passes.direct_steps[BETWEEN][1] = 0 if is_ragged else shape.T
    passes.is_in_place[BETWEEN][0] = is_in_place
    passes.is_in_place[BETWEEN][1] = is_in_place and not is_ragged
    passes.ld_h = stack.backend.apart(B, stack.output_size)
    passes.ld_c = stack.backend.apart(B, stack.hidden_size)
    # Of rows that crowd, and of rows with lengths: in their order two threads would write to one cache line.
    # LSTM of 16 units, 64 rows on two threads takes 0.93 of the time this way.
    passes.is_c_apart = stack.has_cell_state and (
        is_ragged or (shape.T > 1 and passes.ld_c > stack.hidden_size))
    passes.backend_bytes = 0
    for i in range(stack.L * stack.D):
        passes.backend_bytes = max(
            passes.backend_bytes,
            stack.cells[i].w_ih.products.project_bytes(stack.cells[i], shape.block * B),
            stack.cells[i].w_hh.products.step_bytes(stack.cells[i], B))


cdef inline bint is_roomy(const Stack *stack, const Shape *shape, Py_ssize_t columns) noexcept nogil:
    """Whether steps may leave h at this distance: rows that crowd are kept apart, unless there is but one
    step."""
    return shape.T == 1 or stack.backend.apart(shape.B, columns) == columns


# ---------------------------------------------------------------- work without phases

cdef bint is_worth_dividing(double time, Py_ssize_t most) noexcept nogil:
    """Whether work that takes one core this many nanoseconds, and makes that many slices at most, is divided
    among threads that are free."""
    return most > 1 and time >= 4 * START_NS


cdef int slices_of(double time, Py_ssize_t most, int threads) noexcept nogil:
    """How many slices it has now."""
    return <int>min(available(threads), most) if threads > 1 and is_worth_dividing(time, most) else 1
