"""The simd backend: packed weights and fused kernels, one build of one C source for each instruction set.

How a call is divided, and what time and lengths are, is never known here.

    kernels.c            the builds: one for each instruction set
    isa.inc.h            the arithmetics and storages that an instruction set has
    vectors.h            the words in which every formula is said, for each instruction set
    storage.inc.h        what one storage of weights is built of, and its table
    packing.inc.h        where weights lie
    products.inc.h       rows times weights
    operands.inc.h       how rows lie when products read them
    functions.inc.h      exponentials, sigmoid, tanh
    gates.inc.h          from sums to the new state, for each cell
    cells.inc.h          projections and steps, made of products and gates
    row_functions.inc.h           functions of rows: activations, softmax, layer norm
    tables               the tables, for Python
"""
