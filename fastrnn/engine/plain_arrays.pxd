"""Whether arguments are plain: arrays that need neither conversion nor a message."""

cimport numpy as cnp

cdef extern from "numpy/arrayobject.h":
    bint PyArray_IsIntegerScalar(object number)

cdef extern from *:
    """
    #define frnn_is_duration(x) PyArray_IsScalar(x, Timedelta)
    """
    bint frnn_is_duration(object x)


cdef inline bint is_plain(object array, int axes, const cnp.npy_intp *shape, int type_number) noexcept:
    """Whether that is an ndarray, and no subclass, of that shape and type."""
    cdef int i
    if (
        not cnp.PyArray_CheckExact(array)
        or cnp.PyArray_NDIM(array) != axes
        or cnp.PyArray_TYPE(array) != type_number
    ):
        return False
    for i in range(axes):
        if cnp.PyArray_DIM(array, i) != shape[i]:
            return False
    return True


cdef inline bint is_whole(object x) noexcept:
    """Whether that is a whole number, and no bool."""
    return type(x) is int or (PyArray_IsIntegerScalar(x) and type(x) is not bool and not frnn_is_duration(x))


cdef inline bint are_in_range(object array, Py_ssize_t first, Py_ssize_t last) noexcept:
    """Whether all numbers of a C-contiguous array of intp are from first to last, that excluded."""
    cdef const Py_ssize_t *data = <const Py_ssize_t *>cnp.PyArray_DATA(array)
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(array)):
        if data[i] < first or data[i] >= last:
            return False
    return True


cdef inline bint are_tokens(object x, int axes, const cnp.npy_intp *shape, Py_ssize_t tokens) noexcept:
    """Whether that is a plain array of tokens, all of which there are."""
    return (
        is_plain(x, axes, shape, cnp.NPY_INTP) and cnp.PyArray_ISCARRAY_RO(x) and are_in_range(x, 0, tokens))


cdef inline bint is_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether a C-contiguous array a shares no memory with an array b, as far as their ends tell."""
    cdef const char *low = cnp.PyArray_BYTES(b)
    cdef const char *high = low + cnp.PyArray_ITEMSIZE(b)
    cdef Py_ssize_t reach
    cdef int i
    if cnp.PyArray_SIZE(b) == 0:
        return True
    for i in range(cnp.PyArray_NDIM(b)):
        reach = (cnp.PyArray_DIM(b, i) - 1) * cnp.PyArray_STRIDE(b, i)
        if reach < 0:
            low += reach
        else:
            high += reach
    return cnp.PyArray_BYTES(a) + cnp.PyArray_NBYTES(a) <= low or high <= cnp.PyArray_BYTES(a)
