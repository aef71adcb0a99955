from fastrnn.engine.backend cimport frnn_cell


cdef class PackedCell:
    cdef frnn_cell cell
    cdef readonly tuple arrays  # what the pointers of `cell` point into
