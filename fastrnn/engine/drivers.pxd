"""The drivers: what runs a call that is planned (_plan.pxd)."""

from fastrnn.engine.backend cimport frnn_backend, frnn_cell
from fastrnn.engine.plan cimport Call, Rows, Stack


cdef int longest_first(const void *left, const void *right) noexcept nogil
cdef void execute(
    const Stack *stack, Call *call, Rows source, Rows target, const Py_ssize_t *lengths,
) noexcept nogil
cdef void run_dense(
    const frnn_backend *backend, const frnn_cell *cell, Py_ssize_t n, const void *x, void *out, int threads,
) noexcept nogil
