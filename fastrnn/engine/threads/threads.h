/* The team: the library's threads, and the grids of work that they share.
 *
 * Work is a grid of phases and slices. The slices of a phase do not depend on one another and may run at the
 * same time. A phase begins when all slices of the phase before it are done. Every slice of every phase is
 * run exactly once, by the thread that claims it first.
 *
 * Each thread prefers its own slices, so that what they read stays in its caches from phase to phase. A
 * thread that has nothing else to do takes the slices of one that does not come, because it sleeps or its
 * core is busy with another process. So the caller finishes the whole grid alone if nobody helps, and the
 * result never depends on who came.
 *
 * A caller is one of the threads of its grid, the others are the team's workers. They are started on first
 * use, and again after a fork. They hold none of Python's locks. Between two grids they spin for a short
 * while, then they sleep. One caller has the team at a time; others run alone.
 */
#ifndef FRNN_THREADS_H
#define FRNN_THREADS_H

#include <stddef.h>

/* Nothing of this is seen outside the compiled module, so none of it is reached through a table. */
#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

typedef void (*frnn_work)(void *context, ptrdiff_t phase, int slice);

enum { FRNN_MOST_THREADS = 64 };

/* Make the team ready, without a worker yet. Called once, before anything else. */
void frnn_begin_team(void);

/* The cores that the calling thread may run on now, FRNN_MOST_THREADS at most. */
int frnn_cores(void);

/* Use no more cores than these: the share of a control group, rounded up. 0: no limit. */
void frnn_limit_cores(int cores);

/* How many threads a call may use now, at most `wanted`. Fewer if other callers are at work; 1 for a while
 * after a core turned out to be busy with something else. */
int frnn_available(int wanted);

/* What it costs to divide work among threads. */
typedef struct frnn_sharing_cost {
    /* Nanoseconds that a phase takes besides its work: threads wait for one another, and what one of them
     * wrote has to reach the others. */
    float phase_ns;
    /* How many times longer work takes next to that of the other threads; 2 if two threads share a core. */
    float slowdown;
} frnn_sharing_cost;

/* The cost among this many threads, as a trial measured it lately; `usual` if there was no trial lately. */
frnn_sharing_cost frnn_sharing_cost_now(int threads, frnn_sharing_cost usual);

/* One caller more (1) or less (-1) is at work without the team. */
void frnn_count_caller(int more);

/* Run the grid on at most this many threads, the caller among them. Returns when all of it is done.
 *
 * A slice that takes far longer than `longest` nanoseconds is held up by something else on its core. Then no
 * more of the grid is given to workers, and on Linux the worker that is held up is moved to the core of the
 * caller, which sleeps meanwhile.
 *
 * After a job of 50 microseconds, at most once in 10 milliseconds, a trial measures the sharing cost. It
 * takes 15 microseconds if the cores are close together. */
void frnn_share(frnn_work work, void *context, ptrdiff_t phases, int slices, int threads, double longest);

/* How many grids the team was given so far, trials included. For tests. */
unsigned frnn_jobs(void);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
