/* The C contract between the drivers (_drivers.pyx) and a backend.
 *
 * A driver knows time, layers, directions and lengths; a backend knows arithmetic.
 * Between them stand one read-only struct, the weights of a cell, and two operations,
 * project and step. How the weights and the gates lie is the backend's own matter: row-major
 * for blas, in panels for simd (kernels.inc.h). Shape letters are those of spec.py: T time, B batch, I input,
 * H hidden, P columns of h (the projection's size, else H), G gates.
 */
#ifndef FRNN_KERNELS_H
#define FRNN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum { FRNN_F32, FRNN_F64 } frnn_dtype;

typedef enum {
    FRNN_DENSE, /* one projection and no step: a Linear layer, G = 1 */
    FRNN_RNN_TANH,
    FRNN_RNN_RELU,
    FRNN_GRU,
    FRNN_LSTM
} frnn_kind;

/* The weights of one direction of one layer, laid out for a backend; immutable, shared by threads.
 * The shapes are those before any packing. */
typedef struct frnn_cell {
    frnn_kind kind;
    frnn_dtype dtype;      /* of x, h, c, gates and biases; a backend may keep its weights narrower */
    ptrdiff_t input_size;  /* I: columns of x */
    ptrdiff_t hidden_size; /* H: hidden units; of FRNN_DENSE the outputs */
    ptrdiff_t output_size; /* P: columns of h */
    ptrdiff_t gates;       /* G: 1, 3 (r, z, n) or 4 (i, f, g, o) */
    ptrdiff_t block;       /* simd: panels that lie together (block_panels in kernels.inc.h) */
    const void *w_ih;    /* (G*H, I) */
    const void *w_hh;    /* (G*H, P); NULL for FRNN_DENSE */
    const void *w_hr;    /* (P, H); NULL without a projection */
    const void *bias;    /* (G*H): b_ih + b_hh; the n gate of a GRU has b_in alone */
    const void *bias_hn; /* (H,): b_hn of a GRU, which the reset gate multiplies; else NULL */
} frnn_cell;

/* What a layer without products does to rows of features, each by itself. */
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
    frnn_dtype dtype;
    ptrdiff_t features;
    const void *weight; /* FRNN_LAYER_NORM: (features,), or NULL for ones */
    const void *bias;   /* (features,), or NULL for zeros */
    double eps;
} frnn_rows;

/* One time step of n rows. */
typedef struct frnn_step {
    ptrdiff_t n;
    const void *x;         /* (n, I), ldx elements from row to row; NULL: the gates are projected already */
    ptrdiff_t ldx;
    void *gates;           /* gates of `rows` rows, as project left them or, with x, room for them; the */
    ptrdiff_t rows;        /* step uses up its own n, beginning with `row` */
    ptrdiff_t row;
    const void *h_prev;    /* (n, P) with ld_prev */
    ptrdiff_t ld_prev;
    void *h_next;          /* (n, P) with ld_next; apart from h_prev */
    ptrdiff_t ld_next;
    void *c;               /* (n, H), updated in place; NULL but for FRNN_LSTM. Row m is at c + m * ldc, or */
    ptrdiff_t ldc;         /* c + c_order[m] * ldc */
    const ptrdiff_t *c_order; /* (n,), each row's own place; or NULL */
    void *scratch;         /* step_bytes(cell, n) */
    ptrdiff_t first;       /* the parts of the cell that are wanted, the last excluded: of h_next and c the */
    ptrdiff_t last;        /* units of these alone are written. A cell with a projection takes all at once */
    int is_odd;            /* every other step of a sequence: weights that were used last are used first, */
} frnn_step;               /* while they are in a cache; the result is the same */

typedef struct frnn_backend {
    /* How its weights are packed (_pack.pyx): how many panels are a block, how many columns of a block of
     * so many lie together, and how many products of a long sum are one chunk. Both functions NULL: rows, as
     * torch has them. */
    ptrdiff_t (*block)(frnn_kind kind, ptrdiff_t hidden_size);
    ptrdiff_t (*strip)(ptrdiff_t width);
    ptrdiff_t chunk;

    /* gates = x W_ih^T + bias, for n rows of x (n, I) with ldx elements from row to row, of the parts from
     * first to last, that excluded. How gates of n rows, n times gate_width elements, lie is the backend's own
     * matter. scratch: project_bytes(cell, n). No aliasing. */
    void (*project)(const frnn_cell *cell, ptrdiff_t first, ptrdiff_t last, ptrdiff_t n, const void *x,
                    ptrdiff_t ldx, void *gates, void *scratch);

    /* h_next and c from x or gates, h_prev and c. */
    void (*step)(const frnn_cell *cell, const frnn_step *step);

    /* out = x W_ih^T + bias for n rows of an FRNN_DENSE cell; out (n, H) with ldo. */
    void (*dense)(const frnn_cell *cell, ptrdiff_t n, const void *x, ptrdiff_t ldx,
                  void *out, ptrdiff_t ldo);

    /* The units of a part, of which the last may have fewer: without a projection several threads may compute
     * parts at the same time. */
    ptrdiff_t (*part_units)(const frnn_cell *cell);
    /* Elements from row to row where n rows of so many columns, h or c of a step, are read and written best: as many
     * as the columns, or more. */
    ptrdiff_t (*apart)(ptrdiff_t n, ptrdiff_t columns);
    ptrdiff_t (*gate_width)(const frnn_cell *cell); /* elements of gates for a row, G*H or more */
    /* The scratch of project and of step for n rows, and so for fewer. */
    size_t (*project_bytes)(const frnn_cell *cell, ptrdiff_t n);
    size_t (*step_bytes)(const frnn_cell *cell, ptrdiff_t n);

    /* y = f(x) of n rows, in place or apart; NULL where a backend has none of its own. simd: tanh, sigmoid
     * and exponentials err by 4 units in the last place at most over the whole range
     * (tests/test_kernels.py), results below the smallest normal number may be 0; +-infinity gives the
     * limits, NaN a NaN. */
    void (*rows)(const frnn_rows *what, ptrdiff_t n, const void *x, void *y);

    /* Called once around all the work of a call, by the thread that makes it; NULL where there is nothing
     * to do. Calls of several threads, and of layers inside a chain, may nest. */
    void (*begin)(void);
    void (*end)(void);

    /* Called on every thread around its share of the work: from the control word before to the same. */
    uint64_t (*enter)(void);
    void (*leave)(uint64_t before);
} frnn_backend;

/* The units of a panel of packed weights, and the panels of a block of a Linear layer. */
#define FRNN_PANEL 16
#define FRNN_DENSE_BLOCK 4
/* The products of a chunk of K. Those of a short sum are few, so that their additions hide behind one another. */
#define FRNN_CHUNK_OF(K, most) ((K) > 16 ? (most) : 8)

/* An instruction set of the simd backend. */
typedef struct frnn_isa {
    const char *name;
    int (*is_there)(void);             /* whether this processor has it */
    const frnn_backend *tables[2];     /* by frnn_dtype */
} frnn_isa;

extern const frnn_isa frnn_isas[]; /* from the plainest to the widest; the last has no name */

#endif
