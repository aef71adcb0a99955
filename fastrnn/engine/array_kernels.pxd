# What Cython sees of array_kernels.h; the comments are there.

from libc.stdint cimport int64_t, uint8_t

cdef extern from "array_kernels.h" nogil:
    enum:
        FRNN_AXES
        FRNN_MAP_TILE
        FRNN_MAP_PLACES
        FRNN_REDUCE_BYTES
        FRNN_MATMUL_BYTES

    ctypedef enum frnn_type:
        FRNN_TYPE_BOOL
        FRNN_TYPE_INT32
        FRNN_TYPE_INT64
        FRNN_TYPE_FLOAT32
        FRNN_TYPE_FLOAT64

    Py_ssize_t frnn_type_bytes(frnn_type type)

    # Those that operators name. Others are known by their names (simd/array_tables.pyx).
    ctypedef enum frnn_map_operation:
        FRNN_MAP_ADD
        FRNN_MAP_SUB
        FRNN_MAP_MUL
        FRNN_MAP_DIV
        FRNN_MAP_CLAMP
        FRNN_MAP_ELU
        FRNN_MAP_GELU
        FRNN_MAP_GELU_TANH
        FRNN_MAP_LEAKY_RELU
        FRNN_MAP_SILU
        FRNN_MAP_SOFTPLUS

    ctypedef union frnn_number:
        double real
        int64_t whole

    ctypedef struct frnn_view:
        frnn_type type
        Py_ssize_t strides[6]

    ctypedef struct frnn_instruction:
        uint8_t operation
        uint8_t to
        uint8_t a
        uint8_t b
        uint8_t c
        frnn_number p[3]

    ctypedef struct frnn_map:
        int axes
        Py_ssize_t sizes[6]
        int inputs
        int scalars
        int registers
        int outputs
        int instructions
        Py_ssize_t tile_rows
        Py_ssize_t tile_columns
        const frnn_view *views
        const uint8_t *is_direct
        const uint8_t *results
        const frnn_number *numbers
        const frnn_instruction *program

    ctypedef enum frnn_reduction:
        FRNN_REDUCE_SUM
        FRNN_REDUCE_MEAN
        FRNN_REDUCE_SUM_SQUARES
        FRNN_REDUCE_SUM_ABS
        FRNN_REDUCE_VAR
        FRNN_REDUCE_PROD
        FRNN_REDUCE_MAX
        FRNN_REDUCE_MIN
        FRNN_REDUCE_ANY
        FRNN_REDUCE_ALL
        FRNN_REDUCE_ARGMAX
        FRNN_REDUCE_ARGMIN

    ctypedef struct frnn_reduce:
        frnn_reduction reduction
        int kept
        int reduced
        Py_ssize_t sizes[6]
        frnn_view input
        frnn_view output
        double correction
        int is_whole

    ctypedef struct frnn_window:
        Py_ssize_t input[2]
        Py_ssize_t output[2]
        Py_ssize_t taps[2]
        Py_ssize_t stride[2]
        Py_ssize_t dilation[2]
        Py_ssize_t before[2]
        Py_ssize_t input_bytes[2]
        Py_ssize_t output_bytes[2]
        Py_ssize_t channels
        Py_ssize_t multiplier

    ctypedef enum frnn_pooling:
        FRNN_POOL_MAX
        FRNN_POOL_AVERAGE

    ctypedef struct frnn_pool:
        frnn_pooling pooling
        frnn_window window
        Py_ssize_t after[2]
        int counts_padding
        double divisor

    ctypedef struct frnn_matmul:
        Py_ssize_t m
        Py_ssize_t n
        Py_ssize_t K
        Py_ssize_t a_row
        Py_ssize_t a_column
        Py_ssize_t b_row
        Py_ssize_t b_column
        Py_ssize_t c_row

    ctypedef struct frnn_gather:
        Py_ssize_t outer
        Py_ssize_t count
        Py_ssize_t inner
        Py_ssize_t size
        Py_ssize_t bytes
        frnn_type index_type
        Py_ssize_t table_outer
        Py_ssize_t table_axis
        Py_ssize_t table_inner
        Py_ssize_t index_outer
        Py_ssize_t index_axis
        Py_ssize_t index_inner
        Py_ssize_t out_outer
        Py_ssize_t out_axis
        Py_ssize_t out_inner

    ctypedef struct frnn_array_kernels:
        const char *arithmetic
        void (*map)(const frnn_map *map, char *const *arrays, char *scratch) noexcept nogil
        void (*map_whole)(const frnn_map *map, char *const *arrays, char *scratch) noexcept nogil
        void (*reduce)(
            const frnn_reduce *reduce, const char *input, char *output, char *scratch) noexcept nogil
        void (*reduce_whole)(
            const frnn_reduce *reduce, const char *input, char *output, char *scratch) noexcept nogil
        void (*depthwise)(
            const frnn_window *window, const void *weight, const void *bias, const char *x, char *y,
        ) noexcept nogil
        void (*pool)(const frnn_pool *pool, const char *x, char *y) noexcept nogil
        void (*gather_rows)(
            const frnn_window *window, Py_ssize_t first, Py_ssize_t count, const char *x, char *rows,
            Py_ssize_t ld) noexcept nogil
        void (*matmul)(
            const frnn_matmul *matmul, const void *a, const void *b, void *c, char *scratch) noexcept nogil
        void (*gather)(
            const frnn_gather *gather, const char *table, const char *index, char *out) noexcept nogil

    size_t frnn_map_bytes(const frnn_map *map)

    ctypedef struct frnn_array_isa:
        const char *name
        int (*is_there)() noexcept nogil
        const frnn_array_kernels *const *tables

    const frnn_array_isa frnn_array_isas[]
    const char *const frnn_map_names[]
    const char *const frnn_integer_names[]
