"""Live sequences: `Stream`, one of them or rows in step, and `StreamPool`, many of them stepped as one batch.

Who may step, which ids are open and where states lie is decided here. What a step computes is decided by the
operators. In the order of reading:

    live_chain           whether layers can be live, and how arguments become plain arrays
    stream, stream_base  Stream, and its compiled steps
    pool, open_streams   StreamPool, and the compiled part that it has
    caller_queue         who has the turn next, of those who call a pool
    ids                  which ids are open
    state_records        where the states of a pool lie: memory, growth, copies
    groups               streams of a pool that are stepped together
    errors               what streams and pools raise
"""
