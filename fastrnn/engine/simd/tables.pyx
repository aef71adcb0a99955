"""The simd backend: packed panels and fused kernels, one build of one C source per instruction set."""

from cpython.pycapsule cimport PyCapsule_New

from fastrnn.engine.backend cimport (
    frnn_arithmetic_name, frnn_backend, frnn_isas, frnn_products, frnn_storage_name,
)


def _read_isas():
    cdef int i = 0
    names, tables, products, asking = [], {}, {}, {}
    while frnn_isas[i].name != NULL:
        name = frnn_isas[i].name.decode()
        names.append(name)
        if frnn_isas[i].is_there():
            tables[name], products[name] = read_tables(frnn_isas[i].products)
            if frnn_isas[i].may_be_used != NULL:
                asking[name] = i
        i += 1
    return tuple(names), tables, products, asking


def may_be_used(str name):
    """Ask the system whether an instruction set may be used, where it has to be asked."""
    return name not in ASKING or bool(frnn_isas[<int>ASKING[name]].may_be_used())


cdef tuple read_tables(const frnn_products *const *products):
    cdef const frnn_backend *backend
    cdef int i = 0
    by_arithmetic, by_both = {}, {}
    while products[i] != NULL:
        backend = products[i].backend
        arithmetic = frnn_arithmetic_name(backend.arithmetic).decode()
        storage = frnn_storage_name(products[i].format.storage).decode()
        by_arithmetic[arithmetic] = PyCapsule_New(<void *>backend, "fastrnn.backend", NULL)
        by_both[arithmetic, storage] = PyCapsule_New(<void *>products[i], "fastrnn.products", NULL)
        i += 1
    return by_arithmetic, by_both


# The instruction sets that are built, from the plainest to the widest. For those that this processor has, the
# tables by arithmetic, and the products by (arithmetic, storage). And the numbers of those that the system
# has to be asked for.
ISAS, TABLES, PRODUCTS, ASKING = _read_isas()
