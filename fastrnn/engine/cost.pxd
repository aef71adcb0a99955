"""The cost model: the nanoseconds that one core should take for a piece of work.

What the multiply-adds and the weights of a matrix take is in the table of its products (frnn_rates in
backend.h). The constants here are, as those rates, of a core from about 2020 on.
"""

from fastrnn.engine.backend cimport frnn_format_bytes, frnn_matrix, frnn_rates
from fastrnn.engine.layer_stack cimport Stack

cdef extern from *:
    """
    #define FRNN_NEAR_BYTES (512.0 * 1024)   /* weights that stay in it from step to step */
    #define FRNN_SHOWN 0.2                   /* of the shorter of the two: not hidden */
    #define FRNN_EXCHANGED_BYTES_PER_NS 20.0 /* of h that another core wrote */
    #define FRNN_STEP_NS 60.0                /* a step, besides its products */
    """
    const double NEAR_BYTES "FRNN_NEAR_BYTES"
    const double SHOWN "FRNN_SHOWN"
    const double EXCHANGED_BYTES_PER_NS "FRNN_EXCHANGED_BYTES_PER_NS"
    const double STEP_NS "FRNN_STEP_NS"


cdef inline double product_ns(const frnn_matrix *matrix, double rows, double share) noexcept nogil:
    """The products of some rows with a share of a matrix."""
    cdef const frnn_rates *rates = &matrix.products.rates
    cdef double weights = <double>matrix.rows * matrix.columns * share
    cdef double size = weights * frnn_format_bytes(matrix.products.format)
    cdef double products = rows * weights / rates.products_per_ns
    cdef double far = max(0.0, size - NEAR_BYTES)
    cdef double near_ns = (size - far) / rates.near_bytes_per_ns
    cdef double reading = near_ns + far / rates.far_bytes_per_ns
    return max(products, reading) + SHOWN * min(products, reading)


cdef inline double exchange_ns(const Stack *stack, double rows, int slices) noexcept nogil:
    """Fetching the h that the other slices of a step wrote."""
    cdef double size = rows * stack.output_size * stack.itemsize
    return size * (slices - 1) / slices / EXCHANGED_BYTES_PER_NS


# The directions of a layer are alike: the cell of the first one stands for both.

cdef inline double project_ns(
    const Stack *stack, Py_ssize_t layer, double steps, double rows, double share,
) noexcept nogil:
    return product_ns(&stack.cells[layer * stack.D].w_ih, steps * rows, share)


cdef inline double step_ns(
    const Stack *stack, Py_ssize_t layer, double rows, double share,
) noexcept nogil:
    return STEP_NS + product_ns(&stack.cells[layer * stack.D].w_hh, rows, share)


cdef inline double stack_ns(const Stack *stack, double steps, double rows, double share) noexcept nogil:
    """All layers and directions, or a share of the units of each."""
    cdef double total = 0
    cdef Py_ssize_t layer
    for layer in range(stack.L):
        total += stack.D * (
            project_ns(stack, layer, steps, rows, share) + steps * step_ns(stack, layer, rows, share))
    return total


cdef inline double stage_ns(const Stack *stack, int stage, double steps, double rows) noexcept nogil:
    """A stage of a pipeline: the projection of a layer (even), or its steps (odd)."""
    if stage % 2 == 0:
        return project_ns(stack, stage // 2, steps, rows, 1)
    return steps * step_ns(stack, stage // 2, rows, 1)


cdef inline double dense_ns(const frnn_matrix *matrix, Py_ssize_t n) noexcept nogil:
    """A projection alone."""
    return <double>n * matrix.columns * matrix.rows / matrix.products.rates.dense_products_per_ns
