"""The order of the rows of a ragged batch: longest first, so that the running rows always come first."""

from libc.stdlib cimport qsort

from fastrnn.engine.workspace cimport aligned


cdef struct RowLength:
    Py_ssize_t length
    Py_ssize_t index


cdef struct Order:
    # The rows of a ragged batch, longest first.
    RowLength *rows             # (B,)
    Py_ssize_t *order           # (B,): the batch row of each
    Py_ssize_t *lengths         # (B,)


cdef inline size_t order_bytes(Py_ssize_t B) noexcept nogil:
    """The memory of an order of B rows."""
    return aligned(B * sizeof(RowLength)) + 2 * aligned(B * sizeof(Py_ssize_t))


cdef inline void lay_out_order(Order *order, Py_ssize_t B, char *memory) noexcept nogil:
    """Point an order into memory of `order_bytes(B)`."""
    order.rows = <RowLength *>memory
    memory += aligned(B * sizeof(RowLength))
    order.order = <Py_ssize_t *>memory
    order.lengths = <Py_ssize_t *>(memory + aligned(B * sizeof(Py_ssize_t)))


cdef inline int longest_first(const void *left, const void *right) noexcept nogil:
    """The order of RowLengths, or of what begins with one, for qsort."""
    cdef const RowLength *a = <const RowLength *>left
    cdef const RowLength *b = <const RowLength *>right
    if a.length != b.length:
        return -1 if a.length > b.length else 1
    return -1 if a.index < b.index else 1


cdef inline void sort_rows(
    Order *order, Py_ssize_t T, Py_ssize_t B, const Py_ssize_t *lengths,
) noexcept nogil:
    """Bring rows into order, longest first."""
    cdef Py_ssize_t b
    for b in range(B):
        # Checked already; another thread may have written to the caller's array since.
        order.rows[b].length = min(max(lengths[b], 1), T)
        order.rows[b].index = b
    qsort(order.rows, B, sizeof(RowLength), longest_first)
    for b in range(B):
        order.order[b] = order.rows[b].index
        order.lengths[b] = order.rows[b].length
