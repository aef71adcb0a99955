/* The contract between the drivers (passes.pyx, divisions.pyx) and a backend.
 *
 * A driver knows time, layers, directions and lengths. A backend knows how weights lie in memory, how they are
 * multiplied and what gates compute. Between the two stand the weights of a cell (frnn_cell), which never change,
 * and two tables of functions:
 *
 *   frnn_backend    what an instruction set has for an arithmetic, however weights are stored: functions of rows, how
 *                   gates lie, what a thread does before and after its work
 *   frnn_products   what is added for one storage of weights: packing, projections, steps, and how fast they are
 *
 * Each matrix of a cell has products of its own, which packed it. Python picks them for each layer (backends.py).
 *
 * Shape letters are those of spec.py: T time, B batch, I input, H hidden, P columns of h (the projection's size,
 * else H), G gates. K is the number of columns of a matrix: the length of its sums.
 *
 * To add a storage of weights:
 *   1. below, a member of frnn_storage, with its size in frnn_format_bytes and its name in frnn_storage_name; the
 *      member in backend.pxd;
 *   2. a block in simd/isa.inc.h, which says how weights are read (`w_load`, `w_one`) and written (`w_store`), and
 *      its line in the list at the end of that file. Where weights lie or are summed in another way, a file beside
 *      products.inc.h that gives cells.inc.h the words listed there;
 *   3. its name in STORAGES of packing.pyx, for weights that arrive in it.
 *   Python finds the table by its names. No gate, no driver and no other table changes.
 * An instruction set: its words in simd/vectors.h, a block and an entry of `frnn_isas` in simd/kernels.c, a line in
 *   BUILDS of bench/probe.py. The tests find it.
 * A cell: a member of frnn_kind with its gates in FRNN_GATES_OF; its formulas in simd/gates.inc.h and a case in
 *   `step` of simd/cells.inc.h; for a new number of gates, a case in `bundle_panels` of simd/layout.inc.h; its gates in
 *   blas/kernels.pyx; KINDS of packing.pyx; spec.py and reference/layers.py. No product changes.
 * A backend: a frnn_backend and frnn_products with every function that has no "or NULL" below, and a line in
 *   backends.py. No driver changes.
 */
#ifndef FRNN_BACKEND_H
#define FRNN_BACKEND_H

#include <stddef.h>
#include <stdint.h>

/* ---------------------------------------------------------------- types of numbers */

/* The type in which sums and gates are computed: of x, h, c, gates and biases. */
typedef enum { FRNN_F32, FRNN_F64 } frnn_arithmetic;

/* The type in which a matrix keeps its numbers. */
typedef enum {
    FRNN_STORED_F32,
    FRNN_STORED_F64,
    FRNN_STORED_BF16, /* bfloat16: the upper half of a float32 */
    FRNN_STORED_BF16X2, /* the sum of two bfloat16 numbers */
    FRNN_STORED_BF16X3, /* the sum of three */
    FRNN_STORED_S8    /* whole numbers from -127 to 127, times a scale for each row */
} frnn_storage;

typedef struct frnn_format {
    frnn_storage storage;
    int group_k; /* the weights of a unit for this many consecutive k lie side by side; 1: one k after the other */
} frnn_format;

/* No default in these: compilers name a type that is missing. */

static inline ptrdiff_t frnn_arithmetic_bytes(frnn_arithmetic arithmetic)
{
    switch (arithmetic) {
    case FRNN_F32: return sizeof(float);
    case FRNN_F64: return sizeof(double);
    }
    return 0;
}

/* The bytes of one weight. */
static inline ptrdiff_t frnn_format_bytes(frnn_format format)
{
    switch (format.storage) {
    case FRNN_STORED_F32: return sizeof(float);
    case FRNN_STORED_F64: return sizeof(double);
    case FRNN_STORED_BF16: return sizeof(uint16_t);
    case FRNN_STORED_BF16X2: return 2 * sizeof(uint16_t);
    case FRNN_STORED_BF16X3: return 3 * sizeof(uint16_t);
    case FRNN_STORED_S8: return sizeof(int8_t);
    }
    return 0;
}

/* The names that Python has for them. */
static inline const char *frnn_arithmetic_name(frnn_arithmetic arithmetic)
{
    switch (arithmetic) {
    case FRNN_F32: return "float32";
    case FRNN_F64: return "float64";
    }
    return "";
}

static inline const char *frnn_storage_name(frnn_storage storage)
{
    switch (storage) {
    case FRNN_STORED_F32: return "float32";
    case FRNN_STORED_F64: return "float64";
    case FRNN_STORED_BF16: return "bfloat16";
    case FRNN_STORED_BF16X2: return "bfloat16x2";
    case FRNN_STORED_BF16X3: return "bfloat16x3";
    case FRNN_STORED_S8: return "int8";
    }
    return "";
}

/* ---------------------------------------------------------------- weights */

struct frnn_products;

