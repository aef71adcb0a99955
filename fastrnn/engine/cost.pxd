"""The cost model: the nanoseconds that one core should take for a piece of work.

What a backend's products and weights take is in its table (backend.h). The rates are those of a core from
about 2020 on. What sharing costs is measured at run time, so an error of
half or double changes the plans of those calls alone that gain little either way.
"""

from fastrnn.engine.backend cimport frnn_cell, frnn_format_bytes
from fastrnn.engine.layer_stack cimport Stack

cdef extern from *:
    """
    /* multiply-adds of a projection alone, in any arithmetic */
    #define FRNN_DENSE_PRODUCTS_PER_NS 70.0
    #define FRNN_NEAR_BYTES (512.0 * 1024)   /* weights that stay in it from step to step */
    #define FRNN_SHOWN 0.2                   /* of the shorter of the two: not hidden */
    #define FRNN_EXCHANGED_BYTES_PER_NS 20.0 /* of h that another core wrote */
    #define FRNN_STEP_NS 60.0                /* a step, besides its products */
    """
    const double DENSE_PRODUCTS_PER_NS "FRNN_DENSE_PRODUCTS_PER_NS"
    const double NEAR_BYTES "FRNN_NEAR_BYTES"
    const double SHOWN "FRNN_SHOWN"
    const double EXCHANGED_BYTES_PER_NS "FRNN_EXCHANGED_BYTES_PER_NS"
    const double STEP_NS "FRNN_STEP_NS"


cdef inline double product_ns(
    const Stack *stack, Py_ssize_t columns, double rows, double share,
) noexcept nogil:
    """The products of some rows with a share of a cell's weights of this many columns."""
    cdef double weights = <double>columns * stack.hidden_size * stack.cells[0].gates * share
    cdef double size = weights * frnn_format_bytes(stack.backend.format)
    cdef double products = rows * weights / stack.backend.products_per_ns
    cdef double far = max(0.0, size - NEAR_BYTES)
    cdef double near_ns = (size - far) / stack.backend.near_bytes_per_ns
    cdef double reading = near_ns + far / stack.backend.far_bytes_per_ns
    return max(products, reading) + SHOWN * min(products, reading)


cdef inline double exchange_ns(const Stack *stack, double rows, int slices) noexcept nogil:
    """Fetching the h that the other slices of a step wrote."""
    cdef double size = rows * stack.output_size * stack.itemsize
    return size * (slices - 1) / slices / EXCHANGED_BYTES_PER_NS


cdef inline double project_ns(
    const Stack *stack, Py_ssize_t layer, double steps, double rows, double share,
) noexcept nogil:
    cdef Py_ssize_t columns = stack.input_size if layer == 0 else stack.D * stack.output_size
    return product_ns(stack, columns, steps * rows, share)


cdef inline double step_ns(const Stack *stack, double rows, double share) noexcept nogil:
    return STEP_NS + product_ns(stack, stack.output_size, rows, share)


cdef inline double stack_ns(const Stack *stack, double steps, double rows, double share) noexcept nogil:
    """All layers and directions, or a share of the units of each."""
    cdef double total = 0
    cdef Py_ssize_t layer
    for layer in range(stack.L):
        total += stack.D * (
            project_ns(stack, layer, steps, rows, share) + steps * step_ns(stack, rows, share))
    return total


cdef inline double stage_ns(const Stack *stack, int stage, double steps, double rows) noexcept nogil:
    """A stage of a pipeline: the projection of a layer (even), or its steps (odd)."""
    if stage % 2 == 0:
        return project_ns(stack, stage // 2, steps, rows, 1)
    return steps * step_ns(stack, rows, 1)


cdef inline double dense_ns(const frnn_cell *cell, Py_ssize_t n) noexcept nogil:
    """A projection alone."""
    return <double>n * cell.input_size * cell.hidden_size / DENSE_PRODUCTS_PER_NS
