#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "threads.h"

#include <stdint.h>

static void alone(frnn_work work, void *context, ptrdiff_t phases, int slices)
{
    for (ptrdiff_t phase = 0; phase < phases; phase++)
        for (int slice = 0; slice < slices; slice++)
            work(context, phase, slice);
}

#if defined(_WIN32) || defined(__STDC_NO_ATOMICS__)

/* No threads here: everything runs on the caller's. */
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

frnn_company frnn_company_now(int threads, frnn_company usual)
{
    (void)threads;
    return usual;
}

void frnn_count_caller(int more)
{
    (void)more;
}

void frnn_watch_forks(void)
{
}

void frnn_share(frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest)
{
    (void)threads;
    (void)longest;
    alone(work, context, phases, slices);
}

#else

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

enum {
    SPIN = 100 * 1000,        /* nanoseconds that a thread without work spins before it sleeps */
    PATIENCE = 3 * 1000,      /* nanoseconds that a slice waits for its own thread before another takes it */
    CROWDED = 1000 * 1000,    /* nanoseconds without threads after a core was seen to be busy: so many, */
    MOST_DOUBLED = 6,         /* doubled as often as this where it is seen again and again */
    TRIED = 32,               /* the phases of a trial, which tells what company costs, */
    TRIED_LOOPS = 64,         /* and its work; */
    TRIED_AFTER = 50 * 1000,  /* behind a job that took so many nanoseconds, */
    TRIED_AGAIN = 10 * 1000 * 1000, /* at most one in so many; the best of the last */
    TRIALS = 3,               /* so many counts, for */
    TRUSTED = 200 * 1000 * 1000, /* so many nanoseconds */
    STACK = 1024 * 1024,
};

/* A claim, and how many phases of a slice are done, carry in their upper half the number of the job that
 * they belong to: what a thread still holds of an old job is void without anybody waiting for it. */
typedef struct {
    _Alignas(64) atomic_ullong value;
} counter;

/* One of the threads: the caller is the first, though what is said of sleep and places is of workers alone. */
typedef struct {
    _Alignas(64) atomic_int is_idle;
    pthread_cond_t began;    /* on which it sleeps until the next job that wants it */
#if defined(__linux__)
    pthread_t handle;
    atomic_int core;         /* where it last was; -1: not known */
#endif
    _Alignas(64) atomic_int is_at_work; /* in the middle of a slice */
} member;

#define JOB(value) ((uint32_t)((value) >> 32))
#define COUNT(value) ((uint32_t)(value))
#define WORD(job, count) ((unsigned long long)(job) << 32 | (uint32_t)(count))

static struct {
    /* The job. Written by the caller who holds `is_taken`, before `job` tells its number. */
    frnn_work work;
    void *context;
    atomic_llong phases;
    atomic_int slices;
    atomic_int threads;      /* those who may claim now; 1 once a core was seen to be busy */
    atomic_llong held_up;    /* nanoseconds that one waits for a slice before a core counts as busy */
    counter claims[FRNN_MOST_THREADS]; /* by slice: job and phases claimed */
    counter done[FRNN_MOST_THREADS];   /* by slice: job and phases done; written by whoever claimed the phase */
    _Alignas(64) atomic_uint job;      /* its number; 0: none yet */

    _Alignas(64) atomic_int is_taken; /* idle workers read `job` all the time: nothing else lies beside it */
    atomic_int callers;      /* at work, sharing or alone */
    atomic_int limit;        /* of the control group; 0: none */
    atomic_llong crowded_until;
    int crowded;             /* how often that was doubled; guarded by is_taken */
    long long tried;         /* when the last trial was made, successful or not; guarded by is_taken */
    int workers;             /* that were started; guarded by is_taken */

    /* Sleepers: those who wait for the next job, and those who wait for a slice of this one. */
    pthread_mutex_t mutex;
    pthread_cond_t advanced;
    atomic_int waiting;
    member members[FRNN_MOST_THREADS];
#if defined(__linux__)
    cpu_set_t cores;         /* that the workers were told of; guarded by is_taken */
#endif
} pool = {
    .done = {{WORD(1, 0)}}, /* nothing of job 0 may be claimed by a worker that is there before job 1 */
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .advanced = PTHREAD_COND_INITIALIZER,
};

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The phase that a job is at, the fewest that any of its slices is done with; -1: the job is over. */
static ptrdiff_t phase_of(uint32_t job, int slices)
{
    ptrdiff_t least = INT32_MAX;
    for (int slice = 0; slice < slices; slice++) {
        const unsigned long long done = atomic_load_explicit(&pool.done[slice].value, memory_order_relaxed);
        if (JOB(done) != job)
            return -1;
        if (COUNT(done) < least)
            least = COUNT(done);
    }
    atomic_thread_fence(memory_order_acquire); /* what those slices wrote */
    return least;
}

