"""Where the states of a pool's streams lie: in one piece of memory, a record for each slot.

A record holds the arrays of a stream's state one after the other: of each recurrent layer h (L, P), and c
(L, H) where it has one. Another way to allocate records changes this file alone. Nothing here is a Python
object, and whoever has the pool's turn alone touches it (caller_queue.pxd). The functions are inline since
one module alone uses them.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from fastrnn.engine.backend cimport FRNN_LINE
from fastrnn.engine.workspace cimport aligned


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef struct Records:
    # Begins as zeros, but for `bytes` and `initial`.
    void *memory
    char *data                  # (capacity, bytes), at the beginning of a cache line
    Py_ssize_t bytes            # of a record
    Py_ssize_t capacity
    const char *initial         # what a record begins as; NULL: zeros


cdef inline Py_ssize_t record_bytes(Py_ssize_t size) noexcept nogil:
    """The bytes of a record that holds this many.

    An odd number of cache lines: where it is a power of 2, records crowd into few sets of the cache. A step
    of 256 streams, LSTM of 512 units, then takes 1.04 to 1.07 times as long (Zen 3, in turns).
    """
    return aligned(size) | FRNN_LINE


cdef inline bint grow_records(Records *records, Py_ssize_t capacity) noexcept nogil:
    """Have this many records at least; those there are keep their content. False: there is no memory."""
    cdef void *memory
    cdef void *before = records.memory
    cdef char *data
    if capacity <= records.capacity:
        return True
    if capacity > (PY_SSIZE_T_MAX - FRNN_LINE) // records.bytes:
        return False
    memory = PyMem_RawMalloc(capacity * records.bytes + FRNN_LINE)
    if memory == NULL:
        return False
    data = <char *>aligned(<uintptr_t>memory)
    if records.capacity:
        memcpy(data, records.data, records.capacity * records.bytes)
    records.memory = memory
    records.data = data
    records.capacity = capacity
    # Last: the child of a fork frees what is in `records`, and must not free it again.
    PyMem_RawFree(before)
    return True


cdef inline void free_records(Records *records) noexcept nogil:
    PyMem_RawFree(records.memory)


cdef inline char *record_of(const Records *records, Py_ssize_t slot) noexcept nogil:
    return records.data + slot * records.bytes


cdef inline void clear_record(const Records *records, Py_ssize_t slot) noexcept nogil:
    if records.initial == NULL:
        memset(record_of(records, slot), 0, records.bytes)
    else:
        memcpy(record_of(records, slot), records.initial, records.bytes)


cdef inline void read_records(
    const Records *records, const Py_ssize_t *slots, Py_ssize_t n, Py_ssize_t offset, Py_ssize_t bytes,
    char *target,
) noexcept nogil:
    """Copy these bytes of each record, from offset on, to target (n, bytes)."""
    cdef Py_ssize_t i
    for i in range(n):
        memcpy(target + i * bytes, record_of(records, slots[i]) + offset, bytes)


cdef inline void write_records(
    const Records *records, const Py_ssize_t *slots, Py_ssize_t n, Py_ssize_t offset, Py_ssize_t bytes,
    const char *source,
) noexcept nogil:
    """The other way round: source (n, bytes) into the records."""
    cdef Py_ssize_t i
    for i in range(n):
        memcpy(record_of(records, slots[i]) + offset, source + i * bytes, bytes)
