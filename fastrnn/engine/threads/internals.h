/* What the files of the team share with one another. They include it before anything else.
 *
 *   jobs.c          what a caller does: a grid becomes the job of the team
 *   slices.c        who runs which slice, and how long one waits for another thread
 *   workers.c       the workers: starting them, what they do between two jobs, forks
 *   sleep.c         sleeping and waking
 *   affinity.c        which cores there are, and where workers run
 *   availability.c  how many threads a call gets
 *   sharing_cost.c  the trial that measures the sharing cost
 *   no_threads.c    all of it on a platform without threads
 *   forks.c         knows nothing of the team: what is called after a fork
 */
#ifndef FRNN_THREADS_INTERNALS_H
#define FRNN_THREADS_INTERNALS_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for sched.h */
#endif

#if !defined(_WIN32) && !defined(__STDC_NO_ATOMICS__)
#define FRNN_HAS_THREADS 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#if defined(__linux__)
#include <sched.h>
#endif
#else
#define FRNN_HAS_THREADS 0
#endif

#include "forks.h"
#include "threads.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden) /* as in those */
#endif

/* Run a grid on the calling thread. */
static inline void frnn_run_alone(frnn_work work, void *context, ptrdiff_t phases, int slices)
{
    for (ptrdiff_t phase = 0; phase < phases; phase++)
        for (int slice = 0; slice < slices; slice++)
            work(context, phase, slice);
}

#if FRNN_HAS_THREADS

enum { FRNN_SPIN_NS = 100 * 1000 }; /* how long a thread without work spins before it sleeps */

/* ---------------------------------------------------------------- the team's memory */

/* A claim, and how many phases of a slice are done. The upper half is the number of the job that it belongs
 * to: a thread that is late with an old job finds nothing to claim, so nobody has to wait for it. */
typedef struct {
    _Alignas(64) atomic_ullong value;
} frnn_counter;

static inline uint32_t frnn_job_of(unsigned long long value)
{
    return (uint32_t)(value >> 32);
}

static inline int frnn_phases_of(unsigned long long value)
{
    return (int)(uint32_t)value;
}

#define FRNN_COUNT(job, phases) ((unsigned long long)(job) << 32 | (uint32_t)(phases))

/* One of the threads. The first is the caller, which has no use for what is said of sleep and places. */
typedef struct {
    _Alignas(64) atomic_int is_idle;
    pthread_cond_t began;    /* it sleeps on this until the next job that wants it */
#if defined(__linux__)
    pthread_t handle;
    atomic_int core;         /* where it last was; -1: not known */
#endif
    _Alignas(64) atomic_int is_at_work; /* in the middle of a slice */
} frnn_worker;

typedef struct {
    /* The job. Written by the caller who holds `is_taken`, before it sets `job` to its number. */
    frnn_work work;
    void *context;
    atomic_llong phases;
    atomic_int slices;
    atomic_int threads;      /* how many may claim now; 1 once a core turned out to be busy */
    atomic_llong held_up;    /* nanoseconds of waiting for a slice after which its core counts as busy */
    frnn_counter claims[FRNN_MOST_THREADS]; /* by slice: job and phases claimed */
    frnn_counter done[FRNN_MOST_THREADS];   /* by slice: job and phases done; whoever has a claim writes it */
    _Alignas(64) atomic_uint job;      /* its number; 0: none yet */

    _Alignas(64) atomic_int is_taken; /* on a line of its own: idle workers read `job` all the time */
    atomic_int callers;      /* at work, with the team or without */
    atomic_int limit;        /* of the control group; 0: none */
    atomic_llong backed_off_until; /* until then calls get one thread */
    int doublings;           /* of how long the team backs off; guarded by is_taken */
    long long tried;         /* when the last trial was made, successful or not; guarded by is_taken */
    int started;             /* workers, which are numbered from 1; guarded by is_taken */

    /* For those who sleep until the next job, and those who sleep until a slice of this one is done. */
    pthread_mutex_t mutex;
    pthread_cond_t advanced;
    atomic_int waiting;
    frnn_worker workers[FRNN_MOST_THREADS];
#if defined(__linux__)
    cpu_set_t cores;         /* that the workers were told of; guarded by is_taken */
#endif
} frnn_team_memory;

extern frnn_team_memory frnn_team; /* of the process; in workers.c */

static inline long long frnn_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline void frnn_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The phase that a job is at: the fewest that any of its slices is done with. -1: the job is over. No job has
 * more phases than an int holds. */
static inline int frnn_phase(uint32_t job, int slices)
{
    int least = INT32_MAX;
    for (int slice = 0; slice < slices; slice++) {
        const unsigned long long done =
            atomic_load_explicit(&frnn_team.done[slice].value, memory_order_relaxed);
        if (frnn_job_of(done) != job)
            return -1;
        if (frnn_phases_of(done) < least)
            least = frnn_phases_of(done);
    }
    atomic_thread_fence(memory_order_acquire); /* what those slices wrote */
    return least;
}

/* ---------------------------------------------------------------- slices.c */

/* Take part in a job as one of its threads, until it is done or this thread is no longer wanted; how many
 * slices it ran. */
ptrdiff_t frnn_take_part(uint32_t job, int self);

/* ---------------------------------------------------------------- jobs.c */

/* Run a job on workers that are started, for a caller who holds `is_taken`; how many slices the caller ran.
 * */
ptrdiff_t frnn_run_job(
    frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest);

/* ---------------------------------------------------------------- workers.c */

/* Have this many workers, as far as can be seen each on a core of its own; how many there are. */
int frnn_start_workers(int wanted);

/* ---------------------------------------------------------------- sleep.c */

void frnn_sleep_until_job_after(uint32_t job, int self);
void frnn_wake_workers(int threads);

void frnn_sleep_during_phase(uint32_t job, int slices, int phase);
void frnn_wake_all_waiting(void);

/* A slice is done, or a new job began. Every slice calls it, and hardly ever does somebody sleep. */
static inline void frnn_wake_waiting(void)
{
    if (atomic_load(&frnn_team.waiting) != 0)
        frnn_wake_all_waiting();
}

/* ---------------------------------------------------------------- affinity.c; all but Linux place no thread */

/* Let workers run where the caller may, but put one that was found on the core of another thread on a free
 * one. */
void frnn_spread_workers(int wanted);

/* A worker's note of the core that it is on. */
void frnn_note_place(int self);

/* The workers may go anywhere from the next job on. */
void frnn_forget_places(void);

/* Bring workers that are held up in the middle of a slice to the core of the caller. */
void frnn_fetch_held_up(void);

/* ---------------------------------------------------------------- availability.c */

/* A core is busy: no worker takes part in this job any more, nor in any job for a while. For whoever holds
 * `is_taken`. */
void frnn_back_off(void);

/* ---------------------------------------------------------------- sharing_cost.c */

/* Make a trial if one is due, after a job that began at that time and in which workers took part. */
void frnn_try_sharing_cost(long long began, int threads);

#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
