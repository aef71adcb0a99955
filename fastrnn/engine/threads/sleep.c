#include "internals.h"

#if FRNN_HAS_THREADS

/* A sleeper says that it sleeps before it looks at `job` or `done`. Whoever changes these looks for sleepers
 * afterwards. So one of the two sees the other. */

/* A worker's sleep until the next job that wants it. */
void frnn_sleep_until_job_after(uint32_t job, int self)
{
    pthread_mutex_lock(&frnn_team.mutex);
    atomic_store(&frnn_team.workers[self].is_idle, 1);
    while (atomic_load(&frnn_team.job) == job)
        pthread_cond_wait(&frnn_team.workers[self].began, &frnn_team.mutex);
    atomic_store(&frnn_team.workers[self].is_idle, 0);
    pthread_mutex_unlock(&frnn_team.mutex);
}

void frnn_wake_workers(int threads)
{
    int is_locked = 0;
    for (int self = 1; self < threads; self++) {
        if (!atomic_load(&frnn_team.workers[self].is_idle))
            continue;
        if (!is_locked)
            pthread_mutex_lock(&frnn_team.mutex);
        is_locked = 1;
        pthread_cond_signal(&frnn_team.workers[self].began);
    }
    if (is_locked)
        pthread_mutex_unlock(&frnn_team.mutex);
}

/* Any thread's sleep until the job leaves a phase. */
void frnn_sleep_during_phase(uint32_t job, int slices, int phase)
{
    pthread_mutex_lock(&frnn_team.mutex);
    atomic_fetch_add(&frnn_team.waiting, 1);
    atomic_thread_fence(memory_order_seq_cst);
    while (frnn_phase(job, slices) == phase)
        pthread_cond_wait(&frnn_team.advanced, &frnn_team.mutex);
    atomic_fetch_sub(&frnn_team.waiting, 1);
    pthread_mutex_unlock(&frnn_team.mutex);
}

void frnn_wake_all_waiting(void)
{
    pthread_mutex_lock(&frnn_team.mutex);
    pthread_cond_broadcast(&frnn_team.advanced);
    pthread_mutex_unlock(&frnn_team.mutex);
}

#endif