/* The weights of one product: (rows, columns) as torch has them, packed and read-only. */
typedef struct frnn_matrix {
    const struct frnn_products *products; /* that pack and multiply it */
    ptrdiff_t rows;                       /* gates * units */
    ptrdiff_t columns;
    ptrdiff_t gates; /* G in w_ih and w_hh, 1 in w_hr */
    /* What `pack` sets: */
    const void *data;    /* NULL: the cell has no such matrix */
    const float *scales; /* what whole-number weights are multiplied by, one for each row; else NULL */
    const int32_t *sums; /* the sum of each row's whole-number weights; else NULL */
} frnn_matrix;

/* The same before it is packed, row after row: in the arithmetic, or in the storage of the products that pack it. */
typedef struct frnn_source {
    const void *data;
    frnn_storage storage;
    const float *scales; /* as above */
} frnn_source;

typedef enum {
    FRNN_DENSE, /* one projection and no step: a Linear layer */
    FRNN_RNN_TANH,
    FRNN_RNN_RELU,
    FRNN_GRU,
    FRNN_LSTM
} frnn_kind;

/* G: the gates of an LSTM are i, f, g and o, those of a GRU r, z and n. A macro, since kernels need it as a constant
 * before anything is inlined: as a function it cost an RNN's step a third more instructions. */
#define FRNN_GATES_OF(kind) ((kind) == FRNN_LSTM ? 4 : (kind) == FRNN_GRU ? 3 : 1)

/* The weights of one direction of one layer. Threads share them, since nothing writes to them once they are packed. */
typedef struct frnn_cell {
    frnn_kind kind;
    frnn_arithmetic arithmetic;
    ptrdiff_t input_size;  /* I: columns of x */
    ptrdiff_t hidden_size; /* H: hidden units; the outputs of FRNN_DENSE */
    ptrdiff_t output_size; /* P: columns of h */
    ptrdiff_t gates;       /* G */
    frnn_matrix w_ih;      /* (G*H, I) */
    frnn_matrix w_hh;      /* (G*H, P); not of FRNN_DENSE */
    frnn_matrix w_hr;      /* (P, H); only with a projection */
    /* In the arithmetic. What `pack_biases` sets: */
    const void *bias;      /* (G*H,): b_ih + b_hh; the n gate of a GRU has b_in alone */
    const void *bias_hn;   /* (H,): b_hn of a GRU, which the reset gate multiplies; else NULL */
} frnn_cell;

/* ---------------------------------------------------------------- what is computed */

/* One time step of n rows. */
typedef struct frnn_step {
    ptrdiff_t n;
    const void *x;            /* (n, I), ldx elements from row to row, if frnn_steps_take_x; NULL: the gates are */
    ptrdiff_t ldx;            /* projected already */
    void *gates;              /* of `rows` rows: what `project` left there, or room for as much where x is given */
    ptrdiff_t rows;
    ptrdiff_t row;            /* the first of this step's n rows of gates, which the step overwrites */
    const void *h_prev;       /* (n, P) with ld_prev */
    ptrdiff_t ld_prev;
    void *h_next;             /* (n, P) with ld_next; shares no memory with h_prev */
    ptrdiff_t ld_next;
    void *c;                  /* (n, H), updated in place; NULL but for FRNN_LSTM. Row m is at c + m * ldc, or at */
    ptrdiff_t ldc;            /* c + c_order[m] * ldc where c_order is given */
    const ptrdiff_t *c_order; /* (n,) or NULL */
    void *scratch;            /* step_bytes(cell, n) */
    ptrdiff_t first;          /* Only the units of the parts from `first` to `last`, `last` excluded, are written */
    ptrdiff_t last;           /* to h_next and c. A cell with a projection takes all parts at once. */
    int is_odd;               /* 1 in every other step of a sequence: the parts are taken from the last to the */
} frnn_step;                  /* first, since those that were used last are still in a cache. Same results. */

/* What a layer without products does to each row of features. */
typedef enum {
    FRNN_RELU,
    FRNN_TANH,
    FRNN_SIGMOID,
    FRNN_SOFTMAX,
    FRNN_LOG_SOFTMAX,
    FRNN_LAYER_NORM
} frnn_row_kind;

typedef struct frnn_rows {
    frnn_row_kind kind;
    ptrdiff_t features;
    const void *weight; /* FRNN_LAYER_NORM: (features,), or NULL for ones */
    const void *bias;   /* (features,), or NULL for zeros */
    double eps;
} frnn_rows;

/* ---------------------------------------------------------------- a backend */

#define FRNN_LINE 64 /* bytes of a cache line; what is packed begins at one, and its bytes are whole lines */

