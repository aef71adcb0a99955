/* What steps and formulas know of the units of a cell, for one arithmetic. */

/* Where the state of VL units of one row lies; `left` of them exist. */
typedef struct FN(units) {
    const T *h_prev;
    T *h, *c; /* c: an LSTM's, else NULL */
    ptrdiff_t left;
} FN(units);

/* Whether a cell has a first half. */
static FRNN_INLINE int FN(has_first_half)(const frnn_kind kind)
{
    return kind == FRNN_LSTM || kind == FRNN_GRU;
}

/* Whether x and h do not add up in the last gate, since another gate multiplies what h gives it: the n gate of a GRU.
 * What h gives, with bias_hn, is then in gate[2], and what x gives in gate[3]. */
static FRNN_INLINE int FN(has_new_gate)(const frnn_kind kind)
{
    return kind == FRNN_GRU;
}
