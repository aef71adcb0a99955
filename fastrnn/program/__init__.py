"""Whole models: `Sequential`, a chain of layers, and `Program`, a graph of operators.

Graphs are data (`fastrnn.graph`). Here a graph becomes a plan for given sizes, and runs. Files are read and
written elsewhere (`saving`, `importers`), and layers are defined in `layers`. In the order of reading:

    sequential       chains of layers
    self_test        the tests of a chain: seeded inputs, examples from torch
    program          Program: what users call
    heads            with_heads: a body of layers and several heads, as a program
    layer_nodes      layers as nodes of a graph
    pairs            its golden pairs
    passes           what is done to a graph once: batch norms folded, idle nodes left out
    narrowing        programs with narrow weights, and back
    planner          from a graph and sizes to steps, and where every value lies
    toolbox          what plans make their steps of
    views, types     slices and permutations that cost nothing; the types of results
    axes             what arguments say of axes and sizes
    lowering/        how each operator becomes views, chains of operations and steps
    fusion           chains of element-wise operations, as one step
    memory           which values share memory
    plans, executor  plans that can be run, and what runs them
    caller           calls of plain arrays
    steps            what a plan runs, compiled; map_program: what a map is, in Python
    product_steps, window_steps   products, convolutions and pools; products: what they share
    recurrent_step   recurrent layers
    token_step       rows of a narrow table
    evaluate         a graph by the definitions of its operators, slowly
    streaming/       programs that run chunk by chunk
"""
