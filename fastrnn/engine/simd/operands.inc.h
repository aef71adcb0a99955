/* Rows as the products of products.inc.h read them best: as they lie, further apart, or interleaved. */

/* Whether n rows are interleaved for the products of a cell: where it has enough strips to pay for that. */
static inline int WN(is_interleaved)(const frnn_cell *cell, ptrdiff_t n)
{
    return FRNN_INTERLEAVED && n > FRNN_FEW && frnn_gate_width(cell) >= FRNN_INTERLEAVED * FRNN_STRIP(0) * VL;
}

/* The elements that it takes to arrange n rows, or fewer: interleaved; or apart, where they may be crowded by
 * themselves or beside the other direction's. A narrow view of crowded rows stays as it is. */
static ptrdiff_t WN(room)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns)
{
    return WN(is_interleaved)(cell, n) || FN(is_crowded)(n, 2 * columns) ? n * FN(apart)(columns) : 0;
}

static FRNN_INLINE void WN(interleave_tile)(const int rows, ptrdiff_t K, const T *a, ptrdiff_t lda, T *to)
{
    for (ptrdiff_t k = 0; k < K; k++, to += rows)
        FRNN_UNROLL
        for (int m = 0; m < rows; m++)
            to[m] = a[m * lda + k];
}

#if FRNN_INTERLEAVED && FRNN_REGISTERS == 32
#error "tiles six vectors wide are four rows high: interleaving has to know that"
#endif

static void WN(interleave)(ptrdiff_t n, ptrdiff_t K_all, const T *a, ptrdiff_t lda, T *to)
{
    const ptrdiff_t segment = FRNN_SEGMENT_OF(K_all);
    for (ptrdiff_t k = 0; k < K_all; k += segment) {
        const ptrdiff_t K = K_all - k < segment ? K_all - k : segment;
        const T *from = a + k;
        for (ptrdiff_t left = n, rows; left > 0; left -= rows, from += rows * lda, to += rows * K) {
            rows = frnn_equal_part(left, FRNN_TILE_ROWS);
            switch (rows) {
            case 2: WN(interleave_tile)(2, K, from, lda, to); break;
            case 3: WN(interleave_tile)(3, K, from, lda, to); break;
            case 4: WN(interleave_tile)(4, K, from, lda, to); break;
            case 5: WN(interleave_tile)(5, K, from, lda, to); break;
            default: WN(interleave_tile)(6, K, from, lda, to); break;
            }
        }
    }
}

static inline WN(operand) WN(as_they_lie)(const T *a, ptrdiff_t ld)
{
    const WN(operand) rows = {a, ld, 0, NULL};
    return rows;
}

static void WN(arrange_rows)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns, WN(operand) *rows, T **scratch)
{
    const ptrdiff_t room = WN(room)(cell, n, columns), apart = FN(apart)(columns);
    T *copy = *scratch;
    if (WN(is_interleaved)(cell, n)) {
        WN(interleave)(n, columns, rows->at, rows->ld, copy);
        rows->is_interleaved = 1;
    } else if (room != 0 && FN(is_crowded)(n, rows->ld)) {
        for (ptrdiff_t m = 0; m < n; m++)
            memcpy(copy + m * apart, rows->at + m * rows->ld, columns * sizeof(T));
        rows->ld = apart;
    } else {
        return;
    }
    rows->at = copy;
    *scratch += room;
}

/* Bring n rows that lie as they are to where the products of a cell read them best. `scratch` moves on past what that
 * took. is_bounded: their numbers are usually within +-1. */
static inline void WN(arrange)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns, int is_bounded,
                               WN(operand) *rows, T **scratch)
{
    (void)is_bounded;
    if (n > 1)
        WN(arrange_rows)(cell, n, columns, rows, scratch);
}

/* ---------------------------------------------------------------- rows of a Linear layer */

/* The rows of a bundle whose sums fit on the stack, and the elements from one to the next where crowded rows of a
 * segment are laid apart there. */
enum {
    WN(DENSE_ROWS) = FRNN_DENSE_ROWS * (int)sizeof(float) / (int)sizeof(T),
    WN(APART) = WN(apart_ld)
};

/* How many rows meet each bundle before the next one: as many as stay near, so that far weights are read rarely. Near
 * weights are read again sooner than crowded rows are copied. */
static ptrdiff_t WN(most_rows)(ptrdiff_t columns, ptrdiff_t n, ptrdiff_t ldx, int is_far)
{
    const ptrdiff_t near = FRNN_NEAR / ((columns + 1) * (ptrdiff_t)sizeof(T));
    if (!is_far && FN(is_crowded)(n, ldx))
        return FRNN_TILE_ROWS;
    return near > WN(DENSE_ROWS) ? near / WN(DENSE_ROWS) * WN(DENSE_ROWS) : WN(DENSE_ROWS);
}

static inline size_t WN(arranged_bytes)(ptrdiff_t columns, ptrdiff_t n)
{
    (void)columns, (void)n;
    return 0;
}

static inline WN(operand) WN(arranged)(ptrdiff_t columns, ptrdiff_t n, const T *a, ptrdiff_t ld, void *scratch)
{
    (void)columns, (void)n, (void)scratch;
    return WN(as_they_lie)(a, ld);
}

static inline WN(operand) WN(from_row)(WN(operand) rows, ptrdiff_t m)
{
    rows.at += m * rows.ld;
    return rows;
}

/* Let crowded rows be laid apart in this room of DENSE_ROWS * APART elements. */
static inline void WN(lay_apart_in)(T *room, ptrdiff_t n, WN(operand) *rows)
{
    if (FN(is_crowded)(n, rows->ld))
        rows->room = room;
}
