/* The library's threads: one small pool for the process, and a grid of work that they share.
 *
 * Work is a grid of phases and slices. The slices of a phase do not depend on one another and may run at
 * the same time; a phase begins when all slices of the one before are done. Every slice of every phase is
 * run exactly once, by whichever thread claims it first. Each thread prefers its own slices, so that what
 * they read stays in its caches from phase to phase; one that has nothing else to do takes over those of a
 * thread that does not come, because it sleeps or its core is busy with another process. So the caller
 * alone finishes the whole grid if nobody helps, and what is computed never depends on who came.
 *
 * The threads are made on first use and again after a fork; they hold no lock of Python's. They spin for a
 * short while between two pieces of work, then sleep. One caller has them at a time; others run alone.
 */
#ifndef FRNN_POOL_H
#define FRNN_POOL_H

#include <stddef.h>

typedef void (*frnn_work)(void *context, ptrdiff_t phase, int slice);

enum { FRNN_MOST_THREADS = 64 };

/* The cores that the calling thread may run on now, FRNN_MOST_THREADS at most. */
int frnn_cores(void);

/* The share of cores that a control group grants the process, rounded up; 0 takes the limit away. */
void frnn_limit_cores(int cores);

/* How many threads a call may use now, of those it wants: fewer where other callers are at work, and one
 * for a while after a core turned out to be busy with something else. */
int frnn_available(int wanted);

/* What it costs to share work. */
typedef struct frnn_company {
    float phase; /* nanoseconds that a phase takes beside its work: threads wait for one another, and what one
                  * wrote is on its way to the next */
    float work;  /* how many times as long work takes beside that of others: 2 where two threads share a core */
} frnn_company;

/* As it was tried out on so many threads lately, or the usual if it was not. */
frnn_company frnn_company_now(int threads, frnn_company usual);

/* One caller more (1) or less (-1) works alone, outside this module. */
void frnn_count_caller(int more);

/* From now on the child of a fork begins anew; called once, before anything else. */
void frnn_watch_forks(void);

/* Run the grid on `threads` threads at most, the caller among them; return when all of it is done. A slice
 * that takes far longer than `longest` nanoseconds is held up by something else on its core: no more of
 * the grid is given to others then, and on Linux its thread is moved to the caller's core, which sleeps. Behind
 * a job of 50 microseconds, at most once in 10 milliseconds, company is tried out: 15 microseconds where cores are
 * close together. */
void frnn_share(frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest);

#endif
