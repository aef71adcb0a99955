/* The formulas of the cells: from gates that are summed up to the new state. Nothing here knows how weights are stored
 * or multiplied. GN says which functions they use: those of functions.inc.h, or those of coarse_functions.inc.h.
 *
 * A formula has two halves, `begin_h` and `finish_h`. All units of a bundle have the first half before any has the
 * second, so that many short chains of operations run at a time rather than a few long ones: GRU 128, 100x32 takes
 * 0.97 to 0.98 of the time.
 */

/* What comes before h: c of an LSTM, and the argument of tanh in gate[2] of a GRU. */
static FRNN_INLINE void GN(begin_h)(const frnn_kind kind, V *gate, FN(units) units)
{
    if (kind == FRNN_LSTM) {
        const V c = v_fma(GN(sigmoid_of)(gate[1]), FN(load_part)(units.c, units.left),
                          GN(sigmoid_tanh)(gate[0], gate[2]));
        FN(store_part)(units.c, c, units.left);
    } else {
        gate[2] = v_add(gate[3], v_mul(GN(sigmoid_of)(gate[0]), gate[2]));
    }
}

static FRNN_INLINE void GN(finish_h)(const frnn_kind kind, const V *gate, FN(units) units)
{
    V h;
    if (kind == FRNN_LSTM) {
        h = GN(sigmoid_tanh)(gate[3], FN(load_part)(units.c, units.left));
    } else if (kind == FRNN_GRU) {
        const V z = GN(sigmoid_of)(gate[1]), fresh = GN(tanh_of)(gate[2]);
        h = v_fma(z, v_sub(FN(load_part)(units.h_prev, units.left), fresh), fresh);
    } else if (kind == FRNN_RNN_TANH) {
        h = GN(tanh_of)(gate[0]);
    } else {
        h = v_max(v_set(0), gate[0]);
    }
    FN(store_part)(units.h, h, units.left);
}
