"""What all operators are."""

cimport numpy as cnp
import numpy as np

from fastrnn.engine.threads.team cimport FRNN_MOST_THREADS
from fastrnn.engine.workspace cimport Workspace, aligned

cnp.import_array()


cdef class Operator:
    """What a layer computes, without its checks. Immutable, shared by threads; it holds no state."""

    cdef int begin(self, const Contract *can, dtype, int threads=1) except -1:
        """What every operator sets first; dtype: that of what it gives; threads: that it may use at most."""
        dtype = np.dtype(dtype)
        self.info.can = can
        self.info.threads = max(1, min(threads, FRNN_MOST_THREADS))
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
        cdef Workspace workspace
        cdef size_t use_bytes = aligned(info.use_bytes), size = use_bytes
        cdef double small[8]        # all that a projection needs: its call allocates nothing
        cdef char *use = <char *>small
        extent.T = 1
        extent.B = cnp.PyArray_DIM(x, 0)
        extent.is_batch_first = False
        extent.order = NULL
        extent.is_strided = False
        info.features_out = cnp.PyArray_DIM(out, 1)
        if info.features_in == 0:
            info.features_in = info.features_out
        if info.can.room != NULL:
            size += info.can.room(&info, &extent, info.threads)
        if size > sizeof(small):
            workspace = Workspace()
            workspace.reserve(size)
            use = workspace.data
        if info.can.plan != NULL:
            info.can.plan(&info, use, &extent, info.threads)
        if info.can.lay_out != NULL:
            info.can.lay_out(&info, use, use + use_bytes)
        with nogil:
            info.can.run(&info, use, &extent, source, target)
