#include "internals.h"

#if FRNN_HAS_THREADS

enum { PATIENCE_NS = 3 * 1000 }; /* how long a slice waits for its own thread before another takes it */

/* Claim a slice of a phase and run it as one of the threads; whether there was one to claim. */
static int run_slice(uint32_t job, ptrdiff_t phase, int slice, int self)
{
    unsigned long long claim = FRNN_COUNT(job, phase);
    if (atomic_load_explicit(&frnn_team.claims[slice].value, memory_order_relaxed) != claim
        || !atomic_compare_exchange_strong(&frnn_team.claims[slice].value, &claim, claim + 1))
        return 0;
    atomic_store_explicit(&frnn_team.workers[self].is_at_work, 1, memory_order_relaxed);
    /* The job cannot end before this slice does, so it is ours to read. */
    frnn_team.work(frnn_team.context, phase, slice);
    atomic_store_explicit(&frnn_team.workers[self].is_at_work, 0, memory_order_relaxed);
    atomic_store(&frnn_team.done[slice].value, claim + 1);
    frnn_wake_waiting();
    return 1;
}

ptrdiff_t frnn_take_part(uint32_t job, int self)
{
    ptrdiff_t ran_in_all = 0;
    int seen = -1; /* the phase */
    const ptrdiff_t phases = atomic_load(&frnn_team.phases);
    const int slices = atomic_load(&frnn_team.slices);
    const long long held_up = atomic_load(&frnn_team.held_up);
    long long since = 0; /* when it began to wait; 0: just now */
    int patience = PATIENCE_NS;
    for (unsigned spins = 0;; spins++) {
        const int phase = frnn_phase(job, slices);
        const int threads = atomic_load(&frnn_team.threads);
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
        frnn_pause();
        if (patience != 0 && spins % 16 != 15)
            continue;
        const long long now = frnn_now_ns();
        if (since == 0)
            since = now;
        if (now - since >= patience) {
            for (int slice = 0; slice < slices && !ran; slice++)
                ran = run_slice(job, phase, slice, self);
            ran_in_all += ran;
            /* A thread that did not come is not waited for the next time, until it is at work again. */
            patience = ran ? 0 : PATIENCE_NS;
        }
        if (ran) {
            since = 0;
            continue;
        }
        /* All slices are claimed, and one takes far too long. If this thread sleeps, that one can have its
         * core. */
        if (threads == 1 || now - since > held_up) {
            if (frnn_phase(job, slices) != phase)
                continue; /* it was this thread that was held up */
            if (self == 0 && threads > 1) {
                frnn_back_off();
                frnn_fetch_held_up();
            }
            frnn_sleep_during_phase(job, slices, phase);
        }
    }
}

#endif
