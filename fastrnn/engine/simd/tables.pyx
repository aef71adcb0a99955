"""The simd backend: packed panels and fused kernels, one build of one C source per instruction set."""

from cpython.pycapsule cimport PyCapsule_New

from fastrnn.engine.backend cimport frnn_arithmetic_name, frnn_backend, frnn_isas, frnn_storage_name


def _read_isas():
    cdef int i = 0
    names, tables = [], {}
    while frnn_isas[i].name != NULL:
        name = frnn_isas[i].name.decode()
        names.append(name)
        if frnn_isas[i].is_there():
            tables[name] = read_tables(frnn_isas[i].tables)
        i += 1
    return tuple(names), tables


cdef dict read_tables(const frnn_backend *const *tables):
    cdef int i = 0
    found = {}
    while tables[i] != NULL:
        arithmetic = frnn_arithmetic_name(tables[i].arithmetic).decode()
        storage = frnn_storage_name(tables[i].format.storage).decode()
        found[arithmetic, storage] = PyCapsule_New(<void *>tables[i], "fastrnn.backend", NULL)
        i += 1
    return found


# The instruction sets that are built, from the plainest to the widest. For those that this processor has, the
# tables by (arithmetic, storage).
ISAS, TABLES = _read_isas()
