"""Which ids of a pool are open.

An id is a slot, in its lowest bits, and above it how often the slot was given out before. So an id that is
closed never comes back. The count begins at a random number, the pool's tag, so that ids of one pool do not
fit another by chance. The functions are inline since one module alone uses them.

Whoever has the pool's turn alone touches all of this (caller_queue.pxd), but for two numbers that anybody may
read: how many slots there are, and how many streams are open.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset

from fastrnn.engine.plain_arrays cimport is_whole
from fastrnn.streaming.atomics cimport Atomic, load, order_writes, read_once, store


cdef extern from "Python.h":
    int64_t PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1


cdef enum:
    SLOT_BITS = 32
    # A slot that was given out this often is not given out again: its ids are used up.
    MOST_USES = 0x7FFFFFFF


cdef enum Fault:
    # What is wrong with an id.
    NONE
    UNKNOWN
    CLOSED
    REPEATED
    NO_ROOM                     # nothing: there is no memory to look for it


cdef struct Slot:
    int64_t uses                # how often it was given out before, counted from the tag
    int64_t call                # the last call that named it
    Py_ssize_t vacant           # by place, not by slot: the slots that are free, the next one last
    bint is_open


cdef struct Ids:
    # Begins as zeros, but for the tag.
    Slot *slots                 # (capacity,)
    Atomic capacity, opened
    Py_ssize_t vacancies
    int64_t tag
    int64_t call


cdef inline Py_ssize_t read_ids(ids, Py_ssize_t n, int64_t *numbers) except -2:
    """Read n whole numbers of a list or a tuple; give the index of one that is none, or -1. A number that is
    too large is read as -1, which no id is."""
    cdef Py_ssize_t i
    cdef int overflow
    for i in range(n):
        number = ids[i]
        if not is_whole(number):
            return i
        if type(number) is not int:
            number = int(number)
        numbers[i] = PyLong_AsLongLongAndOverflow(number, &overflow)
        if overflow:
            numbers[i] = -1
    return -1


cdef inline int64_t tag_of(uint32_t random) noexcept nogil:
    """A pool's tag, of 20 random bits. Until a slot was given out a million times the ids stay below 2^53,
    where JavaScript's numbers hold them too."""
    return random >> 12 | 1


cdef inline Py_ssize_t slot_of(int64_t id) noexcept nogil:
    return <Py_ssize_t>(id & (<int64_t>1 << SLOT_BITS) - 1)


cdef inline int64_t uses_of(int64_t id) noexcept nogil:
    return id >> SLOT_BITS


cdef inline int64_t id_of(const Ids *ids, Py_ssize_t slot) noexcept nogil:
    return ids.slots[slot].uses << SLOT_BITS | slot


cdef inline bint grow_ids(Ids *ids, Py_ssize_t capacity) noexcept nogil:
    """Have this many slots, more than there were. False: there is no memory, and nothing has changed."""
    cdef Slot *slots
    cdef Slot *before = ids.slots
    cdef Py_ssize_t slot, present = load(&ids.capacity)
    if <int64_t>capacity >> SLOT_BITS:
        return False
    slots = <Slot *>PyMem_RawMalloc(capacity * sizeof(Slot))
    if slots == NULL:
        return False
    if present > 0:
        memcpy(slots, before, present * sizeof(Slot))
    memset(slots + present, 0, (capacity - present) * sizeof(Slot))
    ids.slots = slots
    for slot in range(capacity - 1, present - 1, -1):
        slots[slot].uses = ids.tag
        vacate(ids, slot)
    store(&ids.capacity, capacity)
    # Last: the child of a fork frees what is in `ids`, and must not free it again.
    PyMem_RawFree(before)
    return True


cdef inline void free_ids(Ids *ids) noexcept nogil:
    PyMem_RawFree(ids.slots)


