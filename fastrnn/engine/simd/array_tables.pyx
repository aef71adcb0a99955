"""The kernels of arrays: a table for each instruction set and arithmetic, and the names of what maps can
do."""

from cpython.pycapsule cimport PyCapsule_New

from fastrnn.engine.array_kernels cimport (
    frnn_array_isas, frnn_array_kernels, frnn_integer_names, frnn_map_names,
)


cdef dict read_isas():
    cdef int i = 0
    tables = {}
    while frnn_array_isas[i].name != NULL:
        if frnn_array_isas[i].is_there():
            tables[frnn_array_isas[i].name.decode()] = read_tables(frnn_array_isas[i].tables)
        i += 1
    return tables


cdef dict read_tables(const frnn_array_kernels *const *tables):
    cdef int i = 0
    found = {}
    while tables[i] != NULL:
        found[tables[i].arithmetic.decode()] = PyCapsule_New(<void *>tables[i], "fastrnn.array_kernels", NULL)
        i += 1
    return found


cdef dict read_names(const char *const *names):
    cdef int i = 0
    found = {}
    while names[i] != NULL:
        found[names[i].decode().lower()] = i
        i += 1
    return found


# For the instruction sets that this processor has, from the plainest to the widest, the tables by arithmetic.
ARRAY_TABLES = read_isas()
# The numbers of the operations of maps by their names: of floating-point and of whole numbers.
MAP_OPERATIONS = read_names(frnn_map_names)
INTEGER_OPERATIONS = read_names(frnn_integer_names)
