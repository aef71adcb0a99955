"""Live sequences: `Stream` for one, or for rows that step together, and `StreamPool` for many.

This folder decides who may step, which ids are open and where states lie. Operators decide what a step
computes. In the order of reading:

    live_chain           whether layers can be live, and how arguments become plain arrays
    stream, stream_base  Stream, and its compiled steps
    stream_holder        which thread has a stream
    pool, open_streams   StreamPool, and its compiled part
    caller_queue         which of the callers of a pool has the next turn
    ids                  which ids are open
    state_records        where the states of a pool lie: memory, growth, copies
    groups               streams of a pool that are stepped together
    atomics              numbers that several threads read and write
    errors               what streams and pools raise
"""
