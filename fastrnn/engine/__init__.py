"""The compiled core. It runs recurrent layers, and the products and row functions of others.

Nothing here checks an argument, knows the name of a layer's parameter, reads a model file, or keeps a state
between calls. In the order of reading:

    backend.h, backend   the contract between drivers and backends; how to add to it
    array_kernels        the contract of the kernels of arrays, which programs and row functions use
    simd/, blas/         the backends: our kernels, and SciPy's BLAS
    backends             which backend runs a layer; `show_config`
    packing              lays out a layer's weights for a backend, once; weight_memory: where they lie
    layer_stack          the packed cells of a recurrent layer
    blocks               how many steps and rows a call has, and how time is cut
    cost                 the cost model
    plan                 how a call is divided among threads, and how its passes are made
    call, memory_layout  the arrays and memory of a call, and where they lie
    addresses, steps     small functions that every driver inlines
    row_order            the order of the rows of a ragged batch
    passes               a driver: one direction of one layer over a block of time
    divisions            what a slice does in a phase, for each way to divide a call
    workspace            memory that later calls use again
    plain_arrays         whether arguments are plain arrays
    threads/             the team of threads that calls share
"""
