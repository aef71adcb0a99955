"""The blas backend: weights as torch has them, products by SciPy's BLAS.

Portable and complete; the simd backend is tested against it. Importing `tables` imports
``scipy.linalg.cython_blas``, which takes 120 to 150 ms, so it is imported when a layer asks for this backend.
"""
