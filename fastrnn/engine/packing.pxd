"""Packed weights: those of one cell, laid out by a backend."""

from fastrnn.engine.backend cimport frnn_backend, frnn_cell, frnn_format_bytes, frnn_matrix, frnn_source


cdef class PackedCell:
    cdef frnn_cell cell
    cdef const frnn_backend *backend  # that packed it, and alone can run it
    cdef readonly object memory  # what the pointers of `cell` point into, or None
    cdef tuple rows              # or they point into these: arrays as torch has them

    cdef tuple take(
        self, frnn_matrix *matrix, Py_ssize_t gates, products, weight, frnn_source *source)
    cdef bint points_to(self, const void *data)


cdef inline Py_ssize_t matrix_bytes(const frnn_matrix *matrix) noexcept nogil:
    """The bytes of its numbers, without what packing adds; 0 where there is none."""
    if matrix.data == NULL:
        return 0
    return matrix.rows * matrix.columns * frnn_format_bytes(matrix.products.format)