cdef inline void vacate(Ids *ids, Py_ssize_t slot) noexcept nogil:
    """Let the slot be the next that is given out."""
    ids.slots[ids.vacancies].vacant = slot
    ids.vacancies += 1


cdef inline Py_ssize_t open_slot(Ids *ids) noexcept nogil:
    """Give out a slot; there is a vacancy."""
    cdef Py_ssize_t slot
    ids.vacancies -= 1
    slot = ids.slots[ids.vacancies].vacant
    ids.slots[slot].is_open = True
    store(&ids.opened, load(&ids.opened) + 1)
    return slot


cdef inline void close_slot(Ids *ids, Py_ssize_t slot) noexcept nogil:
    ids.slots[slot].is_open = False
    ids.slots[slot].uses += 1
    store(&ids.opened, load(&ids.opened) - 1)
    if ids.slots[slot].uses < MOST_USES:
        vacate(ids, slot)


cdef inline Fault find_slots(
    Ids *ids, const int64_t *numbers, Py_ssize_t n, Py_ssize_t *slots, Py_ssize_t *index,
) noexcept nogil:
    """The slots of n ids; or the fault of the first id that is not open or comes twice, and its index."""
    cdef Py_ssize_t i, slot, capacity = load(&ids.capacity)
    cdef int64_t id, call = ids.call + 1
    cdef Slot *all = ids.slots
    # No slot names a call that is still to come, in the child of a fork either.
    ids.call = call
    order_writes()
    for i in range(n):
        id = read_once(numbers + i)
        slot = slot_of(id)
        if slot >= capacity or not is_of(&all[slot], id) or all[slot].call == call:
            index[0] = i
            return fault_of(ids, id)
        all[slot].call = call
        slots[i] = slot
    return NONE


cdef inline bint is_of(const Slot *slot, int64_t id) noexcept nogil:
    """Whether an open stream with this id has the slot."""
    return slot.is_open and slot.uses == uses_of(id)


cdef inline Fault fault_of(const Ids *ids, int64_t id) noexcept nogil:
    """What is wrong with an id that `find_slots` refuses."""
    cdef const Slot *slot
    if slot_of(id) >= load(&ids.capacity):
        return UNKNOWN
    slot = &ids.slots[slot_of(id)]
    if is_of(slot, id):
        return REPEATED
    return CLOSED if ids.tag <= uses_of(id) < slot.uses else UNKNOWN


cdef inline void list_open(const Ids *ids, int64_t *numbers, Py_ssize_t *slots) noexcept nogil:
    """Write down the ids and the slots of all open streams; either may be NULL."""
    cdef Py_ssize_t slot, n = 0
    for slot in range(load(&ids.capacity)):
        if ids.slots[slot].is_open:
            if numbers != NULL:
                numbers[n] = id_of(ids, slot)
            if slots != NULL:
                slots[n] = slot
            n += 1


cdef inline void list_uses(const Ids *ids, int64_t *uses) noexcept nogil:
    """Write down how often each slot was given out."""
    cdef Py_ssize_t slot
    for slot in range(load(&ids.capacity)):
        uses[slot] = ids.slots[slot].uses


cdef inline void restore_ids(
    Ids *ids, const int64_t *uses, const Py_ssize_t *slots, Py_ssize_t n,
) noexcept nogil:
    """Set how often each slot was given out, and which n of them are open."""
    cdef Py_ssize_t slot, i, capacity = load(&ids.capacity)
    ids.vacancies = 0
    store(&ids.opened, n)
    ids.tag = MOST_USES - 1
    for slot in range(capacity):
        ids.tag = min(ids.tag, uses[slot])
        ids.slots[slot].uses = uses[slot]
        ids.slots[slot].is_open = False
    for i in range(n):
        ids.slots[slots[i]].is_open = True
    for slot in range(capacity - 1, -1, -1):
        if not ids.slots[slot].is_open and uses[slot] < MOST_USES:
            vacate(ids, slot)
