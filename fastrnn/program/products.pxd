"""What all steps that multiply rows share: how far apart rows lie, and what products cost."""


cdef enum:
    # Rows at a distance of a multiple of CROWD bytes share few sets of a cache (engine/simd/tuning.h). They
    # are laid APART bytes further apart.
    CROWD = 2048
    APART = 320
    FEW_ROWS = 24               # they are multiplied together, wherever they lie
    PRODUCTS_PER_NS = 40        # of one core, about


cdef inline bint is_crowded(Py_ssize_t ld, Py_ssize_t itemsize) noexcept nogil:
    return ld * itemsize % CROWD == 0


cdef inline Py_ssize_t distance_apart(Py_ssize_t columns, Py_ssize_t itemsize) noexcept nogil:
    """The elements from row to row at which rows of this many columns are not crowded."""
    return columns + APART // itemsize if is_crowded(columns, itemsize) else columns


cdef inline double products_ns(double n, double weights) noexcept nogil:
    """The nanoseconds that n rows times this many weights should take."""
    return n * weights / PRODUCTS_PER_NS + weights / 25
