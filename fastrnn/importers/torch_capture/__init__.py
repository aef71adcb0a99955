"""Any live torch module as one graph of operators.

The module runs a few times at different sizes, with real tensors. Each run is written down operator by
operator. What the runs have in common becomes the graph, and numbers that differ become expressions of sizes.
This package alone imports torch, and only when a module is exported. In the order of reading:

    capture        all of it: sizes, runs, states, proofs
    examples       example inputs at other sizes, and which axes may change
    recorder       one run, written down; aliases: who shares memory; python_calls, reads: what leaves tensors
    state          what a module keeps from call to call
    parts, loops, rolled   Python loops, found and rolled up
    optional       operators that run at some sizes alone
    sizes          numbers as expressions of sizes
    build          the traces of all runs as the nodes of one graph
    packed         packed sequences, as padded ones with lengths
    structure      how tensors are nested in arguments
"""
