"""How a call is divided among threads.

A call is planned once, as a grid of phases and slices for the team (threads/threads.h). Of the ways to
divide it (`candidates`), the one is taken that should end first: by the cost model (cost.pxd), and by what
sharing costs on these cores at the moment. Every number is the same sum in every plan, so the bits are the
same too. What a slice does in a phase is said in divisions.pyx.
"""

from fastrnn.engine.cost cimport exchange_ns, project_ns, stack_ns, stage_ns
from fastrnn.engine.memory_layout cimport bytes_of
from fastrnn.engine.blocks cimport (
    BLOCK_ROWS, SLICE_ROWS, block_of, count, cut, parts_of, rows_before, short_block,
)
from fastrnn.engine.threads.team cimport available, sharing_cost_now, frnn_sharing_cost

cdef double START_NS = 4000             # to bring the threads together
cdef double WORTH = 0.85                # a plan that takes more of the time alone is not worth its threads

# What it costs to share work, until that was measured, and at the least.
cdef frnn_sharing_cost USUAL = frnn_sharing_cost(phase_ns=150, slowdown=1)
cdef frnn_sharing_cost LEAST = frnn_sharing_cost(phase_ns=0, slowdown=1)

cdef enum:
    MOST_CANDIDATES = 4


cdef struct Candidate:
    # A way to divide a call.
    Division division
    int slices
    Py_ssize_t block
    Py_ssize_t phases
    double work_ns              # of all phases
    double longest_ns           # of a slice of a phase


# ---------------------------------------------------------------- choosing

cdef void make_plan(
    const Stack *stack, Plan *plan, Py_ssize_t T, Py_ssize_t B, const Py_ssize_t *lengths, Policy policy,
) noexcept nogil:
    """Plan T steps of B rows for the threads that are free now; lengths (B,) are in order, longest first."""
    cdef int free
    plan_for(stack, plan, T, B, lengths != NULL, lengths, policy, NULL)
    if plan.division != ALONE and policy.division < 0:
        free = available(plan.slices)
        if free < plan.slices:
            policy.threads = free
            plan_for(stack, plan, T, B, lengths != NULL, lengths, policy, NULL)
    plan.bytes = bytes_of(stack, plan)


cdef void plan_for(
    const Stack *stack, Plan *plan, Py_ssize_t T, Py_ssize_t B, bint is_ragged, const Py_ssize_t *lengths,
    Policy policy, const frnn_sharing_cost *sharing,
) noexcept nogil:
    """The plan if all threads of the policy are free and sharing costs this (NULL: what it costs now). A
    ragged batch without lengths is planned for the most rows that a slice may have. Its bytes are not set."""
    cdef Candidate found[MOST_CANDIDATES]
    cdef Candidate best
    cdef frnn_sharing_cost cost
    cdef double time, least
    cdef int i
    plan.is_ragged = is_ragged
    plan.alone_ns = stack_ns(stack, T, B, 1)
    best.division = ALONE
    best.slices = 1
    best.phases = 1
    best.block = block_of(stack, T, B, 1)
    best.longest_ns = 0
    least = plan.alone_ns * WORTH
    for i in range(candidates(
        stack, found, plan.first_stages, T, B, is_ragged, policy, plan.alone_ns,
    )):
        cost = sharing_cost_now(found[i].slices, USUAL) if sharing == NULL else sharing[0]
        time = START_NS + found[i].phases * cost.phase_ns + found[i].work_ns * cost.slowdown
        if policy.division >= 0 or time < least:
            best = found[i]
            least = time
    take(stack, plan, T, B, lengths, &best)


