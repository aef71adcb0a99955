/* Products of rows and packed weights, for one storage. Nothing here knows a gate or a kind of cell.
 *
 * Every output is a sum in one order, however many rows are computed together: first what it begins with (a bias, or
 * the sum so far), then the segments of K one after the other, each of which is summed from 0 and then added. So the
 * bits of a row never depend on its batch (but for the sign of a NaN), and the rounding error of a long sum stays
 * that of its segments.
 *
 * isa.inc.h says what a storage is: W its type, w_load(p) a vector of VL weights in the arithmetic, from any
 * alignment, w_store(p, a), and w_one(p) one weight. A storage that lies or is summed in another way has a file of its
 * own in place of this one, operands.inc.h and packing.inc.h, which gives cells.inc.h
 *
 *   operand, room, arrange   rows as its products read them, and the scratch that takes
 *   weights, weights_of      the weights of a bundle
 *   product, lone_product    sums for any number of rows, and for one row in registers
 *   is_far                   whether weights are fetched ahead
 *   pack                     packed weights
 */

/* The vectors of a strip, of a bundle of this many: as many as a tile is wide. All strips of a bundle are equal. */
#if FRNN_REGISTERS == 32
#define FRNN_STRIP(vectors) ((vectors) % 6 == 0 ? 6 : (vectors) < 4 ? (vectors) : 4)
#else
#define FRNN_STRIP(vectors) ((void)(vectors), 2)
#endif
/* The vectors that a lone row sums up in one pass: several, to hide the latency of a multiply-add, but of few
 * strips, since each is a stream of memory for the processor to follow. A pass is cut in strips as its bundle
 * is: FRNN_STRIP(FRNN_PASS(vectors)) == FRNN_STRIP(vectors). */
#define FRNN_PASS(vectors)                                                                       \
    ((vectors) % 12 == 0 && FRNN_STRIP(vectors) == 6 ? 12                                        \
     : (vectors) % 8 == 0                            ? 8                                         \
     : (vectors) % 6 == 0                            ? 6                                         \
                                                     : (vectors))
/* The columns of a strip, of a bundle of this many. */
static ptrdiff_t WN(strip_columns)(ptrdiff_t width)
{
    return FRNN_STRIP(width / VL) * VL;
}

/* Where vector v of a segment of K rows lies. */
#define FRNN_PLACE(v, strip, K) ((v) / (strip) * (strip) * VL * (K) + (v) % (strip) * VL)

/* Rows that products read: (n, K) with ld elements from row to row. Or interleaved: segment by segment, tile by tile,
 * k by k, the numbers of a tile's rows side by side. With room for a segment of all rows, each segment is copied there
 * first: crowded rows then lie apart. */
typedef struct WN(operand) {
    const T *at;
    ptrdiff_t ld;
    int is_interleaved;
    T *room;
} WN(operand);

/* Elements from row to row of a segment that lies apart. */
enum { WN(apart_ld) = FRNN_SEGMENT + FRNN_APART / (int)sizeof(T) };

static void WN(lay_apart)(ptrdiff_t n, ptrdiff_t K, const T *a, ptrdiff_t lda, T *to)
{
    for (ptrdiff_t m = 0; m < n; m++)
        memcpy(to + m * WN(apart_ld), a + m * lda, K * sizeof(T));
}

/* The weights of a bundle (K, width). */
typedef struct WN(weights) {
    const W *at;
} WN(weights);

static inline WN(weights) WN(weights_of)(const frnn_matrix *matrix, frnn_bundle bundle)
{
    const WN(weights) weights = {(const W *)matrix->data + bundle.offset * matrix->columns};
    return weights;
}

/* Whether weights of this many columns of K are fetched ahead in a pass of n rows. */
static inline int WN(is_far)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns)
{
    return VL > 1 && n > FRNN_FEW && columns * cell->hidden_size * cell->gates * (ptrdiff_t)sizeof(W) > FRNN_NEAR;
}

/* ---------------------------------------------------------------- tiles: several rows */

/* What a tile adds up: `rows` times `vectors` sums, at most 12 of 16 registers or 24 of 32. */
typedef struct WN(sums) {
    V of[FRNN_TILE_ROWS][6];
} WN(sums);

