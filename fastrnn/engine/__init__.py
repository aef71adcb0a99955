"""The compiled core: it runs recurrent layers, and the products of others, on packed weights.

A call is planned first (`plan`): how it is divided among threads, and where its memory lies. The drivers
then make its steps on a backend, `simd` (our kernels) or `blas` (SciPy's). `packing` lays weights out for a
backend once, and `threads` is the team that calls share.

Nothing here checks an argument, knows the name of a layer's parameter, reads a file, or keeps a state.
"""
