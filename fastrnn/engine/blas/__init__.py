"""The blas backend: weights in torch's layout, products by SciPy's BLAS.

It is portable and complete, and the simd backend is tested against it. Importing `kernels` imports
``scipy.linalg.cython_blas``, which takes 120 to 150 ms. So it is imported only when a layer asks for this
backend.

    kernels              the tables of the backend
    openblas             finds the functions that set OpenBLAS's number of threads
"""
