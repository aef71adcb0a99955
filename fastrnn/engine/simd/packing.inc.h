/* Packed weights: from rows, as torch has them, to the order in which products.inc.h reads them (bundles.h). */

/* How many panels are a bundle. A lone row needs several sums at once to hide the latency of a multiply-add. Where
 * vectors are long, a panel of an RNN or a Linear layer has one of them, of a GRU three, of an LSTM four. More than
 * four pay for an LSTM only while its weights fit the first-level cache: a step of 32 units takes 0.91 of the time with
 * two panels, one of 64 units 1.1 (avx512). */
static ptrdiff_t WN(bundle_panels)(frnn_kind kind, ptrdiff_t hidden_size)
{
    switch (kind) {
    case FRNN_LSTM: return VL == FRNN_PANEL && hidden_size <= 2 * FRNN_PANEL ? 2 : 1;
    case FRNN_GRU: return 2;
    default: return FRNN_DENSE_BUNDLE;
    }
}

/* VL units of one gate, for this many rows of K. `units` of them exist, whose rows in `from` lie `stride` elements
 * apart; the others are 0. Vectors go `strip` elements apart. In squares, so that whole cache lines are read. */
static FRNN_COLD void WN(pack_vector)(ptrdiff_t K, ptrdiff_t units, const T *from, ptrdiff_t stride, W *to,
                                      ptrdiff_t strip)
{
    enum { MOST = 16 };
    T square[MOST][VL] = {{0}};
    for (ptrdiff_t k = 0; k < K; k += MOST) {
        const ptrdiff_t rows = K - k < MOST ? K - k : MOST;
        for (ptrdiff_t j = 0; j < units; j++)
            for (ptrdiff_t i = 0; i < rows; i++)
                square[i][j] = from[j * stride + k + i];
        for (ptrdiff_t i = 0; i < rows; i++)
            w_store(to + (k + i) * strip, v_load(square[i]));
    }
}

/* The units of a vector that exist, and the first row of the matrix that it holds; c is its first column. */
static inline ptrdiff_t WN(units_of)(ptrdiff_t units, ptrdiff_t gates, frnn_bundle bundle, ptrdiff_t c,
                                     ptrdiff_t *row)
{
    const ptrdiff_t gate = c / FRNN_PANEL % gates;
    const ptrdiff_t unit = (bundle.panel + c / FRNN_PANEL / gates) * FRNN_PANEL + c % FRNN_PANEL;
    const ptrdiff_t left = units - unit;
    *row = gate * units + unit;
    return left < 0 ? 0 : left < VL ? left : VL;
}

/* A matrix (gates * units, K) in bundles of `most` panels. */
static FRNN_COLD void WN(pack_rows)(ptrdiff_t units, ptrdiff_t gates, ptrdiff_t most, ptrdiff_t K_all,
                                    const T *rows, W *to)
{
    const ptrdiff_t segment = FRNN_SEGMENT_OF(K_all);
    for (ptrdiff_t index = 0; index * most < frnn_panels(units); index++) {
        const frnn_bundle bundle = frnn_bundle_of(units, gates, most, index);
        const ptrdiff_t strip = WN(strip_columns)(bundle.width);
        for (ptrdiff_t k = 0; k < K_all; k += segment) {
            const ptrdiff_t K = K_all - k < segment ? K_all - k : segment;
            for (ptrdiff_t first = 0; first < bundle.width; first += strip, to += strip * K)
                for (ptrdiff_t j = 0; j < strip; j += VL) {
                    ptrdiff_t row;
                    const ptrdiff_t count = WN(units_of)(units, gates, bundle, first + j, &row);
                    WN(pack_vector)(K, count, rows + row * K_all + k, K_all, to + j, strip);
                }
        }
    }
}

/* Biases (gates * units,) as (panels, gates, 16). */
static FRNN_COLD void WN(pack_bias)(ptrdiff_t units, ptrdiff_t gates, const T *bias, T *to)
{
    for (ptrdiff_t unit = 0; unit < frnn_panels(units) * FRNN_PANEL; unit += FRNN_PANEL)
        for (ptrdiff_t gate = 0; gate < gates; gate++)
            for (ptrdiff_t j = 0; j < FRNN_PANEL; j++)
                *to++ = unit + j < units ? bias[gate * units + unit + j] : 0;
}

/* The next part of memory, of this many elements; it begins at a cache line. NULL where memory is. */
static void *WN(take)(void *memory, size_t *used, ptrdiff_t count, size_t size)
{
    void *part = memory == NULL ? NULL : (char *)memory + *used;
    *used += ((size_t)count * size + FRNN_LINE - 1) / FRNN_LINE * FRNN_LINE;
    return part;
}

static FRNN_COLD frnn_matrix WN(pack_matrix)(ptrdiff_t units, ptrdiff_t gates, ptrdiff_t most, ptrdiff_t K,
                                             const void *rows, void *memory, size_t *used)
{
    frnn_matrix matrix = {NULL, FRNN_FORMAT, gates * units, K, NULL, NULL};
    if (rows == NULL)
        return matrix;
    W *to = WN(take)(memory, used, frnn_panels(units) * FRNN_PANEL * gates * K, sizeof(W));
    if (to != NULL)
        WN(pack_rows)(units, gates, most, K, rows, to);
    matrix.data = to;
    return matrix;
}

static FRNN_COLD const void *WN(pack_biases)(ptrdiff_t units, ptrdiff_t gates, const void *bias, void *memory,
                                             size_t *used)
{
    if (bias == NULL)
        return NULL;
    T *to = WN(take)(memory, used, frnn_panels(units) * FRNN_PANEL * gates, sizeof(T));
    if (to != NULL)
        WN(pack_bias)(units, gates, bias, to);
    return to;
}

/* One piece of memory: w_ih, w_hh, w_hr, bias, bias_hn. */
static FRNN_COLD size_t WN(pack)(frnn_cell *cell, const frnn_weights *weights, void *memory)
{
    const ptrdiff_t H = cell->hidden_size, P = cell->output_size, G = cell->gates;
    const ptrdiff_t most = WN(bundle_panels)(cell->kind, H);
    size_t used = 0;
    cell->bundle = most;
    cell->w_ih = WN(pack_matrix)(H, G, most, cell->input_size, weights->w_ih, memory, &used);
    cell->w_hh = WN(pack_matrix)(H, G, most, P, weights->w_hh, memory, &used);
    cell->w_hr = WN(pack_matrix)(P, 1, FRNN_DENSE_BUNDLE, H, weights->w_hr, memory, &used);
    cell->bias = WN(pack_biases)(H, G, weights->bias, memory, &used);
    cell->bias_hn = WN(pack_biases)(H, 1, weights->bias_hn, memory, &used);
    return used;
}