/* The products of one k. If its weights are far, a cache line of the next strip is fetched meanwhile. */
static FRNN_INLINE void WN(multiply)(const int rows, const int vectors, const int is_far, const int is_interleaved,
                                     ptrdiff_t k, const T *a, ptrdiff_t lda, const W *w, uintptr_t next,
                                     WN(sums) *sums)
{
    V column[6];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        column[v] = w_load(w + v * VL);
    if (is_far)
        FRNN_PREFETCH((const void *)(next + (uintptr_t)k * FRNN_LINE));
    FRNN_UNROLL
    for (int m = 0; m < rows; m++) {
        V factor = v_set(is_interleaved ? a[k * rows + m] : a[m * lda + k]);
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sums->of[m][v] = v_fma(factor, column[v], sums->of[m][v]);
    }
}

/* acc (rows, vectors) = from (rows, vectors) + a (rows, K) times a strip; K is at most a segment. `rows`, `vectors` and
 * the two flags are constants, so that the sums are registers. */
static FRNN_INLINE void WN(tile)(const int rows, const int vectors, const int is_far, const int is_interleaved,
                                 ptrdiff_t K, const T *a, ptrdiff_t lda, const W *w, ptrdiff_t width,
                                 const T *from, ptrdiff_t ldfrom, T *acc, uintptr_t next)
{
    WN(sums) sums;
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sums.of[m][v] = v_set(0);
    FRNN_UNROLL_4
    for (ptrdiff_t k = 0; k < K; k++, w += vectors * VL)
        WN(multiply)(rows, vectors, is_far, is_interleaved, k, a, lda, w, next, &sums);
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(acc + m * width + v * VL, v_add(v_load(from + m * ldfrom + v * VL), sums.of[m][v]));
}

#define FRNN_TILE(R) WN(tile)(R, vectors, is_far, is_interleaved, K, a, lda, w, width, from, ldfrom, acc, next)

/* A strip for n > 1 rows, tile by tile. If weights are far, each tile fetches a part of the next strip. Tiles after
 * the last part fetch what is there already. */
static FRNN_INLINE void WN(tiles)(const int vectors, const int most, const int is_far, const int is_interleaved,
                                  ptrdiff_t n, ptrdiff_t K, const T *a, ptrdiff_t lda, const W *w, ptrdiff_t width,
                                  const T *from, ptrdiff_t ldfrom, T *acc)
{
    /* Addresses that are fetched and never read: after the last strip they may be beyond the weights. */
    const uintptr_t size = (uintptr_t)(K * vectors * VL) * sizeof(W), fetched = (uintptr_t)K * FRNN_LINE;
    const uintptr_t here = (uintptr_t)w, end = here + 2 * size;
    uintptr_t next = here + size;
    for (ptrdiff_t left = n, rows; left > 0; left -= rows) {
        rows = frnn_equal_part(left, most);
        switch (rows) {
        case 2: FRNN_TILE(2); break;
        case 3: FRNN_TILE(3); break;
        case 4: FRNN_TILE(4); break;
        case 5: FRNN_TILE(most > 4 ? 5 : 4); break;
        default: FRNN_TILE(most > 4 ? 6 : 4); break;
        }
        a += rows * (is_interleaved ? K : lda);
        from += rows * ldfrom;
        acc += rows * width;
        next = end - next > fetched ? next + fetched : here;
    }
}

#undef FRNN_TILE

/* One segment of a bundle for n > 1 rows. A strip stays near while all rows pass over it. */
static FRNN_INLINE void WN(rows_segment)(const int is_far, const int is_interleaved, ptrdiff_t n, ptrdiff_t K,
                                         const T *a, ptrdiff_t lda, const W *w, ptrdiff_t width, const T *from,
                                         ptrdiff_t ldfrom, T *acc)
{
#define FRNN_TILES(N, MOST) WN(tiles)(N, MOST, is_far, is_interleaved, n, K, a, lda, w, width, from, ldfrom, acc)
    const ptrdiff_t strip = WN(strip_columns)(width);
    for (ptrdiff_t first = 0; first < width; first += strip) {
#if FRNN_REGISTERS == 32
        switch (strip / VL) {
        case 6: FRNN_TILES(6, 4); break;
        case 4: FRNN_TILES(4, 6); break;
        case 3: FRNN_TILES(3, 6); break;
        case 2: FRNN_TILES(2, 6); break;
        default: FRNN_TILES(1, 6); break;
        }
#else
        FRNN_TILES(2, 6);
#endif
        w += strip * K;
        from += strip;
        acc += strip;
    }
#undef FRNN_TILES
}

/* ---------------------------------------------------------------- passes: a lone row */

