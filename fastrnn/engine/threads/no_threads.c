#include "internals.h"

#if !FRNN_HAS_THREADS

/* Everything runs on the caller's thread. */

void frnn_begin_team(void)
{
}

int frnn_cores(void)
{
    return 1;
}

void frnn_limit_cores(int cores)
{
    (void)cores;
}

int frnn_available(int wanted)
{
    (void)wanted;
    return 1;
}

frnn_sharing_cost frnn_sharing_cost_now(int threads, frnn_sharing_cost usual)
{
    (void)threads;
    return usual;
}

void frnn_count_caller(int more)
{
    (void)more;
}

void frnn_share(frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest)
{
    (void)threads;
    (void)longest;
    frnn_run_alone(work, context, phases, slices);
}

unsigned frnn_jobs(void)
{
    return 0;
}

#endif