cdef size_t room(
    const Stack *stack, Py_ssize_t T, Py_ssize_t B, bint is_ragged, Policy policy,
) noexcept nogil:
    """The bytes that such calls want at most, whatever threads are free and whatever sharing costs."""
    cdef Candidate found[MOST_CANDIDATES]
    cdef Plan plan
    cdef Policy fewer = policy
    cdef double alone = stack_ns(stack, T, B, 1)
    cdef size_t size
    cdef int threads, i
    plan_for(stack, &plan, T, B, is_ragged, NULL, Policy(1, -1), &LEAST)
    size = bytes_of(stack, &plan)
    for threads in range(2, policy.threads + 1):
        fewer.threads = threads
        for i in range(candidates(stack, found, plan.first_stages, T, B, is_ragged, fewer, alone)):
            if policy.division >= 0 or START_NS + found[i].work_ns < alone * WORTH:
                take(stack, &plan, T, B, NULL, &found[i])
                size = max(size, bytes_of(stack, &plan))
    return size


cdef int candidates(
    const Stack *stack, Candidate *found, int *first_stages, Py_ssize_t T, Py_ssize_t B, bint is_ragged,
    Policy policy, double alone,
) noexcept nogil:
    """The ways to divide T steps of B rows that the policy allows, and how many there are; the first stages
    of the slices of the one that is pipelined."""
    cdef Candidate way
    cdef int n = 0, threads = policy.threads
    cdef Py_ssize_t parts, most
    if threads < 2 or (alone * WORTH < START_NS and policy.division < 0):
        return 0
    # As many slices as threads, each through all time and layers.
    way.slices = <int>min(threads, B // SLICE_ROWS)
    if way.slices > 1 and is_allowed(BY_ROWS, policy):
        way.division = BY_ROWS
        most = count(B, way.slices)
        way.block = block_of(stack, T, B, 1)
        way.phases = count(T, block_of(stack, T, most, 1)) if stack.D == 1 else 1
        way.work_ns = stack_ns(stack, T, most, 1)
        way.longest_ns = way.work_ns / way.phases
        found[n] = way
        n += 1
    way.slices = 2
    if stack.D == 2 and is_allowed(BY_DIRECTION, policy):
        way.division = BY_DIRECTION
        way.block = block_of(stack, T, B, 1)
        way.phases = stack.L * count(T, way.block)
        way.work_ns = alone / 2
        way.longest_ns = way.work_ns / way.phases
        found[n] = way
        n += 1
    parts = parts_of(stack, stack.cells[0])
    way.slices = <int>min(threads, parts)
    if (
        way.slices > 1 and stack.cells[0].w_hr.data == NULL and not is_ragged
        and is_allowed(BY_UNITS, policy)
    ):
        way.division = BY_UNITS
        way.block = block_of(stack, T, B, way.slices)
        # By the cost model; the phases that a pass takes besides its steps differ by one or two.
        way.phases = stack.L * stack.D * (T + count(T, way.block))
        way.longest_ns = project_ns(
            stack, stack.L - 1, way.block, B, <double>count(parts, way.slices) / parts)
        way.work_ns = stack.L * stack.D * T * exchange_ns(stack, B, way.slices)
        way.work_ns += stack_ns(stack, T, B, <double>count(parts, way.slices) / parts)
        found[n] = way
        n += 1
    way.slices = <int>min(threads, 2 * stack.L)
    if way.slices > 1 and stack.D == 1 and not is_ragged and is_allowed(PIPELINED, policy):
        way.division = PIPELINED
        # Shorter blocks: the first slice is alone in the first one, the last in the last.
        way.block = max(1, min(short_block(stack, T, B), max(min(count(T, 16), BLOCK_ROWS), count(8, B))))
        way.phases = count(T, way.block) + way.slices - 1
        way.longest_ns = cut_stages(stack, way.block, B, way.slices, first_stages)
        way.work_ns = way.phases * way.longest_ns
        found[n] = way
        n += 1
    return n


cdef inline bint is_allowed(Division division, Policy policy) noexcept nogil:
    return policy.division < 0 or policy.division == <int>division


# ---------------------------------------------------------------- what a plan says

cdef void take(
    const Stack *stack, Plan *plan, Py_ssize_t T, Py_ssize_t B, const Py_ssize_t *lengths,
    const Candidate *way,
) noexcept nogil:
    """Make the plan of a way to divide the call."""
    plan.division = way.division
    plan.slices = way.slices
    plan.shape = cut(stack, T, B, way.block)
    plan.phases = way.phases
    plan.longest_ns = way.longest_ns
    if plan.division == BY_ROWS:
        share_rows(stack, plan, lengths)
    elif plan.division == BY_UNITS:
        plan.phases = unit_phases(stack, &plan.shape)


cdef void share_rows(const Stack *stack, Plan *plan, const Py_ssize_t *lengths) noexcept nogil:
    """Give every slice its rows: as many as the others; with lengths, as many steps as the others."""
    cdef Py_ssize_t T = plan.shape.T, B = plan.shape.B, first = 0, last, total = 0, so_far = 0, b, block
    # With lengths a slice may have twice its part of the rows. Its memory is that of this many, whatever it
    # gets.
    cdef Py_ssize_t most = min(B, 2 * count(B, plan.slices))
    cdef Py_ssize_t most_block = block_of(stack, T, most, 1)
    cdef int slice
    plan.phases = 1
    if lengths != NULL:
        for b in range(B):
            total += lengths[b]
    for slice in range(plan.slices):
        if not plan.is_ragged:
            last = rows_before(B, slice + 1, plan.slices)
            block = block_of(stack, T, last - first, 1)
        elif lengths == NULL:
            last = first + most
            block = most_block
        else:
            last = first
            while last < B - (plan.slices - 1 - slice) and last < first + most and (
                last == first or B - last > (plan.slices - 1 - slice) * most
                or (so_far + lengths[last] // 2) * plan.slices < total * (slice + 1)
            ):
                so_far += lengths[last]
                last += 1
            T = lengths[first]
            block = max(1, min(block_of(stack, T, last - first, 1), most_block * most // (last - first)))
        plan.shares[slice].first = first
        plan.shares[slice].shape = cut(stack, T, last - first, block)
        plan.phases = max(plan.phases, count(T, plan.shares[slice].shape.sweep))
        first = last


cdef inline Py_ssize_t pass_phases(Py_ssize_t steps) noexcept nogil:
    """Of a pass that is divided by units: its projection, its steps, and leaving its state after several."""
    return steps + 1 + (steps > 1)


cdef Py_ssize_t unit_phases(const Stack *stack, const Shape *shape) noexcept nogil:
    cdef Py_ssize_t rest = shape.T % shape.block
    return stack.L * stack.D * (
        shape.T // shape.block * pass_phases(shape.block) + (pass_phases(rest) if rest else 0))


cdef double cut_stages(
    const Stack *stack, Py_ssize_t steps, Py_ssize_t rows, int slices, int *first_stages,
) noexcept nogil:
    """Divide the stages of a block among slices, in order and evenly; give the time of the longest slice."""
    cdef double total = 0, done = 0, longest = 0, own = 0
    cdef int stages = <int>(2 * stack.L), stage, slice = 0
    for stage in range(stages):
        total += stage_ns(stack, stage, steps, rows)
    first_stages[0] = 0
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
            first_stages[slice] = stage + 1
    first_stages[slices] = stages
    return longest


# ---------------------------------------------------------------- work without phases

cdef bint is_worth_dividing(double time, Py_ssize_t parts) noexcept nogil:
    """Whether parts that do not depend on one another, all of which take one core this many nanoseconds, are
    divided among threads that are free."""
    return parts > 1 and time >= 4 * START_NS


cdef int slices_of(double time, Py_ssize_t parts, int threads) noexcept nogil:
    """Among how many threads they are divided now."""
    return <int>min(available(threads), parts) if threads > 1 and is_worth_dividing(time, parts) else 1
