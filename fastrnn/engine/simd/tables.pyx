"""The simd backend: packed panels and fused kernels, one build of one C source per instruction set."""

from cpython.pycapsule cimport PyCapsule_New

from fastrnn.engine.backend cimport FRNN_F32, FRNN_F64, frnn_backend, frnn_isas


def _read_isas():
    cdef int i = 0
    names, tables = [], {}
    while frnn_isas[i].name != NULL:
        name = frnn_isas[i].name.decode()
        names.append(name)
        if frnn_isas[i].is_there():
            tables[name] = {
                "float32": as_capsule(frnn_isas[i].tables[<int>FRNN_F32]),
                "float64": as_capsule(frnn_isas[i].tables[<int>FRNN_F64]),
            }
        i += 1
    return tuple(names), tables


cdef object as_capsule(const frnn_backend *table):
    return PyCapsule_New(<void *>table, "fastrnn.backend", NULL)


# The instruction sets that are built, from the plainest to the widest; and for those that this
# processor has, the tables by dtype.
ISAS, TABLES = _read_isas()
