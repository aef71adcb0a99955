/* How the gates, biases and states of a cell lie, for one arithmetic. The same for every storage of weights, so that
 * those of one may project what those of another take a step with.
 */

/* How many panels are a bundle. A lone row needs several sums at once to hide the latency of a multiply-add. Where
 * vectors are long, a panel of an RNN or a Linear layer has one of them, of a GRU three, of an LSTM four. More than
 * four pay for an LSTM only while its weights fit the first-level cache: a step of 32 units takes 0.91 of the time with
 * two panels, one of 64 units 1.1 (avx512). */
static FRNN_INLINE ptrdiff_t FN(bundle_panels)(ptrdiff_t gates, ptrdiff_t units)
{
    switch (gates) {
    case 4: return VL == FRNN_PANEL && units <= 2 * FRNN_PANEL ? 2 : 1;
    case 3: return 2;
    default: return FRNN_DENSE_BUNDLE;
    }
}

static FRNN_INLINE frnn_bundle FN(bundle_at)(ptrdiff_t gates, ptrdiff_t units, ptrdiff_t index)
{
    return frnn_bundle_of(units, gates, FN(bundle_panels)(gates, units), index);
}

/* A part is a bundle. */
static ptrdiff_t FN(part_units)(const frnn_cell *cell)
{
    return FN(bundle_panels)(cell->gates, cell->hidden_size) * FRNN_PANEL;
}

/* Whether h is within +-1 once it was computed. */
static inline int FN(is_bounded)(const frnn_cell *cell)
{
    return cell->kind != FRNN_RNN_RELU && cell->w_hr.data == NULL;
}

/* ---------------------------------------------------------------- biases */

/* Biases (gates * units,) as (panels, gates, 16). */
static FRNN_COLD void FN(pack_bias)(ptrdiff_t units, ptrdiff_t gates, const T *bias, T *to)
{
    for (ptrdiff_t unit = 0; unit < frnn_panels(units) * FRNN_PANEL; unit += FRNN_PANEL)
        for (ptrdiff_t gate = 0; gate < gates; gate++)
            for (ptrdiff_t j = 0; j < FRNN_PANEL; j++)
                *to++ = unit + j < units ? bias[gate * units + unit + j] : 0;
}

static FRNN_COLD size_t FN(pack_biases)(frnn_cell *cell, const void *bias, const void *bias_hn, void *memory)
{
    const size_t size = frnn_lines(frnn_gate_width(cell) * sizeof(T));
    const size_t size_hn = bias_hn == NULL ? 0 : frnn_lines(frnn_panels(cell->hidden_size) * FRNN_PANEL * sizeof(T));
    if (memory == NULL)
        return size + size_hn;
    FN(pack_bias)(cell->hidden_size, cell->gates, bias, memory);
    cell->bias = memory;
    if (bias_hn != NULL) {
        T *to = (T *)((char *)memory + size);
        FN(pack_bias)(cell->hidden_size, 1, bias_hn, to);
        cell->bias_hn = to;
    }
    return size + size_hn;
}

/* ---------------------------------------------------------------- crowded rows */

/* Whether rows of this distance share so few sets of the first-level cache that more than a tile's are never there
 * together. */
static inline int FN(is_crowd)(ptrdiff_t ld)
{
    return ld * (ptrdiff_t)sizeof(T) % FRNN_CROWD == 0;
}

static inline int FN(is_crowded)(ptrdiff_t n, ptrdiff_t ld)
{
    return n > FRNN_TILE_ROWS && FN(is_crowd)(ld);
}

/* The distance at which rows of this many columns are not crowded. */
static inline ptrdiff_t FN(apart)(ptrdiff_t columns)
{
    return FN(is_crowd)(columns) ? columns + FRNN_APART / (ptrdiff_t)sizeof(T) : columns;
}

static ptrdiff_t FN(rows_apart)(ptrdiff_t n, ptrdiff_t columns)
{
    return FN(is_crowded)(n, columns) ? FN(apart)(columns) : columns;
}
