/* The formulas of the cells: from gates that are summed up to the new state. Nothing here knows how weights are stored
 * or multiplied.
 *
 * A formula has two halves, `begin_h` and `finish_h`. All units of a bundle have the first half before any has the
 * second, so that many short chains of operations run at a time rather than a few long ones: GRU 128, 100x32 takes
 * 0.97 to 0.98 of the time.
 */

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

/* What comes before h: c of an LSTM, and the argument of tanh in gate[2] of a GRU. */
static FRNN_INLINE void FN(begin_h)(const frnn_kind kind, V *gate, FN(units) units)
{
    if (kind == FRNN_LSTM) {
        const V c = v_fma(FN(sigmoid_of)(gate[1]), FN(load_part)(units.c, units.left),
                          FN(sigmoid_tanh)(gate[0], gate[2]));
        FN(store_part)(units.c, c, units.left);
    } else {
        gate[2] = v_add(gate[3], v_mul(FN(sigmoid_of)(gate[0]), gate[2]));
    }
}

static FRNN_INLINE void FN(finish_h)(const frnn_kind kind, const V *gate, FN(units) units)
{
    V h;
    if (kind == FRNN_LSTM) {
        h = FN(sigmoid_tanh)(gate[3], FN(load_part)(units.c, units.left));
    } else if (kind == FRNN_GRU) {
        const V z = FN(sigmoid_of)(gate[1]), fresh = FN(tanh_of)(gate[2]);
        h = v_fma(z, v_sub(FN(load_part)(units.h_prev, units.left), fresh), fresh);
    } else if (kind == FRNN_RNN_TANH) {
        h = FN(tanh_of)(gate[0]);
    } else {
        h = v_max(v_set(0), gate[0]);
    }
    FN(store_part)(units.h, h, units.left);
}
