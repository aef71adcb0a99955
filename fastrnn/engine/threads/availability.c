#include "internals.h"

#if FRNN_HAS_THREADS

enum {
    BACK_OFF_NS = 1000 * 1000, /* how long calls get one thread after a core turned out to be busy, */
    MOST_DOUBLINGS = 6,        /* doubled at most this often while that happens again and again: 64 ms */
};

/* If it comes soon after the last time, the while is twice as long. Once a job. */
void frnn_back_off(void)
{
    if (atomic_load(&frnn_team.threads) == 1)
        return;
    const long long now = frnn_now_ns(), quiet = now - atomic_load(&frnn_team.backed_off_until);
    if (quiet > 2 * ((long long)BACK_OFF_NS << frnn_team.doublings))
        frnn_team.doublings = 0;
    else if (frnn_team.doublings < MOST_DOUBLINGS)
        frnn_team.doublings++;
    atomic_store(&frnn_team.backed_off_until, now + ((long long)BACK_OFF_NS << frnn_team.doublings));
    atomic_store(&frnn_team.threads, 1);
    frnn_forget_places(); /* the busy core may be one that a worker was put on */
}

int frnn_available(int wanted)
{
    if (wanted < 2 || atomic_load(&frnn_team.is_taken)
        || frnn_now_ns() < atomic_load(&frnn_team.backed_off_until))
        return 1;
    const int left = frnn_cores() - atomic_load(&frnn_team.callers);
    return left < 2 ? 1 : left < wanted ? left : wanted;
}

void frnn_count_caller(int more)
{
    atomic_fetch_add(&frnn_team.callers, more);
}

#endif
