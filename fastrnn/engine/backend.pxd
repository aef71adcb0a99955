# What Cython sees of backend.h; the comments are there.

from libc.stdint cimport int32_t, uint64_t

cdef extern from "backend.h" nogil:
    ctypedef enum frnn_arithmetic:
        FRNN_F32
        FRNN_F64

    ctypedef enum frnn_storage:
        FRNN_STORED_F32
        FRNN_STORED_F64
        FRNN_STORED_BF16
        FRNN_STORED_S8

    ctypedef struct frnn_format:
        frnn_storage storage
        int group_k

    Py_ssize_t frnn_arithmetic_bytes(frnn_arithmetic arithmetic)
    Py_ssize_t frnn_format_bytes(frnn_format format)
    const char *frnn_arithmetic_name(frnn_arithmetic arithmetic)
    const char *frnn_storage_name(frnn_storage storage)

    ctypedef struct frnn_products

    ctypedef struct frnn_matrix:
        const frnn_products *products
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t gates
        const void *data
        const float *scales
        const int32_t *sums

    ctypedef struct frnn_source:
        const void *data
        frnn_storage storage
        const float *scales

    ctypedef enum frnn_kind:
        FRNN_DENSE
        FRNN_RNN_TANH
        FRNN_RNN_RELU
        FRNN_GRU
        FRNN_LSTM

    Py_ssize_t FRNN_GATES_OF(frnn_kind kind)

    ctypedef struct frnn_cell:
        frnn_kind kind
        frnn_arithmetic arithmetic
        Py_ssize_t input_size
        Py_ssize_t hidden_size
        Py_ssize_t output_size
        Py_ssize_t gates
        frnn_matrix w_ih
        frnn_matrix w_hh
        frnn_matrix w_hr
        const void *bias
        const void *bias_hn

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

    ctypedef enum frnn_row_kind:
        FRNN_RELU
        FRNN_TANH
        FRNN_SIGMOID
        FRNN_SOFTMAX
        FRNN_LOG_SOFTMAX
        FRNN_LAYER_NORM

    ctypedef struct frnn_rows:
        frnn_row_kind kind
        Py_ssize_t features
        const void *weight
        const void *bias
        double eps

    enum:
        FRNN_LINE

    ctypedef struct frnn_backend:
        frnn_arithmetic arithmetic
        Py_ssize_t (*gate_width)(const frnn_cell *cell) noexcept nogil
        Py_ssize_t (*part_units)(const frnn_cell *cell) noexcept nogil
        size_t (*pack_biases)(
            frnn_cell *cell, const void *bias, const void *bias_hn, void *memory) noexcept nogil
        Py_ssize_t (*apart)(Py_ssize_t n, Py_ssize_t columns) noexcept nogil
        void (*rows)(const frnn_rows *what, Py_ssize_t n, const void *x, void *y) noexcept nogil
        void (*begin)() noexcept nogil
        void (*end)() noexcept nogil
        uint64_t (*enter)() noexcept nogil
        void (*leave)(uint64_t before) noexcept nogil

    ctypedef struct frnn_rates:
        double products_per_ns
        double dense_products_per_ns
        double near_bytes_per_ns
        double far_bytes_per_ns

    ctypedef struct frnn_products:
        const frnn_backend *backend
        frnn_format format
        frnn_rates rates
        size_t (*pack)(frnn_matrix *matrix, const frnn_source *source, void *memory) noexcept nogil
        void (*project)(const frnn_cell *cell, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n, const void *x,
                        Py_ssize_t ldx, void *gates, void *scratch) noexcept nogil
        void (*step)(const frnn_cell *cell, const frnn_step *step) noexcept nogil
        void (*dense)(
            const frnn_matrix *matrix, Py_ssize_t n, const void *x, Py_ssize_t ldx, const void *bias,
            void *out, Py_ssize_t ldo,
        ) noexcept nogil
        size_t (*project_bytes)(const frnn_cell *cell, Py_ssize_t n) noexcept nogil
        size_t (*step_bytes)(const frnn_cell *cell, Py_ssize_t n) noexcept nogil

    bint frnn_steps_take_x(const frnn_cell *cell)

    ctypedef struct frnn_isa:
        const char *name
        int (*is_there)() noexcept nogil
        const frnn_products *const *products

    const frnn_isa frnn_isas[]
