#include "forks.h"

#include <stddef.h>

#if defined(_WIN32)

unsigned long frnn_fork_generation(void)
{
    return 1;
}

void frnn_watch_forks(frnn_watcher *watcher)
{
    (void)watcher;
}

void frnn_unwatch_forks(frnn_watcher *watcher)
{
    (void)watcher;
}

void frnn_lock_over_forks(void (*lock)(void), void (*unlock)(void))
{
    (void)lock;
    (void)unlock;
}

#else

#include <pthread.h>

static unsigned long generation = 1;

/* A ring through this one, in the order in which they came. */
static frnn_watcher watchers = {NULL, &watchers, &watchers};
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The list is locked over a fork, so that no other thread has changed it by half in the child. */
static void lock_list(void)
{
    pthread_mutex_lock(&mutex);
}

static void unlock_list(void)
{
    pthread_mutex_unlock(&mutex);
}

static void begin_anew(void)
{
    generation++;
    for (frnn_watcher *watcher = watchers.next; watcher != &watchers; watcher = watcher->next)
        watcher->forked(watcher);
    unlock_list();
}

static void register_handlers(void)
{
    pthread_atfork(lock_list, unlock_list, begin_anew);
}

unsigned long frnn_fork_generation(void)
{
    return generation;
}

void frnn_watch_forks(frnn_watcher *watcher)
{
    pthread_once(&once, register_handlers);
    pthread_mutex_lock(&mutex);
    if (watcher->next == NULL) {
        watcher->next = &watchers;
        watcher->previous = watchers.previous;
        watcher->previous->next = watcher;
        watchers.previous = watcher;
    }
    pthread_mutex_unlock(&mutex);
}

void frnn_unwatch_forks(frnn_watcher *watcher)
{
    pthread_mutex_lock(&mutex);
    if (watcher->next != NULL) {
        watcher->previous->next = watcher->next;
        watcher->next->previous = watcher->previous;
        watcher->next = watcher->previous = NULL;
    }
    pthread_mutex_unlock(&mutex);
}

void frnn_lock_over_forks(void (*lock)(void), void (*unlock)(void))
{
    pthread_atfork(lock, unlock, unlock);
}

#endif