/* total += a (K) times `vectors` vectors of columns, in strips of `strip` vectors; K is at most a segment. */
static FRNN_INLINE void WN(lone_pass)(const int vectors, const int strip, ptrdiff_t K, const T *a, const W *w,
                                      V *total)
{
    V sum[12];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[v] = v_set(0);
    for (ptrdiff_t k = 0; k < K; k++, w += strip * VL) {
        V column[12];
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            column[v] = w_load(w + FRNN_PLACE(v, strip, K));
        V factor = v_set(a[k]);
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[v] = v_fma(factor, column[v], sum[v]);
    }
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        total[v] = v_add(total[v], sum[v]);
}

/* total += a (K) W for a lone row and a bundle of `vectors` vectors of columns, in registers. */
static FRNN_INLINE void WN(lone_product)(const int vectors, ptrdiff_t K, WN(operand) a, WN(weights) weights, V *total)
{
    const int pass = FRNN_PASS(vectors);
    const ptrdiff_t segment = FRNN_SEGMENT_OF(K);
    const W *w = weights.at;
    for (ptrdiff_t begin = 0, rows; begin < K; begin += rows) {
        rows = K - begin < segment ? K - begin : segment;
        FRNN_UNROLL
        for (int first = 0; first < vectors; first += pass, w += rows * pass * VL)
            WN(lone_pass)(pass, FRNN_STRIP(vectors), rows, a.at + begin, w, total + first);
    }
}

/* One segment of a bundle for a lone row, in memory. */
static FRNN_INLINE void WN(lone_segment)(ptrdiff_t K, const T *a, const W *w, ptrdiff_t width, const T *from, T *acc)
{
#define FRNN_LONE(N) WN(lone_pass)(N, FRNN_STRIP(N), K, a, w, total)
    const ptrdiff_t pass = FRNN_PASS(width / VL);
    for (ptrdiff_t first = 0; first < width; first += pass * VL) {
        V total[12];
        for (ptrdiff_t v = 0; v < pass; v++)
            total[v] = v_load(from + first + v * VL);
        switch (pass) {
        case 12: FRNN_LONE(12); break;
        case 8: FRNN_LONE(8); break;
        case 6: FRNN_LONE(6); break;
        case 4: FRNN_LONE(4); break;
        case 3: FRNN_LONE(3); break;
        case 2: FRNN_LONE(2); break;
        default: FRNN_LONE(1); break;
        }
        for (ptrdiff_t v = 0; v < pass; v++)
            v_store(acc + first + v * VL, total[v]);
        w += pass * VL * K;
    }
#undef FRNN_LONE
}

/* ---------------------------------------------------------------- any number of rows */

static FRNN_INLINE void WN(segments)(const int is_far, const int is_interleaved, ptrdiff_t n, ptrdiff_t K_all,
                                     WN(operand) rows, const W *w, ptrdiff_t width, const T *from,
                                     ptrdiff_t ldfrom, T *acc)
{
    const ptrdiff_t segment = FRNN_SEGMENT_OF(K_all);
    for (ptrdiff_t k = 0; k < K_all; k += segment) {
        const ptrdiff_t K = K_all - k < segment ? K_all - k : segment;
        const T *a = rows.at + (is_interleaved ? k * n : k);
        ptrdiff_t lda = rows.ld;
        if (!is_interleaved && rows.room != NULL) {
            WN(lay_apart)(n, K, a, lda, rows.room);
            a = rows.room;
            lda = WN(apart_ld);
        }
        if (n == 1)
            WN(lone_segment)(K, a, w + k * width, width, from, acc);
        else
            WN(rows_segment)(is_far, is_interleaved, n, K, a, lda, w + k * width, width, from, ldfrom, acc);
        from = acc;
        ldfrom = width;
    }
}

/* acc (n, width) = from (n, width) + a (n, K) W for the weights W (K, width) of a bundle. ldfrom is 0 where all rows
 * begin with the same. is_far: weights are fetched ahead. */
static void WN(product)(ptrdiff_t n, ptrdiff_t K, WN(operand) a, WN(weights) w, ptrdiff_t width, const T *from,
                        ptrdiff_t ldfrom, T *acc, int is_far)
{
#define FRNN_SEGMENTS(IS_FAR, IS_INTERLEAVED)                                                    \
    WN(segments)(IS_FAR, IS_INTERLEAVED, n, K, a, w.at, width, from, ldfrom, acc)
#if FRNN_INTERLEAVED
    if (a.is_interleaved && is_far)
        FRNN_SEGMENTS(1, 1);
    else if (a.is_interleaved)
        FRNN_SEGMENTS(0, 1);
    else
#endif
    if (is_far)
        FRNN_SEGMENTS(1, 0);
    else
        FRNN_SEGMENTS(0, 0);
#undef FRNN_SEGMENTS
}
