"""Programs that run chunk by chunk: from a graph over whole sequences to one over the next steps.

Every value is followed with where its time axis lies (`follow`). Operators that compute each step apart pass
(`rows`, `shapes`). The others keep something from chunk to chunk: the tails that windows look back at
(`windows`, `parts`), the states of recurrent layers and loops (`recurrent`). `chunks` writes the graph of one
chunk, `sessions` runs chunks, and `stream` and `pool` are what users have. Nothing here computes a number.

The modules, in the order of reading:

    places           where the followed axis of a value lies
    sizes            the shapes of all values at given sizes
    follow           the axis through a whole graph, and how rules are registered
    rows, shapes, parts, windows, recurrent   the rules of operators
    chunks           the graph of one chunk
    sessions         plans of chunks, and the states between them
    first_states     a program without the states that may be left out
    arguments        what users give a chunk, checked
    stream           ProgramStream
    batches, pool    streams as rows of one batch; ProgramPool
"""