/* ---------------------------------------------------------------- sleeping */

/* A sleeper tells that it sleeps before it looks at `job` or `done`, and whoever changes these looks for
 * sleepers afterwards: one of the two sees the other. */

static void sleep_until_job_after(uint32_t job, int self)
{
    pthread_mutex_lock(&pool.mutex);
    atomic_store(&pool.members[self].is_idle, 1);
    while (atomic_load(&pool.job) == job)
        pthread_cond_wait(&pool.members[self].began, &pool.mutex);
    atomic_store(&pool.members[self].is_idle, 0);
    pthread_mutex_unlock(&pool.mutex);
}

static void wake_workers(int threads)
{
    int is_locked = 0;
    for (int self = 1; self < threads; self++) {
        if (!atomic_load(&pool.members[self].is_idle))
            continue;
        if (!is_locked)
            pthread_mutex_lock(&pool.mutex);
        is_locked = 1;
        pthread_cond_signal(&pool.members[self].began);
    }
    if (is_locked)
        pthread_mutex_unlock(&pool.mutex);
}

static void sleep_while(uint32_t job, int slices, ptrdiff_t phase)
{
    pthread_mutex_lock(&pool.mutex);
    atomic_fetch_add(&pool.waiting, 1);
    atomic_thread_fence(memory_order_seq_cst);
    while (phase_of(job, slices) == phase)
        pthread_cond_wait(&pool.advanced, &pool.mutex);
    atomic_fetch_sub(&pool.waiting, 1);
    pthread_mutex_unlock(&pool.mutex);
}

static void wake_waiting(void)
{
    if (atomic_load(&pool.waiting) == 0)
        return;
    pthread_mutex_lock(&pool.mutex);
    pthread_cond_broadcast(&pool.advanced);
    pthread_mutex_unlock(&pool.mutex);
}

/* ---------------------------------------------------------------- working */

/* Claim a slice of a phase and run it as one of the threads; whether there was one to claim. */
static int run_slice(uint32_t job, ptrdiff_t phase, int slice, int self)
{
    unsigned long long claim = WORD(job, phase);
    if (atomic_load_explicit(&pool.claims[slice].value, memory_order_relaxed) != claim
        || !atomic_compare_exchange_strong(&pool.claims[slice].value, &claim, claim + 1))
        return 0;
    atomic_store_explicit(&pool.members[self].is_at_work, 1, memory_order_relaxed);
    /* The job cannot end before this slice does, so it is ours to read. */
    pool.work(pool.context, phase, slice);
    atomic_store_explicit(&pool.members[self].is_at_work, 0, memory_order_relaxed);
    atomic_store(&pool.done[slice].value, claim + 1);
    wake_waiting();
    return 1;
}

/* The workers may go anywhere from the next job on: a core that one of them was put on may be busy. */
static void forget_places(void)
{
#if defined(__linux__)
    memset(&pool.cores, 0, sizeof pool.cores);
#endif
}

/* The caller saw that a core is busy or asleep: nobody else takes part any more, nor in the next jobs for a
 * while. If that comes soon after such a while, the next one is twice as long. Once a job. */
static void crowd(void)
{
    if (atomic_load(&pool.threads) == 1)
        return;
    const long long now = nanoseconds(), quiet = now - atomic_load(&pool.crowded_until);
    if (quiet > 2 * ((long long)CROWDED << pool.crowded))
        pool.crowded = 0;
    else if (pool.crowded < MOST_DOUBLED)
        pool.crowded++;
    atomic_store(&pool.crowded_until, now + ((long long)CROWDED << pool.crowded));
    atomic_store(&pool.threads, 1);
    forget_places();
}

/* Bring the workers that another process holds up in the middle of a slice to the core of the caller, which has
 * nothing to do but wait for them; by themselves they go on when their turn comes, milliseconds later. From there
 * they may go anywhere: one that is at work after all, only slowly, finds a core of its own again. */
