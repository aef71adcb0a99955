"""Programs that run chunk by chunk: from a graph over whole sequences to one over the next steps.

Every value is followed with where its time axis lies (`follow`). Operators that compute each step apart pass
(`rows`, `shapes`). The others keep something from chunk to chunk: the tails that windows look back at
(`windows`, `parts`), the states of recurrent layers and loops (`recurrent`). `chunks` writes the graph of one
chunk, `sessions` runs chunks, and `stream` and `pool` are what users have. Nothing here computes a number.
"""
