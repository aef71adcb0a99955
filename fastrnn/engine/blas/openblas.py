"""Finds the functions that set the number of threads of SciPy's OpenBLAS."""

import importlib.util
import os


def openblas_of_scipy() -> tuple[int, int] | None:
    """Return the addresses of the functions that get and set the number of threads of SciPy's OpenBLAS.

    This is the library inside SciPy's wheels, which scipy.linalg has loaded already. None if SciPy uses
    another BLAS.
    """
    import ctypes
    import glob

    spec = importlib.util.find_spec("scipy")
    package = os.path.dirname(spec.origin) if spec is not None and spec.origin else ""
    for folder in (f"{package}.libs", os.path.join(package, ".dylibs")):
        for path in glob.glob(os.path.join(glob.escape(folder), "*openblas*")):
            try:
                library = ctypes.CDLL(path)
                functions = library.scipy_openblas_get_num_threads, library.scipy_openblas_set_num_threads
            except (OSError, AttributeError):
                continue
            get, set = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
            if get and set:
                return get, set
    return None
