#include "internals.h"

#if FRNN_HAS_THREADS

#include <fenv.h>
#include <signal.h>
#include <string.h>

enum { STACK_BYTES = 1024 * 1024 };

frnn_team_memory frnn_team = {
    /* Nothing of job 0 may be claimed by a worker that is there before job 1. */
    .done = {{FRNN_COUNT(1, 0)}},
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .advanced = PTHREAD_COND_INITIALIZER,
};

static void *run_worker(void *argument)
{
    const int self = (int)(intptr_t)argument;
    fesetenv(FE_DFL_ENV); /* not that of whoever happened to start it */
    for (;;) {
        const uint32_t job = atomic_load(&frnn_team.job);
        frnn_take_part(job, self);
        const int is_wanted = self < atomic_load(&frnn_team.threads);
        frnn_note_place(self);
        const long long began = frnn_now_ns();
        for (unsigned spins = 0; atomic_load(&frnn_team.job) == job; spins++) {
            frnn_pause();
            if (!is_wanted || (spins % 64 == 63 && frnn_now_ns() - began > FRNN_SPIN_NS))
                frnn_sleep_until_job_after(job, self);
        }
    }
    return NULL;
}

/* Start one more worker; whether there was a thread for it. */
static int start_worker(void)
{
    const pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    const int self = frnn_team.started + 1;
    frnn_worker *worker = &frnn_team.workers[self];
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    memcpy(&worker->began, &condition, sizeof condition);
    atomic_store(&worker->is_at_work, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* Signals are for Python's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#if defined(__linux__)
    atomic_store(&worker->core, -1);
#endif
    const int failed = pthread_create(&thread, &attributes, run_worker, (void *)(intptr_t)self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed)
        return 0;
#if defined(__linux__)
    worker->handle = thread;
#endif
    frnn_forget_places(); /* it has to be told where it may run, as the others were */
    frnn_team.started++;
    return 1;
}

int frnn_start_workers(int wanted)
{
    while (frnn_team.started < wanted)
        if (!start_worker()) {
            frnn_back_off(); /* so that not every call tries again */
            break;
        }
    if (wanted > frnn_team.started)
        wanted = frnn_team.started;
    frnn_spread_workers(wanted);
    return wanted;
}

/* The child of a fork has no workers, and nobody holds what they held. A job that was under way is over:
 * nothing of it may be claimed. */
static void forget_workers(frnn_watcher *self)
{
    (void)self;
    /* The next one may have been announced by half. */
    const uint32_t job = atomic_load(&frnn_team.job) + 1;
    for (int slice = 0; slice < FRNN_MOST_THREADS; slice++) {
        atomic_store(&frnn_team.claims[slice].value, FRNN_COUNT(job, UINT32_MAX));
        atomic_store(&frnn_team.done[slice].value, FRNN_COUNT(job - 1, 0));
    }
    atomic_store(&frnn_team.job, job);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    memcpy(&frnn_team.mutex, &mutex, sizeof mutex);
    memcpy(&frnn_team.advanced, &condition, sizeof condition);
    for (int worker = 0; worker < FRNN_MOST_THREADS; worker++)
        atomic_store(&frnn_team.workers[worker].is_idle, 0);
    frnn_team.started = 0;
    atomic_store(&frnn_team.waiting, 0);
    atomic_store(&frnn_team.callers, 0);
    atomic_store(&frnn_team.is_taken, 0);
}

void frnn_begin_team(void)
{
    static frnn_watcher watcher = {.forked = forget_workers};
    frnn_watch_forks(&watcher);
}

#endif
