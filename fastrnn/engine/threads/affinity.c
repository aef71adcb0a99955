#include "internals.h"

#if FRNN_HAS_THREADS

#include <string.h>
#include <unistd.h>

int frnn_cores(void)
{
    long cores;
#if defined(__linux__)
    cpu_set_t set;
    /* It fails if there are more cores than a cpu_set_t holds. */
    cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
#else
    cores = sysconf(_SC_NPROCESSORS_ONLN);
#endif
    const int limit = atomic_load(&frnn_team.limit);
    if (limit > 0 && cores > limit)
        cores = limit;
    return cores < 1 ? 1 : cores > FRNN_MOST_THREADS ? FRNN_MOST_THREADS : (int)cores;
}

void frnn_limit_cores(int cores)
{
    atomic_store(&frnn_team.limit, cores);
}

#if defined(__linux__)

/* The kernel can leave two threads on one core for many milliseconds next to an idle core, and bring them
 * back there whenever one wakes the other. A worker stays where it was put until it is found so again, a core
 * turns out to be busy, or the caller's cores change. */
void frnn_spread_workers(int wanted)
{
    cpu_set_t cores, used;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        return;
    if (!CPU_EQUAL(&cores, &frnn_team.cores)) {
        for (int self = 1; self <= frnn_team.started; self++)
            pthread_setaffinity_np(frnn_team.workers[self].handle, sizeof cores, &cores);
        frnn_team.cores = cores;
    }
    int clashing[FRNN_MOST_THREADS], count = 0;
    CPU_ZERO(&used);
    CPU_SET(sched_getcpu(), &used);
    for (int self = 1; self <= wanted; self++) {
        const int core = atomic_load_explicit(&frnn_team.workers[self].core, memory_order_relaxed);
        if (core < 0)
            continue;
        if (CPU_ISSET(core, &used))
            clashing[count++] = self;
        CPU_SET(core, &used);
    }
    for (int i = 0, core = 0; i < count; i++, core++) {
        while (core < CPU_SETSIZE && (!CPU_ISSET(core, &cores) || CPU_ISSET(core, &used)))
            core++;
        if (core == CPU_SETSIZE)
            return;
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(core, &own);
        frnn_worker *worker = &frnn_team.workers[clashing[i]];
        if (pthread_setaffinity_np(worker->handle, sizeof own, &own) == 0)
            atomic_store_explicit(&worker->core, core, memory_order_relaxed);
    }
}

void frnn_note_place(int self)
{
    const int core = sched_getcpu();
    if (core != atomic_load_explicit(&frnn_team.workers[self].core, memory_order_relaxed))
        atomic_store_explicit(&frnn_team.workers[self].core, core, memory_order_relaxed);
}

void frnn_forget_places(void)
{
    memset(&frnn_team.cores, 0, sizeof frnn_team.cores);
}

/* The caller has nothing to do but wait for them. On the core of another process they would go on when their
 * turn comes, milliseconds later. They may go anywhere from the caller's core: a worker that was only slow
 * finds a core of its own again. */
void frnn_fetch_held_up(void)
{
    cpu_set_t here, cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        return;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    for (int self = 1; self <= frnn_team.started; self++)
        if (atomic_load_explicit(&frnn_team.workers[self].is_at_work, memory_order_relaxed)) {
            pthread_setaffinity_np(frnn_team.workers[self].handle, sizeof here, &here);
            pthread_setaffinity_np(frnn_team.workers[self].handle, sizeof cores, &cores);
        }
}

#else

void frnn_spread_workers(int wanted)
{
    (void)wanted;
}

void frnn_note_place(int self)
{
    (void)self;
}

void frnn_forget_places(void)
{
}

void frnn_fetch_held_up(void)
{
}

#endif
#endif
