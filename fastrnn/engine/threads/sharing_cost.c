#include "internals.h"

#if FRNN_HAS_THREADS

/* Two cores may share a cache, be far apart, or be one, and the host of a virtual machine moves them about:
 * within a minute a phase took 50, 140 and 490 ns. So the cost is measured now and then, after a job, by
 * threads that are awake. More figures: docs/tuning.md. */
enum {
    TRIAL_PHASES = 32,               /* measured without work, and then with */
    TRIAL_LOOPS = 64,                /* of work in each slice */
    LEAST_JOB_NS = 50 * 1000,        /* a trial comes after a job that took at least this long */
    APART_NS = 10 * 1000 * 1000,     /* and this long after the last trial, */
    TRIALS = 3,                      /* the best of this many of them counts, */
    TRUSTED_NS = 200 * 1000 * 1000,  /* for this long */
};

static struct {
    int loops;
    frnn_counter lines[2][FRNN_MOST_THREADS];
    struct {
        long long count;             /* of trials in which all took part; the last of them ended at: */
        atomic_llong time;
        double phase_ns[TRIALS], slowdown[TRIALS];
        _Atomic(frnn_sharing_cost) cost; /* the best of those */
    } on[FRNN_MOST_THREADS + 1];     /* this many threads */
} trial;

/* As in a step whose units are divided: every slice reads what all of them wrote in the phase before. The
 * work keeps the multiplier of a core busy, so it takes twice as long if two threads share one. */
static void try_slice(void *context, ptrdiff_t phase, int slice)
{
    enum { CHAINS = 6 };
    const int slices = *(const int *)context;
    unsigned long long sum[CHAINS] = {0};
    for (int other = 0; other < slices; other++)
        sum[other % CHAINS] +=
            atomic_load_explicit(&trial.lines[phase % 2][other].value, memory_order_relaxed);
    for (int loop = 0; loop < trial.loops; loop++)
        for (int chain = 0; chain < CHAINS; chain++)
            sum[chain] = sum[chain] * sum[chain] + (unsigned)chain;
    for (int chain = 1; chain < CHAINS; chain++)
        sum[0] += sum[chain];
    atomic_store_explicit(&trial.lines[(phase + 1) % 2][slice].value, sum[0], memory_order_relaxed);
}

/* The nanoseconds of a phase on this many threads; -1: not all of them took part. */
static double time_phase(int loops, int threads)
{
    const long long begin = frnn_now_ns();
    trial.loops = loops;
    if (threads == 1)
        frnn_run_alone(try_slice, &threads, TRIAL_PHASES, 1);
    else if (frnn_run_job(try_slice, &threads, TRIAL_PHASES, threads, threads, 0) != TRIAL_PHASES
             || atomic_load(&frnn_team.threads) != threads)
        return -1;
    return (double)(frnn_now_ns() - begin) / TRIAL_PHASES;
}

static double least(const double *values, ptrdiff_t count)
{
    double value = values[0];
    for (ptrdiff_t i = 1; i < count; i++)
        value = values[i] < value ? values[i] : value;
    return value;
}

static void make_trial(int threads)
{
    const double phase_ns = time_phase(0, threads);
    const double with_work = phase_ns < 0 ? -1 : time_phase(TRIAL_LOOPS, threads);
    if (with_work < 0)
        return;
    const ptrdiff_t place = trial.on[threads].count++ % TRIALS;
    trial.on[threads].phase_ns[place] = phase_ns;
    trial.on[threads].slowdown[place] = (with_work - phase_ns) / time_phase(TRIAL_LOOPS, 1);
    const ptrdiff_t count = trial.on[threads].count < TRIALS ? trial.on[threads].count : TRIALS;
    const double slowdown = least(trial.on[threads].slowdown, count);
    const frnn_sharing_cost best = {
        (float)least(trial.on[threads].phase_ns, count), slowdown > 1 ? (float)slowdown : 1};
    atomic_store(&trial.on[threads].cost, best);
    atomic_store(&trial.on[threads].time, frnn_now_ns());
}

void frnn_try_sharing_cost(long long began, int threads)
{
    if (began - frnn_team.tried > APART_NS && atomic_load(&frnn_team.threads) > 1
        && frnn_now_ns() - began > LEAST_JOB_NS) {
        frnn_team.tried = began;
        make_trial(threads);
    }
}

frnn_sharing_cost frnn_sharing_cost_now(int threads, frnn_sharing_cost usual)
{
    if (threads > FRNN_MOST_THREADS)
        return usual;
    const long long time = atomic_load(&trial.on[threads].time);
    if (time == 0 || frnn_now_ns() - time > TRUSTED_NS)
        return usual;
    return atomic_load(&trial.on[threads].cost);
}

#endif
