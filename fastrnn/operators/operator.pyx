"""What all operators are."""

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc

cnp.import_array()


cdef class Operator:
    """What a layer computes, without its checks. Immutable, shared by threads; it holds no state."""

    cdef int begin(self, const Contract *can, Trait trait, dtype) except -1:
        """What every operator sets first; dtype: that of what it gives."""
        dtype = np.dtype(dtype)
        self.info.can = can
        self.info.trait = trait
        self.info.threads = 1
        self.info.itemsize = dtype.itemsize
        self.type_number = dtype.num
        return 0

    def apply(self, cnp.ndarray x, cnp.ndarray out):
        """Run an operator without a state: x (n, features), or (n,) of tokens, into out (n, features).

        Both are C-contiguous and of its types, and apart unless it may run in place.
        """
        cdef Extent extent
        cdef OperatorInfo info = self.info
        cdef const char *source = cnp.PyArray_BYTES(x)
        cdef char *target = cnp.PyArray_BYTES(out)
        cdef void *use = PyMem_RawMalloc(info.use_bytes + 1)  # NULL is no memory
        if use == NULL:
            raise MemoryError
        extent.T = 1
        extent.B = cnp.PyArray_DIM(x, 0)
        extent.is_batch_first = False
        extent.order = NULL
        extent.is_strided = False
        info.features_out = cnp.PyArray_DIM(out, 1)
        if info.features_in == 0:
            info.features_in = info.features_out
        with nogil:
            if info.can.plan != NULL:
                info.can.plan(&info, use, &extent, info.threads)
            info.can.run(&info, use, &extent, source, target)
        PyMem_RawFree(use)