/* What an instruction set has for an arithmetic. */
typedef struct frnn_backend {
    frnn_arithmetic arithmetic;

    /* How the gates of a cell lie, the same for all products: those of one may project what those of another take a
     * step with. Gates of n rows take n * gate_width elements, G*H for a row or more; how they lie is the backend's own
     * matter. */
    ptrdiff_t (*gate_width)(const frnn_cell *cell);
    /* The units of a part; the last one may have fewer. Several threads may compute parts of a cell at the same
     * time, unless it has a projection. */
    ptrdiff_t (*part_units)(const frnn_cell *cell);
    /* Lay the biases out as gates lie, in `memory`, point the cell there, and return the bytes that it takes. With
     * memory NULL only return them. 0 bytes: the cell points to the biases themselves, which then have to stay.
     * bias_hn may be NULL. */
    size_t (*pack_biases)(frnn_cell *cell, const void *bias, const void *bias_hn, void *memory);
    /* The distance, in elements, at which n rows of this many columns (h or c of a step) are best kept: the columns
     * themselves, or more. */
    ptrdiff_t (*apart)(ptrdiff_t n, ptrdiff_t columns);

    /* y = f(x) for n rows, in place or into other memory; or NULL. simd: tanh, sigmoid and exponentials err by at
     * most 4 units in the last place over the whole range (tests/test_kernels.py). Results below the smallest
     * normal number may be 0, infinities give the limits, and a NaN gives a NaN. */
    void (*rows)(const frnn_rows *what, ptrdiff_t n, const void *x, void *y);

    /* Called once at the beginning and the end of a call, by the thread that makes it; or NULL. Calls of several
     * threads, and of layers within a model, may nest. */
    void (*begin)(void);
    void (*end)(void);

    /* Called by every thread at the beginning and the end of its share of the work. `leave` restores what `enter`
     * changed and returned. State that the processor keeps for a thread belongs here: the control word of its
     * arithmetic, or the configuration of its tiles. */
    uint64_t (*enter)(void);
    void (*leave)(uint64_t before);
} frnn_backend;

/* What the cost model knows of products, on one core of a kind from about 2020 on (cost.pxd). What sharing work costs
 * is measured while calls run and compared with these, so they should be about right. An error of half or double
 * changes only the plans that gain little either way. */
typedef struct frnn_rates {
    double products_per_ns;       /* multiply-adds of projections and steps */
    double dense_products_per_ns; /* multiply-adds of `dense` */
    double near_bytes_per_ns;     /* weights read from the second-level cache */
    double far_bytes_per_ns;      /* weights read from beyond it */
} frnn_rates;

/* What a backend has for one storage of weights. */
typedef struct frnn_products {
    const frnn_backend *backend;
    frnn_format format; /* of the matrices that it packs and multiplies */
    frnn_rates rates;

    /* Lay a matrix out in `memory`, point it there, and return the bytes that it takes. With memory NULL only return
     * them. 0 bytes: the matrix points to the source itself, which then has to stay. */
    size_t (*pack)(frnn_matrix *matrix, const frnn_source *source, void *memory);

    /* Products of w_ih: gates = x W_ih^T + bias for n rows of x (n, I) with ldx elements from row to row, for the parts
     * from first to last, `last` excluded. scratch: project_bytes(cell, n). No two arguments share memory. */
    void (*project)(const frnn_cell *cell, ptrdiff_t first, ptrdiff_t last, ptrdiff_t n, const void *x,
                    ptrdiff_t ldx, void *gates, void *scratch);

    /* Products of w_hh: h_next and c from x or gates, h_prev and c. It calls the `dense` of w_hr's products where
     * there is a projection. */
    void (*step)(const frnn_cell *cell, const frnn_step *step);

    /* out = x W^T + bias for n rows of x and a matrix of one gate; out (n, rows) with ldo. The bias is packed; NULL:
     * there is none. scratch: dense_bytes(matrix, n). */
    void (*dense)(const frnn_matrix *matrix, ptrdiff_t n, const void *x, ptrdiff_t ldx, const void *bias,
                  void *out, ptrdiff_t ldo, void *scratch);

    /* The scratch of project, step and dense for n rows; it is enough for fewer rows too. */
    size_t (*project_bytes)(const frnn_cell *cell, ptrdiff_t n);
    size_t (*step_bytes)(const frnn_cell *cell, ptrdiff_t n);
    size_t (*dense_bytes)(const frnn_matrix *matrix, ptrdiff_t n);
} frnn_products;

/* Whether steps of a cell may be given x itself, so that both matrices are read part by part. Where their products
 * differ the driver projects first. */
static inline int frnn_steps_take_x(const frnn_cell *cell)
{
    return cell->w_ih.products == cell->w_hh.products;
}

/* An instruction set of the simd backend. */
typedef struct frnn_isa {
    const char *name;
    int (*is_there)(void);                /* whether this processor has it */
    int (*may_be_used)(void);             /* asks the system whether it may be used; NULL: it need not be asked */
    const frnn_products *const *products; /* for each arithmetic and storage; the last is NULL */
} frnn_isa;

extern const frnn_isa frnn_isas[]; /* from the plainest to the widest; the last has no name */

#endif
