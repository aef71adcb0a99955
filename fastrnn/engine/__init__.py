"""The compiled core: it runs recurrent layers, and the products of others, on packed weights.

Nothing here checks an argument, knows the name of a layer's parameter, reads a file, or keeps a state from
one call to the next. In the order of reading:

    backend.h, backend   the contract between drivers and backends; how to add to it
    simd/, blas/         the backends: our kernels, and SciPy's BLAS
    backends             which one runs a layer; `show_config`
    packing              weights, laid out for a backend once
    layer_stack          the packed cells of a recurrent layer
    blocks               how many steps and rows a call has, and how time is cut
    cost                 the cost model
    plan                 how a call is divided among threads
    call, memory_layout  what a call works on, and where its memory lies
    addresses, steps     small functions that every driver inlines
    passes               a driver: one direction of one layer over a block of time
    divisions            what a slice does in a phase, for each way to divide a call
    workspace            memory that is kept from call to call
    plain_arrays         whether arguments are plain arrays
    threads/             the team of threads that calls share
"""
