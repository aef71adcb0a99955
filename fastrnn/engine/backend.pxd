# What Cython sees of backend.h; the comments are there.

from libc.stdint cimport uint64_t

cdef extern from "backend.h" nogil:
    ctypedef enum frnn_dtype:
        FRNN_F32
        FRNN_F64

    ctypedef enum frnn_kind:
        FRNN_DENSE
        FRNN_RNN_TANH
        FRNN_RNN_RELU
        FRNN_GRU
        FRNN_LSTM

    ctypedef struct frnn_cell:
        frnn_kind kind
        frnn_dtype dtype
        Py_ssize_t input_size
        Py_ssize_t hidden_size
        Py_ssize_t output_size
        Py_ssize_t gates
        Py_ssize_t block
        const void *w_ih
        const void *w_hh
        const void *w_hr
        const void *bias
        const void *bias_hn

    ctypedef enum frnn_row_kind:
        FRNN_RELU
        FRNN_TANH
        FRNN_SIGMOID
        FRNN_SOFTMAX
        FRNN_LOG_SOFTMAX
        FRNN_LAYER_NORM

    ctypedef struct frnn_rows:
        frnn_row_kind kind
        frnn_dtype dtype
        Py_ssize_t features
        const void *weight
        const void *bias
        double eps

    ctypedef struct frnn_step:
        Py_ssize_t n
        const void *x
        Py_ssize_t ldx
        void *gates
        Py_ssize_t rows
        Py_ssize_t row
        const void *h_prev
        Py_ssize_t ld_prev
        void *h_next
        Py_ssize_t ld_next
        void *c
        Py_ssize_t ldc
        const Py_ssize_t *c_order
        void *scratch
        Py_ssize_t first
        Py_ssize_t last
        int is_odd

    ctypedef struct frnn_backend:
        Py_ssize_t (*block)(frnn_kind kind, Py_ssize_t hidden_size) noexcept nogil
        Py_ssize_t (*strip)(Py_ssize_t width) noexcept nogil
        Py_ssize_t chunk
        void (*project)(const frnn_cell *cell, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n, const void *x,
                        Py_ssize_t ldx, void *gates, void *scratch) noexcept nogil
        void (*step)(const frnn_cell *cell, const frnn_step *step) noexcept nogil
        void (*dense)(const frnn_cell *cell, Py_ssize_t n, const void *x, Py_ssize_t ldx,
                      void *out, Py_ssize_t ldo) noexcept nogil
        Py_ssize_t (*part_units)(const frnn_cell *cell) noexcept nogil
        Py_ssize_t (*apart)(Py_ssize_t n, Py_ssize_t columns) noexcept nogil
        Py_ssize_t (*gate_width)(const frnn_cell *cell) noexcept nogil
        size_t (*project_bytes)(const frnn_cell *cell, Py_ssize_t n) noexcept nogil
        size_t (*step_bytes)(const frnn_cell *cell, Py_ssize_t n) noexcept nogil
        void (*rows)(const frnn_rows *what, Py_ssize_t n, const void *x, void *y) noexcept nogil
        void (*begin)() noexcept nogil
        void (*end)() noexcept nogil
        uint64_t (*enter)() noexcept nogil
        void (*leave)(uint64_t before) noexcept nogil

    enum:
        FRNN_PANEL
        FRNN_DENSE_BLOCK

    Py_ssize_t FRNN_CHUNK_OF(Py_ssize_t K, Py_ssize_t most)

    ctypedef struct frnn_isa:
        const char *name
        int (*is_there)() noexcept nogil
        const frnn_backend *tables[2]

    const frnn_isa frnn_isas[]
