/* What forks.c promises, for test_forks.py: a process that forks again and again while other threads watch
 * and unwatch. Its exit status is the line of the first promise that is broken, modulo 256. */

#include "threads/forks.c"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 200, CHANGERS = 3 };

#define CHECK(claim) ((claim) ? (void)0 : _exit(__LINE__ % 256))

typedef struct {
    frnn_watcher watcher; /* first, so that a pointer to it is one to the whole */
    int called;               /* 0: never; n: it was the nth call of all, */
    unsigned long generation; /* at this generation */
} watched;

static int calls;
static int is_locked, locks; /* what is locked over a fork, and how often that was done */

static void lock(void)
{
    CHECK(!is_locked);
    is_locked = 1;
    locks++;
}

static void unlock(void)
{
    CHECK(is_locked);
    is_locked = 0;
}

static void note(frnn_watcher *self)
{
    watched *mine = (watched *)self;
    CHECK(is_locked);
    mine->called = ++calls;
    mine->generation = frnn_fork_generation();
}

static void ignore(frnn_watcher *self)
{
    (void)self;
}

/* The exit status of a child that runs the rest. */
static int status_of(pid_t pid)
{
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static volatile int is_over;

/* Changes the list all the time. */
static void *change(void *argument)
{
    (void)argument;
    frnn_watcher own[3];
    memset(own, 0, sizeof own);
    for (int i = 0; i < 3; i++)
        own[i].forked = ignore;
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        for (int i = 0; i < 3; i++)
            frnn_watch_forks(&own[i]);
        for (int i = 0; i < 3; i++)
            frnn_unwatch_forks(&own[(i + 1) % 3]);
    }
    return NULL;
}

int main(void)
{
    static watched first, gone, second, last;
    first.watcher.forked = gone.watcher.forked = second.watcher.forked = last.watcher.forked = note;

    frnn_unwatch_forks(&gone.watcher); /* was never watched: nothing happens */
    CHECK(frnn_fork_generation() == 1);
    frnn_watch_forks(&first.watcher);
    frnn_watch_forks(&gone.watcher);
    frnn_watch_forks(&second.watcher);
    frnn_watch_forks(&second.watcher); /* a second time: nothing happens */
    frnn_watch_forks(&last.watcher);
    frnn_unwatch_forks(&gone.watcher);
    frnn_lock_over_forks(lock, unlock);

    /* In the child: each once, in order, after the generation. */
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(frnn_fork_generation() == 2 && calls == 3);
        CHECK(locks == 1 && !is_locked);
        CHECK(first.called == 1 && second.called == 2 && last.called == 3 && gone.called == 0);
        CHECK(first.generation == 2 && last.generation == 2);
        /* The child's own list works, and so does its own child's. */
        frnn_unwatch_forks(&second.watcher);
        frnn_watch_forks(&gone.watcher);
        pid = fork();
        if (pid == 0) {
            CHECK(frnn_fork_generation() == 3 && calls == 6);
            CHECK(first.called == 4 && last.called == 5 && gone.called == 6 && second.called == 2);
            _exit(0);
        }
        _exit(status_of(pid));
    }
    CHECK(status_of(pid) == 0);
    CHECK(frnn_fork_generation() == 1 && calls == 0); /* no watcher is called in the parent */
    CHECK(locks == 1 && !is_locked);

    /* While other threads change the list, every child finds it whole. */
    pthread_t changers[CHANGERS];
    for (int i = 0; i < CHANGERS; i++)
        CHECK(pthread_create(&changers[i], NULL, change, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid = fork();
        if (pid == 0) {
            CHECK(calls == 3 && first.called == 1 && second.called == 2 && last.called == 3);
            frnn_unwatch_forks(&last.watcher);
            _exit(0);
        }
        CHECK(status_of(pid) == 0);
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < CHANGERS; i++)
        pthread_join(changers[i], NULL);
    return 0;
}
