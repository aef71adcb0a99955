"""A stack: the cells of a recurrent layer, and how its calls may be divided. Read by all threads."""

from fastrnn.engine.backend cimport frnn_backend, frnn_cell


cdef struct Stack:
    # The cells of L layers in D directions.
    const frnn_cell **cells     # (L*D,): layer by layer, forward before reverse
    const frnn_backend *backend
    Py_ssize_t L, D, input_size, hidden_size, output_size
    Py_ssize_t itemsize         # of the arithmetic
    int item_shift              # its logarithm to the base of 2
    Py_ssize_t gate_bytes       # of a row
    Py_ssize_t part_units       # of a cell
    bint has_cell_state
    bint steps_take_x           # a lone step of any cell may be given x itself


cdef struct Policy:
    # How the calls of a stack may be divided.
    int threads                 # at most
    int division                # the Division that is taken wherever it can be; -1: the cheapest
