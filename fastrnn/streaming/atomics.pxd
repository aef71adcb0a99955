"""Numbers that one thread may read while another one writes them.

A plain field may be shared only where something else keeps threads apart: a turn, a gate, a stream that is
taken. With the GIL all of this is what plain fields compile to on x86.
"""

from libc.stdint cimport int64_t


cdef extern from *:
    """
    #ifndef FRNN_ATOMICS
    #define FRNN_ATOMICS
    #if defined(_MSC_VER)

    #include <intrin.h>
    #if defined(_M_ARM64)
    #define FRNN_ORDER() __dmb(_ARM64_BARRIER_ISH)
    #else
    #define FRNN_ORDER() _ReadWriteBarrier()
    #endif
    typedef struct { void *volatile value; } frnn_atomic;

    static __forceinline Py_ssize_t frnn_load(const frnn_atomic *shared)
    {
        const Py_ssize_t value = (Py_ssize_t)shared->value;
        FRNN_ORDER();
        return value;
    }

    static __forceinline void frnn_store(frnn_atomic *shared, Py_ssize_t value)
    {
        FRNN_ORDER();
        shared->value = (void *)value;
    }

    static __forceinline int frnn_replace(frnn_atomic *shared, Py_ssize_t old, Py_ssize_t value)
    {
        return (Py_ssize_t)_InterlockedCompareExchangePointer(
            &shared->value, (void *)value, (void *)old) == old;
    }

    #else

    #include <stdatomic.h>
    #define FRNN_ORDER() atomic_thread_fence(memory_order_release)
    typedef struct { _Atomic(Py_ssize_t) value; } frnn_atomic;

    static inline Py_ssize_t frnn_load(const frnn_atomic *shared)
    {
        return atomic_load_explicit(&((frnn_atomic *)shared)->value, memory_order_acquire);
    }

    static inline void frnn_store(frnn_atomic *shared, Py_ssize_t value)
    {
        atomic_store_explicit(&shared->value, value, memory_order_release);
    }

    static inline int frnn_replace(frnn_atomic *shared, Py_ssize_t old, Py_ssize_t value)
    {
        return atomic_compare_exchange_strong_explicit(
            &shared->value, &old, value, memory_order_acq_rel, memory_order_acquire);
    }

    #endif

    static inline long long frnn_read_once(const int64_t *number)
    {
        return *(const volatile int64_t *)number;
    }
    #endif
    """
    # Begins as zero. It has no value that compiled code could read or write by mistake.
    ctypedef struct Atomic "frnn_atomic":
        pass

    # Also what the writer wrote before it is seen.
    Py_ssize_t load "frnn_load"(const Atomic *shared) noexcept nogil
    # Whoever loads it also sees what was written before.
    void store "frnn_store"(Atomic *shared, Py_ssize_t value) noexcept nogil
    # Store if it has the old value; whether it had.
    bint replace "frnn_replace"(Atomic *shared, Py_ssize_t old, Py_ssize_t value) noexcept nogil
    # Nobody sees what is written after it without what is written before it, the child of a fork included,
    # which begins with what was written until then.
    void order_writes "FRNN_ORDER"() noexcept nogil
    # A number in a caller's array, read once: another thread may write to it.
    int64_t read_once "frnn_read_once"(const int64_t *number) noexcept nogil
