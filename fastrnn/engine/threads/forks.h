/* The fork guard: what is called when the process is forked.
 *
 * Only the thread that forks is there in the child. Locks of the other threads stay locked, and what they
 * were at stays half done. Each part of the library that has such things puts them right in a function of its
 * own, which is called in the child before fork() returns there.
 *
 * Processes on Windows do not fork: no function is ever called there.
 */
#ifndef FRNN_FORKS_H
#define FRNN_FORKS_H

/* Nothing of this is seen outside the compiled module, so none of it is reached through a table. */
#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Zero it, set `forked`, and watch. It must not move while it is watched. */
typedef struct frnn_watcher {
    void (*forked)(struct frnn_watcher *self);
    struct frnn_watcher *next, *previous; /* the other watchers; not the owner's to touch */
} frnn_watcher;

/* How many forks led to this process, plus 1. Counted from the first watcher on: the team is one, and is
 * there once the library is loaded. */
unsigned long frnn_fork_generation(void);

/* From now on the watcher's function is called in the child of every fork, by the one thread that is there.
 * Watchers are called in the order in which they came, and the new generation is counted before them. A
 * function must not call Python, and must not watch or unwatch. Does nothing if it is watched already. */
void frnn_watch_forks(frnn_watcher *watcher);

/* Never call it again. The watcher's memory may be freed afterwards. Does nothing if it is not watched. */
void frnn_unwatch_forks(frnn_watcher *watcher);

/* From now on `lock` is called before every fork, and `unlock` after it in parent and child. So no other
 * thread is in the middle of what it guards. It comes before what libraries do before a fork, if they were loaded
 * earlier, and it is still locked when watchers are called in the child. */
void frnn_lock_over_forks(void (*lock)(void), void (*unlock)(void));

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