static void fetch_held_up(void)
{
#if defined(__linux__)
    cpu_set_t here, cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        return;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    for (int self = 1; self <= pool.workers; self++)
        if (atomic_load_explicit(&pool.members[self].is_at_work, memory_order_relaxed)) {
            pthread_setaffinity_np(pool.members[self].handle, sizeof here, &here);
            pthread_setaffinity_np(pool.members[self].handle, sizeof cores, &cores);
        }
#endif
}

/* Take part in a job as one of its threads, until it is done or this thread is not wanted any more; how
 * many slices it ran. */
static ptrdiff_t take_part(uint32_t job, int self)
{
    ptrdiff_t ran_in_all = 0, seen = -1;
    const ptrdiff_t phases = atomic_load(&pool.phases);
    const int slices = atomic_load(&pool.slices);
    const long long held_up = atomic_load(&pool.held_up);
    long long since = 0; /* when it began to wait; 0: just now */
    int patience = PATIENCE;
    for (unsigned spins = 0;; spins++) {
        const ptrdiff_t phase = phase_of(job, slices);
        const int threads = atomic_load(&pool.threads);
        if (phase < 0 || phase >= phases || self >= threads)
            return ran_in_all;
        int ran = 0;
        for (int slice = self; slice < slices; slice += threads)
            ran += run_slice(job, phase, slice, self);
        ran_in_all += ran;
        if (ran || phase != seen) {
            seen = phase;
            since = 0;
            spins = 0;
        }
        if (ran)
            continue;
        pause_briefly();
        if (patience != 0 && spins % 16 != 15)
            continue;
        const long long now = nanoseconds();
        if (since == 0)
            since = now;
        if (now - since >= patience) {
            for (int slice = 0; slice < slices && !ran; slice++)
                ran = run_slice(job, phase, slice, self);
            ran_in_all += ran;
            /* Whoever did not come is not waited for the next time, until it is at work again. */
            patience = ran ? 0 : PATIENCE;
        }
        if (ran) {
            since = 0;
            continue;
        }
        /* All are claimed, and one takes far too long. Asleep, this thread leaves it its own core. */
        if (threads == 1 || now - since > held_up) {
            if (phase_of(job, slices) != phase)
                continue; /* it was this thread that was held up */
            if (self == 0 && threads > 1) {
                crowd();
                fetch_held_up();
            }
            sleep_while(job, slices, phase);
        }
    }
}

