#include "internals.h"

#if FRNN_HAS_THREADS

ptrdiff_t frnn_run_job(
    frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest)
{
    const uint32_t job = atomic_load(&frnn_team.job) + 1;
    frnn_team.work = work;
    frnn_team.context = context;
    atomic_store(&frnn_team.phases, phases);
    atomic_store(&frnn_team.slices, slices);
    atomic_store(&frnn_team.held_up, FRNN_SPIN_NS + (long long)(3 * longest));
    atomic_store(&frnn_team.threads, threads);
    for (int slice = 0; slice < slices; slice++) {
        atomic_store(&frnn_team.claims[slice].value, FRNN_COUNT(job, 0));
        atomic_store(&frnn_team.done[slice].value, FRNN_COUNT(job, 0));
    }
    atomic_store(&frnn_team.job, job);
    frnn_wake_workers(threads);
    frnn_wake_waiting();
    const ptrdiff_t ran = frnn_take_part(job, 0);
    /* Nobody may claim what the next job writes before its number is known. */
    for (int slice = 0; slice < slices; slice++)
        atomic_store(&frnn_team.claims[slice].value, FRNN_COUNT(job, UINT32_MAX));
    return ran;
}

void frnn_share(frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest)
{
    int nobody = 0;
    if (threads > slices)
        threads = slices;
    if (threads > FRNN_MOST_THREADS)
        threads = FRNN_MOST_THREADS;
    if (slices < 1)
        return;
    atomic_fetch_add(&frnn_team.callers, 1);
    if (threads < 2 || slices > FRNN_MOST_THREADS || phases > (ptrdiff_t)(INT32_MAX / slices)
        || !atomic_compare_exchange_strong(&frnn_team.is_taken, &nobody, 1)) {
        frnn_run_alone(work, context, phases, slices);
    } else {
        atomic_store(&frnn_team.threads, threads); /* if none starts, `frnn_back_off` must not find 1 */
        threads = frnn_start_workers(threads - 1) + 1;
        const long long begin = frnn_now_ns();
        const ptrdiff_t all = phases * slices;
        const ptrdiff_t own = frnn_run_job(work, context, phases, slices, threads, longest);
        /* If the others did next to nothing, the next jobs are better planned without them. */
        if (8 * (all - own) < all)
            frnn_back_off();
        else
            frnn_try_sharing_cost(begin, threads);
        atomic_store(&frnn_team.is_taken, 0);
    }
    atomic_fetch_sub(&frnn_team.callers, 1);
}

unsigned frnn_jobs(void)
{
    return atomic_load(&frnn_team.job);
}

#endif
