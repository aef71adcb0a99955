"""The simd backend: packed weights and fused kernels. One C source is built for each instruction set.

Nothing here knows time, lengths, or how a call is divided. In the order of reading:

    kernels.c            the builds: one for each instruction set
    isa.inc.h            the arithmetics and storages that an instruction set has
    vectors.h            the vector operations that every formula uses, for each instruction set
    arithmetic.inc.h     what one arithmetic is built of, and its table
    storage.inc.h        what one storage of weights is built of, and its table
    tuning.h             constants that were found by measuring
    bundles.h            where the units of a packed matrix lie
    layout.inc.h         how the gates, biases and states of a cell lie
    packing.inc.h        how weights are packed
    products.inc.h       rows times weights
    operands.inc.h       how rows lie when products read them
    functions.inc.h      exponentials, sigmoid, tanh
    gates.inc.h          from sums to the new state, for each cell
    cells.inc.h          projections and steps, made of products and gates
    row_functions.inc.h  functions of rows: activations, softmax, layer norm
    tables               the tables, for Python

Kernels of arrays, for what a program computes between its recurrent layers, are a file of their own:

    array_kernels.c      the builds, and the parts of the kernels, each in its file
    array_tables         the tables, for Python
"""
