/* Packed weights: from rows, as torch has them, to the order in which products.inc.h reads them (bundles.h). */

/* Number i of a source: in the storage itself, or in the arithmetic. */
static inline T WN(number)(const frnn_source *source, ptrdiff_t i)
{
    const frnn_format own = FRNN_FORMAT;
    return source->storage == own.storage ? w_one((const W *)source->data + i) : ((const T *)source->data)[i];
}

/* VL units of one gate, for this many rows of K. `units` of them exist: the first one's begins at number `first` of the
 * source, and they lie `stride` numbers apart. The others are 0. Vectors go `strip` elements apart. In squares, so that
 * whole cache lines are read. */
static FRNN_COLD void WN(pack_vector)(ptrdiff_t K, ptrdiff_t units, const frnn_source *source, ptrdiff_t first,
                                      ptrdiff_t stride, W *to, ptrdiff_t strip)
{
    enum { MOST = 16 };
    T square[MOST][VL] = {{0}};
    for (ptrdiff_t k = 0; k < K; k += MOST) {
        const ptrdiff_t rows = K - k < MOST ? K - k : MOST;
        for (ptrdiff_t j = 0; j < units; j++)
            for (ptrdiff_t i = 0; i < rows; i++)
                square[i][j] = WN(number)(source, first + j * stride + k + i);
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

/* A matrix (gates * units, K) in bundles. */
static FRNN_COLD void WN(pack_rows)(ptrdiff_t units, ptrdiff_t gates, ptrdiff_t K_all, const frnn_source *source, W *to)
{
    const ptrdiff_t segment = FRNN_SEGMENT_OF(K_all), most = FN(bundle_panels)(gates, units);
    for (ptrdiff_t index = 0; index * most < frnn_panels(units); index++) {
        const frnn_bundle bundle = frnn_bundle_of(units, gates, most, index);
        const ptrdiff_t strip = WN(strip_columns)(bundle.width);
        for (ptrdiff_t k = 0; k < K_all; k += segment) {
            const ptrdiff_t K = K_all - k < segment ? K_all - k : segment;
            for (ptrdiff_t first = 0; first < bundle.width; first += strip, to += strip * K)
                for (ptrdiff_t j = 0; j < strip; j += VL) {
                    ptrdiff_t row;
                    const ptrdiff_t count = WN(units_of)(units, gates, bundle, first + j, &row);
                    WN(pack_vector)(K, count, source, row * K_all + k, K_all, to + j, strip);
                }
        }
    }
}

static FRNN_COLD size_t WN(pack)(frnn_matrix *matrix, const frnn_source *source, void *memory)
{
    const ptrdiff_t G = matrix->gates, units = matrix->rows / G, K = matrix->columns;
    if (memory != NULL) {
        WN(pack_rows)(units, G, K, source, memory);
        matrix->data = memory;
    }
    return frnn_lines(frnn_panels(units) * FRNN_PANEL * G * K * sizeof(W));
}