static void *run_worker(void *argument)
{
    const int self = (int)(intptr_t)argument;
    fesetenv(FE_DFL_ENV); /* not that of whoever happened to start it */
    for (;;) {
        const uint32_t job = atomic_load(&pool.job);
        take_part(job, self);
        const int is_wanted = self < atomic_load(&pool.threads);
#if defined(__linux__)
        const int core = sched_getcpu();
        if (core != atomic_load_explicit(&pool.members[self].core, memory_order_relaxed))
            atomic_store_explicit(&pool.members[self].core, core, memory_order_relaxed);
#endif
        const long long began = nanoseconds();
        for (unsigned spins = 0; atomic_load(&pool.job) == job; spins++) {
            pause_briefly();
            if (!is_wanted || (spins % 64 == 63 && nanoseconds() - began > SPIN))
                sleep_until_job_after(job, self);
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- the pool */

/* The child of a fork has none of the threads, and what they held is held by nobody. A job that was under
 * way is over: nothing of it may be claimed. */
static void forget(void)
{
    /* It may have been announced by half. */
    const uint32_t job = atomic_load(&pool.job) + 1;
    for (int slice = 0; slice < FRNN_MOST_THREADS; slice++) {
        atomic_store(&pool.claims[slice].value, WORD(job, UINT32_MAX));
        atomic_store(&pool.done[slice].value, WORD(job - 1, 0));
    }
    atomic_store(&pool.job, job);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    memcpy(&pool.mutex, &mutex, sizeof mutex);
    memcpy(&pool.advanced, &condition, sizeof condition);
    for (int self = 0; self < FRNN_MOST_THREADS; self++)
        atomic_store(&pool.members[self].is_idle, 0);
    pool.workers = 0;
    atomic_store(&pool.waiting, 0);
    atomic_store(&pool.callers, 0);
    atomic_store(&pool.is_taken, 0);
}

void frnn_watch_forks(void)
{
    pthread_atfork(NULL, NULL, forget);
}

/* Start one more worker; whether there was a thread for it. */
static int start_worker(void)
{
    const pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    const int self = pool.workers + 1;
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    memcpy(&pool.members[self].began, &condition, sizeof condition);
    atomic_store(&pool.members[self].is_at_work, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    /* Signals are for Python's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#if defined(__linux__)
    atomic_store(&pool.members[self].core, -1);
#endif
    const int failed = pthread_create(&thread, &attributes, run_worker, (void *)(intptr_t)self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed)
        return 0;
#if defined(__linux__)
    pool.members[self].handle = thread;
#endif
    forget_places(); /* it is to be told where it may run, as the others */
    pool.workers++;
    return 1;
}

#if defined(__linux__)
/* Let the workers run where the caller may, but put one that was found on a core of the caller's or of another
 * worker's on one that nobody has: the kernel can leave two threads on one core for many milliseconds beside an
 * idle one, and bring them back there whenever one wakes the other. It stays until it is found so again, a core
 * turns out to be busy or the caller's cores change. */
static void spread_workers(int wanted)
{
    cpu_set_t cores, used;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        return;
    if (!CPU_EQUAL(&cores, &pool.cores)) {
        for (int self = 1; self <= pool.workers; self++)
            pthread_setaffinity_np(pool.members[self].handle, sizeof cores, &cores);
        pool.cores = cores;
    }
    int clashing[FRNN_MOST_THREADS], count = 0;
    CPU_ZERO(&used);
    CPU_SET(sched_getcpu(), &used);
    for (int self = 1; self <= wanted; self++) {
        const int core = atomic_load_explicit(&pool.members[self].core, memory_order_relaxed);
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
        if (pthread_setaffinity_np(pool.members[clashing[i]].handle, sizeof own, &own) == 0)
            atomic_store_explicit(&pool.members[clashing[i]].core, core, memory_order_relaxed);
    }
}
#endif

/* Have so many workers, as far as can be seen each on a core of its own; how many there are. */
static int start_workers(int wanted)
{
    while (pool.workers < wanted)
        if (!start_worker()) {
            crowd(); /* not to be tried at every call */
            break;
        }
    if (wanted > pool.workers)
        wanted = pool.workers;
#if defined(__linux__)
    spread_workers(wanted);
#endif
    return wanted;
}

int frnn_cores(void)
{
    long cores;
#if defined(__linux__)
    cpu_set_t set;
    /* It fails where there are more cores than a cpu_set_t holds. */
    cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
#else
    cores = sysconf(_SC_NPROCESSORS_ONLN);
#endif
    const int limit = atomic_load(&pool.limit);
    if (limit > 0 && cores > limit)
        cores = limit;
    return cores < 1 ? 1 : cores > FRNN_MOST_THREADS ? FRNN_MOST_THREADS : (int)cores;
}

void frnn_limit_cores(int cores)
{
    atomic_store(&pool.limit, cores);
}

int frnn_available(int wanted)
{
    if (wanted < 2 || atomic_load(&pool.is_taken) || nanoseconds() < atomic_load(&pool.crowded_until))
        return 1;
    const int left = frnn_cores() - atomic_load(&pool.callers);
    return left < 2 ? 1 : left < wanted ? left : wanted;
}

void frnn_count_caller(int more)
{
    atomic_fetch_add(&pool.callers, more);
}

/* Run a job on threads that are started, for whoever holds `is_taken`; how many slices the caller ran. */
static ptrdiff_t run_job(
    frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest)
{
    const uint32_t job = atomic_load(&pool.job) + 1;
    pool.work = work;
    pool.context = context;
    atomic_store(&pool.phases, phases);
    atomic_store(&pool.slices, slices);
    atomic_store(&pool.held_up, SPIN + (long long)(3 * longest));
    atomic_store(&pool.threads, threads);
    for (int slice = 0; slice < slices; slice++) {
        atomic_store(&pool.claims[slice].value, WORD(job, 0));
        atomic_store(&pool.done[slice].value, WORD(job, 0));
    }
    atomic_store(&pool.job, job);
    wake_workers(threads);
    wake_waiting();
    const ptrdiff_t ran = take_part(job, 0);
    /* Nobody may claim what the next job writes before its number is known. */
    for (int slice = 0; slice < slices; slice++)
        atomic_store(&pool.claims[slice].value, WORD(job, UINT32_MAX));
    return ran;
}

/* ---------------------------------------------------------------- what company costs */

/* Two cores may share a cache, be far apart or be one, and the host of a virtual machine moves them about: within
 * a minute a phase took 50, 140 and 490 nanoseconds (Zen 4), and at 50, two threads of one core, company was no
 * faster than one thread. So that is tried out every now and then, behind a job, by threads that are awake. */
static struct {
    int loops;
    counter lines[2][FRNN_MOST_THREADS];
    struct {
        long long count; /* of the trials that told something, the last at: */
        atomic_llong time;
        double phase[TRIALS], work[TRIALS];
        _Atomic(frnn_company) company; /* the best of those */
    } on[FRNN_MOST_THREADS + 1]; /* so many threads */
} trial;

/* As in a step whose units are divided: every slice reads what all of them wrote in the phase before. Its work
 * keeps the multiplier of a core busy, so it takes twice as long if two threads share one. */
static void try_slice(void *context, ptrdiff_t phase, int slice)
{
    enum { CHAINS = 6 };
    const int slices = *(const int *)context;
    unsigned long long sum[CHAINS] = {0};
    for (int other = 0; other < slices; other++)
        sum[other % CHAINS] += atomic_load_explicit(&trial.lines[phase % 2][other].value, memory_order_relaxed);
    for (int loop = 0; loop < trial.loops; loop++)
        for (int chain = 0; chain < CHAINS; chain++)
            sum[chain] = sum[chain] * sum[chain] + (unsigned)chain;
    for (int chain = 1; chain < CHAINS; chain++)
        sum[0] += sum[chain];
    atomic_store_explicit(&trial.lines[(phase + 1) % 2][slice].value, sum[0], memory_order_relaxed);
}

/* The nanoseconds of a phase of that on so many threads; -1: not all of them came. */
static double time_phase(int loops, int threads)
{
    const long long begin = nanoseconds();
    trial.loops = loops;
    if (threads == 1)
        alone(try_slice, &threads, TRIED, 1);
    else if (run_job(try_slice, &threads, TRIED, threads, threads, 0) != TRIED
             || atomic_load(&pool.threads) != threads)
        return -1;
    return (double)(nanoseconds() - begin) / TRIED;
}

static double least(const double *values, ptrdiff_t count)
{
    double value = values[0];
    for (ptrdiff_t i = 1; i < count; i++)
        value = values[i] < value ? values[i] : value;
    return value;
}

/* That takes 15 microseconds where cores are close together, and 40 where they are far apart (Zen 4). */
static void try_company(int threads)
{
    const double phase = time_phase(0, threads), together = phase < 0 ? -1 : time_phase(TRIED_LOOPS, threads);
    if (together < 0)
        return;
    const ptrdiff_t place = trial.on[threads].count++ % TRIALS;
    trial.on[threads].phase[place] = phase;
    trial.on[threads].work[place] = (together - phase) / time_phase(TRIED_LOOPS, 1);
    const ptrdiff_t count = trial.on[threads].count < TRIALS ? trial.on[threads].count : TRIALS;
    const double work = least(trial.on[threads].work, count);
    const frnn_company best = {(float)least(trial.on[threads].phase, count), work > 1 ? (float)work : 1};
    atomic_store(&trial.on[threads].company, best);
    atomic_store(&trial.on[threads].time, nanoseconds());
}

frnn_company frnn_company_now(int threads, frnn_company usual)
{
    if (threads > FRNN_MOST_THREADS)
        return usual;
    const long long time = atomic_load(&trial.on[threads].time);
    if (time == 0 || nanoseconds() - time > TRUSTED)
        return usual;
    return atomic_load(&trial.on[threads].company);
}

void frnn_share(frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest)
{
    int nobody = 0;
    atomic_fetch_add(&pool.callers, 1);
    if (threads < 2 || slices > FRNN_MOST_THREADS || phases > (ptrdiff_t)(INT32_MAX / slices)
        || !atomic_compare_exchange_strong(&pool.is_taken, &nobody, 1)) {
        alone(work, context, phases, slices);
    } else {
        atomic_store(&pool.threads, threads); /* what `crowd` finds where no thread can be started */
        threads = start_workers(threads - 1) + 1;
        const long long begin = nanoseconds();
        const ptrdiff_t others = phases * slices - run_job(work, context, phases, slices, threads, longest);
        /* Where others did next to nothing, the next jobs are better planned without them. */
        if (8 * others < phases * slices)
            crowd();
        else if (begin - pool.tried > TRIED_AGAIN && atomic_load(&pool.threads) > 1
                 && nanoseconds() - begin > TRIED_AFTER) {
            pool.tried = begin;
            try_company(threads);
        }
        atomic_store(&pool.is_taken, 0);
    }
    atomic_fetch_sub(&pool.callers, 1);
}

#endif
