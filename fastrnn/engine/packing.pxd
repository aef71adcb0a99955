"""Packed weights: those of one cell, laid out by a backend."""

from fastrnn.engine.backend cimport frnn_backend, frnn_cell, frnn_format_bytes, frnn_matrix


cdef class PackedCell:
    cdef frnn_cell cell
    cdef const frnn_backend *backend  # that packed it, and alone can run it
    cdef readonly object memory  # what the pointers of `cell` point into; or None, and they point into
    cdef tuple rows              # the arrays of weights as torch has them


cdef inline Py_ssize_t matrix_bytes(const frnn_matrix *matrix) noexcept nogil:
    """The bytes of its numbers, without what packing adds; 0 where there is none."""
    if matrix.data == NULL:
        return 0
    return matrix.rows * matrix.columns * frnn_format_bytes(matrix.format)
