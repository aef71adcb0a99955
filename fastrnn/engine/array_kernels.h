/* Kernels of arrays: what a program computes between its recurrent layers.
 *
 * A kernel gets a description, which was worked out before and never changes, the addresses of the arrays' first
 * elements, and scratch. It checks nothing and allocates nothing. Strides are in bytes and may be 0 or negative.
 * Outputs share no memory with inputs, but for a map's output that lies exactly as an input does.
 *
 * A table serves one instruction set and one arithmetic; maps and reductions of whole numbers are the same in all
 * tables. The kernels give the same bits for an output however many others are computed with it.
 *
 * Exponentials, logarithms, tanh, sigmoid and what is made of them err by a few units in the last place
 * (tests/test_array_kernels.py). Results below the smallest normal number may be 0.
 */
#ifndef FRNN_ARRAY_KERNELS_H
#define FRNN_ARRAY_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define FRNN_AXES 6       /* of an array, once axes that lie together are one */
#define FRNN_MAP_TILE 256 /* elements of a register of a map */
#define FRNN_MAP_PLACES 48 /* inputs, scalars, registers and outputs of a map, at most */

/* The types in which arrays are kept. A bool is a byte, 0 or 1. */
typedef enum { FRNN_TYPE_BOOL, FRNN_TYPE_INT32, FRNN_TYPE_INT64, FRNN_TYPE_FLOAT32, FRNN_TYPE_FLOAT64 } frnn_type;

static inline ptrdiff_t frnn_type_bytes(frnn_type type)
{
    switch (type) {
    case FRNN_TYPE_BOOL: return 1;
    case FRNN_TYPE_INT32: return sizeof(int32_t);
    case FRNN_TYPE_INT64: return sizeof(int64_t);
    case FRNN_TYPE_FLOAT32: return sizeof(float);
    case FRNN_TYPE_FLOAT64: return sizeof(double);
    }
    return 0;
}

/* ---------------------------------------------------------------- maps: element by element */

/* Operations of floating-point numbers, with torch's results for NaN, infinities and signed zeros. p, q and r are the
 * parameters of an instruction. Truth is 1 and 0; every number but 0 is true. */
#define FRNN_MAP_OPERATIONS(OP)                                                                               \
    /* one operand */                                                                                         \
    OP(COPY) OP(NEG) OP(ABS) OP(SIGN) OP(RECIPROCAL) OP(SQUARE) OP(SQRT) OP(RSQRT)                            \
    OP(EXP) OP(EXPM1) OP(LOG) OP(LOG2) OP(LOG10) OP(LOG1P) OP(EXP2)                                           \
    OP(SIN) OP(COS) OP(TAN) OP(ASIN) OP(ACOS) OP(ATAN) OP(SINH) OP(COSH) OP(TANH) OP(ERF)                     \
    OP(SIGMOID) OP(RELU) OP(GELU) OP(GELU_TANH) OP(SILU) OP(MISH) OP(HARDSIGMOID) OP(HARDSWISH)               \
    OP(SOFTSIGN) OP(LOGSIGMOID) OP(TANHSHRINK)                                                                \
    OP(ELU)         /* p alpha, q scale, r input_scale */                                                     \
    OP(LEAKY_RELU)  /* p slope */                                                                             \
    OP(SOFTPLUS)    /* p beta, q threshold */                                                                 \
    OP(CLAMP)       /* p least, q most */                                                                     \
    OP(SOFTSHRINK)  /* p lambda */                                                                            \
    OP(HARDSHRINK)  /* p lambda */                                                                            \
    OP(THRESHOLD)   /* p threshold, q value */                                                                \
    OP(FLOOR) OP(CEIL) OP(TRUNC) OP(ROUND) OP(FRAC)                                                           \
    OP(LOGICAL_NOT) OP(ISNAN) OP(ISINF) OP(ISFINITE)                                                          \
    /* two operands */                                                                                        \
    OP(ADD) OP(SUB) OP(MUL) OP(DIV) OP(POW) OP(ATAN2) OP(MAXIMUM) OP(MINIMUM)                                 \
    OP(FMOD) OP(REMAINDER) OP(FLOOR_DIVIDE)                                                                   \
    OP(EQ) OP(NE) OP(LT) OP(LE) OP(GT) OP(GE) OP(LOGICAL_AND) OP(LOGICAL_OR) OP(LOGICAL_XOR)                  \
    /* three operands */                                                                                      \
    OP(WHERE)       /* a ? b : c */                                                                           \
    OP(ADDCMUL)     /* a + p b c */                                                                           \
    OP(ADDCDIV)     /* a + p b / c */                                                                         \
    OP(LERP)        /* from a to b by c */

