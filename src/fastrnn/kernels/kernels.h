/* The C contract between the drivers (_engine.pyx) and a backend.
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
    const void *w_ih;    /* (G*H, I) */
    const void *w_hh;    /* (G*H, P); NULL for FRNN_DENSE */
    const void *w_hr;    /* (P, H); NULL without a projection */
    const void *bias;    /* (G*H): b_ih + b_hh; the n gate of a GRU has b_in alone */
    const void *bias_hn; /* (H,): b_hn of a GRU, which the reset gate multiplies; else NULL */
} frnn_cell;

typedef struct frnn_backend {
    /* gates = x W_ih^T + bias, for n rows.
     * x (n, I) with ldx elements from row to row; gates (n, gate_width) with ldg. No aliasing. */
    void (*project)(const frnn_cell *cell, ptrdiff_t n, const void *x, ptrdiff_t ldx,
                    void *gates, ptrdiff_t ldg, int is_odd);

    /* One time step of n rows: h_next and c from gates, h_prev and c.
     * gates (n, gate_width) with ldg, as project left them, are used up. h_prev (n, P) and h_next
     * (n, P) have their own row strides and must not overlap. c (n, H) is updated in place
     * (FRNN_LSTM; else NULL). scratch holds scratch_bytes(cell, n).
     *
     * is_odd tells every other step of a sequence, here and in project: weights that were used last
     * are used first. It changes the order of the work, never the result. */
    void (*step)(const frnn_cell *cell, ptrdiff_t n, void *gates, ptrdiff_t ldg,
                 const void *h_prev, ptrdiff_t ld_prev, void *h_next, ptrdiff_t ld_next,
                 void *c, void *scratch, int is_odd);

    /* out = x W_ih^T + bias for n rows of an FRNN_DENSE cell; out (n, H) with ldo. */
    void (*dense)(const frnn_cell *cell, ptrdiff_t n, const void *x, ptrdiff_t ldx,
                  void *out, ptrdiff_t ldo);

    ptrdiff_t (*gate_width)(const frnn_cell *cell); /* elements of a row of gates, G*H or more */
    size_t (*scratch_bytes)(const frnn_cell *cell, ptrdiff_t n);

    /* The activations alone, for tests; NULL where a backend has none of its own. y = f(x), n of
     * them, in place or apart. simd: error at most 4 units in the last place of float32 over the
     * whole range (tests/test_kernels.py), results below the smallest normal number may be 0;
     * +-infinity gives the limits, NaN a NaN. */
    void (*sigmoid)(ptrdiff_t n, const void *x, void *y);
    void (*tanh)(ptrdiff_t n, const void *x, void *y);

    /* Called before and after a driver's work: from the control word before to the same. */
    uint64_t (*enter)(void);
    void (*leave)(uint64_t before);
} frnn_backend;

/* The units of a panel of packed weights: one for every instruction set, so that packed weights
 * fit all of them. */
#define FRNN_PANEL 16

/* An instruction set of the simd backend. */
typedef struct frnn_isa {
    const char *name;
    int (*is_there)(void);             /* whether this processor has it */
    const frnn_backend *tables[2];     /* by frnn_dtype */
} frnn_isa;

extern const frnn_isa frnn_isas[]; /* from the plainest to the widest; the last has no name */

#endif
