from fastrnn.engine.backend cimport frnn_cell


cdef class PackedCell:
    cdef frnn_cell cell
    cdef readonly object memory  # what the pointers of `cell` point into; or None, and they point into
    cdef tuple rows              # the arrays of weights as torch has them