/* Operations of whole numbers, which wrap. A division by 0 gives 0. */
#define FRNN_INTEGER_OPERATIONS(OP)                                                                           \
    OP(COPY) OP(NEG) OP(ABS) OP(SIGN) OP(SQUARE) OP(LOGICAL_NOT) OP(BITWISE_NOT)                              \
    OP(CLAMP)       /* p least, q most */                                                                     \
    OP(ADD) OP(SUB) OP(MUL) OP(TRUNC_DIVIDE) OP(FLOOR_DIVIDE) OP(FMOD) OP(REMAINDER) OP(POW)                  \
    OP(MAXIMUM) OP(MINIMUM) OP(BITWISE_AND) OP(BITWISE_OR) OP(BITWISE_XOR) OP(SHIFT_LEFT) OP(SHIFT_RIGHT)     \
    OP(EQ) OP(NE) OP(LT) OP(LE) OP(GT) OP(GE) OP(LOGICAL_AND) OP(LOGICAL_OR) OP(LOGICAL_XOR)                  \
    OP(WHERE)

typedef enum {
#define FRNN_MEMBER(name) FRNN_MAP_##name,
    FRNN_MAP_OPERATIONS(FRNN_MEMBER)
#undef FRNN_MEMBER
    FRNN_MAP_COUNT
} frnn_map_operation;

typedef enum {
#define FRNN_MEMBER(name) FRNN_INTEGER_##name,
    FRNN_INTEGER_OPERATIONS(FRNN_MEMBER)
#undef FRNN_MEMBER
    FRNN_INTEGER_COUNT
} frnn_integer_operation;

/* A scalar or parameter, in the arithmetic of the map. */
typedef union frnn_number {
    double real;   /* of maps of floating-point numbers */
    int64_t whole; /* of maps of whole numbers */
} frnn_number;

/* An array of a map or reduction. */
typedef struct frnn_view {
    frnn_type type;
    ptrdiff_t strides[FRNN_AXES]; /* bytes; 0 where it is broadcast */
} frnn_view;

/* place[to] = operation(place[a], place[b], place[c]) for all elements of a tile. */
typedef struct frnn_instruction {
    uint8_t operation;
    uint8_t to, a, b, c;
    frnn_number p[3];
} frnn_instruction;

/* A chain of operations, made tile by tile. Its places are numbered: first the inputs, then the scalars, then the
 * registers, then the outputs. An instruction may write to a register, and to an output that is direct. */
typedef struct frnn_map {
    int axes; /* 1 to FRNN_AXES */
    ptrdiff_t sizes[FRNN_AXES];
    int inputs, scalars, registers, outputs, instructions;
    ptrdiff_t tile_rows, tile_columns; /* of the last two axes; at most FRNN_MAP_TILE elements */
    const frnn_view *views;            /* of the inputs, then of the outputs */
    const uint8_t *is_direct;          /* for each input: read where it lies. For each output: written there */
    const uint8_t *results;            /* for each output that is not direct: the place that is stored there */
    const frnn_number *numbers;        /* of the scalars */
    const frnn_instruction *program;
} frnn_map;

/* ---------------------------------------------------------------- reductions */

/* What becomes of the elements x of an output. NaN as in torch: it is the largest and the smallest number. */
typedef enum {
    FRNN_REDUCE_SUM,
    FRNN_REDUCE_MEAN,
    FRNN_REDUCE_SUM_SQUARES,
    FRNN_REDUCE_SUM_ABS,
    FRNN_REDUCE_VAR, /* about the mean; over count - correction */
    FRNN_REDUCE_PROD,
    FRNN_REDUCE_MAX,
    FRNN_REDUCE_MIN,
    FRNN_REDUCE_ANY,
    FRNN_REDUCE_ALL,
    FRNN_REDUCE_ARGMAX, /* the first, in the order of the reduced axes */
    FRNN_REDUCE_ARGMIN
} frnn_reduction;

/* Elements whose sum is made in lanes before it is added to the whole in float64: element k goes to lane k % 32. */
#define FRNN_REDUCE_BLOCK 1024
#define FRNN_REDUCE_LANES 32
#define FRNN_REDUCE_COLUMNS 64 /* outputs that are made at once where they lie side by side */

typedef struct frnn_reduce {
    frnn_reduction reduction;
    int kept, reduced;          /* axes of each kind */
    ptrdiff_t sizes[FRNN_AXES]; /* of the kept ones, then of the reduced ones: FRNN_AXES together at most */
    frnn_view input;            /* its strides in the same order */
    frnn_view output;           /* of the kept axes */
    double correction;          /* FRNN_REDUCE_VAR */
    int is_whole;               /* computed in int64 */
} frnn_reduce;

/* ---------------------------------------------------------------- windows over rows of channels */

/* A convolution's or pool's view of the input: output position (i, j) and tap (k, l) meet the input at
 * (i * stride[0] + k * dilation[0] - before[0], j * stride[1] + l * dilation[1] - before[1]). What lies beyond its
 * sizes is padding. One axis: size 1 for the first. The channels of a position lie side by side. */
typedef struct frnn_window {
    ptrdiff_t input[2];        /* positions */
    ptrdiff_t output[2];
    ptrdiff_t taps[2];
    ptrdiff_t stride[2];
    ptrdiff_t dilation[2];
    ptrdiff_t before[2];       /* padding before the first position; may be negative */
    ptrdiff_t input_bytes[2];  /* from position to position */
    ptrdiff_t output_bytes[2];
    ptrdiff_t channels;        /* of the input; a depthwise convolution has `multiplier` outputs for each of them */
    ptrdiff_t multiplier;
} frnn_window;

typedef enum { FRNN_POOL_MAX, FRNN_POOL_AVERAGE } frnn_pooling;

typedef struct frnn_pool {
    frnn_pooling pooling;
    frnn_window window;
    ptrdiff_t after[2];  /* padding after the last position, which an average may count */
    int counts_padding;  /* FRNN_POOL_AVERAGE: padding counts as zeros */
    double divisor;      /* FRNN_POOL_AVERAGE: what sums are divided by, or 0: by what counts */
} frnn_pool;

/* ---------------------------------------------------------------- products of two arrays */

/* c (m, n) = a (m, K) b (K, n). Sums are made in one order, whatever m and n are. Strides in elements. */
typedef struct frnn_matmul {
    ptrdiff_t m, n, K;
    ptrdiff_t a_row, a_column, b_row, b_column, c_row; /* the columns of c lie side by side */
} frnn_matmul;

/* ---------------------------------------------------------------- rows by their number */

/* out[i, j, k] = table[i, index[i, j, k], k]: for each i, rows of `bytes` bytes where k is one, or elements. An index
 * below 0 counts from the end; one that is beyond the table is taken as the nearest there is. */
typedef struct frnn_gather {
    ptrdiff_t outer, count, inner;               /* i, j, k */
    ptrdiff_t size;                              /* of the axis of the table that is indexed */
    ptrdiff_t bytes;                             /* that are copied for each (i, j, k) */
    frnn_type index_type;                        /* FRNN_TYPE_INT32 or FRNN_TYPE_INT64 */
    ptrdiff_t table_outer, table_axis, table_inner; /* strides in bytes */
    ptrdiff_t index_outer, index_axis, index_inner;
    ptrdiff_t out_outer, out_axis, out_inner;
} frnn_gather;

/* ---------------------------------------------------------------- a table */

typedef struct frnn_array_kernels {
    const char *arithmetic; /* "float32" or "float64" */

    /* scratch: frnn_map_bytes(map), at a cache line */
    void (*map)(const frnn_map *map, char *const *arrays, char *scratch);
    void (*map_whole)(const frnn_map *map, char *const *arrays, char *scratch);

    /* scratch: FRNN_REDUCE_BYTES, at a cache line */
    void (*reduce)(const frnn_reduce *reduce, const char *input, char *output, char *scratch);
    void (*reduce_whole)(const frnn_reduce *reduce, const char *input, char *output, char *scratch);

    /* One row of outputs for each position: the bias, or zeros where it is NULL, plus the taps' weights
     * (taps, channels * multiplier) times the input. */
    void (*depthwise)(const frnn_window *window, const void *weight, const void *bias, const char *x, char *y);
    void (*pool)(const frnn_pool *pool, const char *x, char *y);
    /* Rows (taps, channels) of `count` output positions from `first` on, counted along the last axis first, for a
     * product: what the taps meet, zeros for padding. */
    void (*gather_rows)(const frnn_window *window, ptrdiff_t first, ptrdiff_t count, const char *x, char *rows,
                        ptrdiff_t ld);

    /* scratch: FRNN_MATMUL_BYTES, at a cache line */
    void (*matmul)(const frnn_matmul *matmul, const void *a, const void *b, void *c, char *scratch);

    void (*gather)(const frnn_gather *gather, const char *table, const char *index, char *out);
} frnn_array_kernels;

static inline size_t frnn_map_bytes(const frnn_map *map)
{
    /* Tiles of every place, and 64 bytes for each scalar, in the widest type. */
    return (size_t)(map->inputs + map->registers + map->outputs) * FRNN_MAP_TILE * sizeof(double)
        + (size_t)(map->scalars + map->inputs) * 64;
}

#define FRNN_REDUCE_BYTES \
    ((FRNN_REDUCE_BLOCK + (FRNN_REDUCE_LANES + 2) * FRNN_REDUCE_COLUMNS) * sizeof(double) + 64)

#define FRNN_MATMUL_SEGMENT 256 /* products that are summed from 0 together */
#define FRNN_MATMUL_BYTES (FRNN_MATMUL_SEGMENT * 32 * sizeof(float) + 64 * 64)

typedef struct frnn_array_isa {
    const char *name;
    int (*is_there)(void);
    const frnn_array_kernels *const *tables; /* one for each arithmetic; the last is NULL */
} frnn_array_isa;

extern const frnn_array_isa frnn_array_isas[]; /* from the plainest to the widest; the last has no name */

/* The operations' names in lower case; the last is NULL. */
extern const char *const frnn_map_names[];
extern const char *const frnn_integer_names[];

#endif
