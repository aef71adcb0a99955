/* What storages of narrow weights share: how weights lie, and rows that are rounded before they are multiplied. For
 * one storage and one level; bfloat16.inc.h and int8.inc.h define FRNN_GROUP, FRNN_BLOCK, FRNN_PARTS and A and include this file.
 *
 * Weights lie as tiles of 1 KB: FRNN_BLOCK rows of K for 16 units, as 16 groups of FRNN_GROUP rows, the numbers of a
 * unit side by side in a group. A panel has block after block, and in each the tiles of its gates:
 *
 *     (panels, K / BLOCK, gates, PARTS, 16 groups, 16 units, GROUP)
 *
 * So 64 bytes are a group of 16 units, for vectors, and 1 KB is a tile, for AMX. K is filled up with zeros, and one
 * copy serves a lone row and batches. bundles.h has panels and bundles.
 *
 * Rows are rounded by `arrange`, to memory of their own, whether they lie well or not.
 */

enum {
    WN(PART) = FRNN_BLOCK * FRNN_PANEL, /* numbers of a tile */
    WN(TILE) = WN(PART) * FRNN_PARTS    /* of all parts of one */
};

/* K in whole blocks. */
static inline ptrdiff_t WN(blocks)(ptrdiff_t K)
{
    return (K + FRNN_BLOCK - 1) / FRNN_BLOCK;
}

/* The weights of a bundle. */
typedef struct WN(weights) {
    const W *at;
    const float *scales;  /* of its columns; int8 alone */
    const int32_t *sums;  /* as above */
    ptrdiff_t block;      /* numbers from block to block */
    ptrdiff_t panel;      /* from panel to panel */
    ptrdiff_t gates;
} WN(weights);

static inline WN(weights) WN(weights_of)(const frnn_matrix *matrix, frnn_bundle bundle)
{
    const ptrdiff_t block = matrix->gates * WN(TILE), panel = block * WN(blocks)(matrix->columns);
    const WN(weights) weights = {
        (const W *)matrix->data + bundle.panel * panel,
        matrix->scales == NULL ? NULL : matrix->scales + bundle.offset,
        matrix->sums == NULL ? NULL : matrix->sums + bundle.offset,
        block, panel, matrix->gates,
    };
    return weights;
}

/* Where the column c of a bundle begins. */
static FRNN_INLINE const W *WN(column)(WN(weights) weights, ptrdiff_t c)
{
    const ptrdiff_t gate = c / FRNN_PANEL;
    return weights.at + gate / weights.gates * weights.panel + gate % weights.gates * WN(TILE)
        + c % FRNN_PANEL * FRNN_GROUP;
}

/* Weights are never fetched ahead here. */
static inline int WN(is_far)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns)
{
    (void)cell, (void)n, (void)columns;
    return 0;
}

/* ---------------------------------------------------------------- packing */

static FRNN_COLD void WN(pack_panel)(const frnn_matrix *matrix, const frnn_source *source, ptrdiff_t panel, W *to)
{
    const ptrdiff_t G = matrix->gates, units = matrix->rows / G, K = matrix->columns, first = panel * FRNN_PANEL;
    const ptrdiff_t count = units - first < FRNN_PANEL ? units - first : FRNN_PANEL;
    memset(to, 0, WN(blocks)(K) * G * WN(TILE) * sizeof(W));
    for (ptrdiff_t gate = 0; gate < G; gate++)
        for (ptrdiff_t unit = 0; unit < count; unit++) {
            const ptrdiff_t row = gate * units + first + unit;
            const T largest = WN(largest_of)(source, row, K);
            for (ptrdiff_t k = 0; k < K; k++)
                for (int part = 0; part < FRNN_PARTS; part++)
                    to[(k / FRNN_BLOCK * G + gate) * WN(TILE) + part * WN(PART)
                       + (k % FRNN_BLOCK / FRNN_GROUP * FRNN_PANEL + unit) * FRNN_GROUP + k % FRNN_GROUP] =
                        WN(stored)(source, row * K + k, largest, part);
        }
}

static FRNN_COLD size_t WN(pack)(frnn_matrix *matrix, const frnn_source *source, void *memory)
{
    const ptrdiff_t panels = frnn_panels(matrix->rows / matrix->gates);
    const ptrdiff_t panel = WN(blocks)(matrix->columns) * matrix->gates * WN(TILE);
    const size_t size = panels * panel * sizeof(W);
    if (memory != NULL) {
        for (ptrdiff_t i = 0; i < panels; i++)
            WN(pack_panel)(matrix, source, i, (W *)memory + i * panel);
        matrix->data = memory;
    }
    return size + WN(pack_scales)(matrix, source, memory == NULL ? NULL : (char *)memory + size);
}

/* ---------------------------------------------------------------- rows */

/* Rows that products read, rounded, with whole blocks of K, part after part; `ld` numbers from row to row. */
typedef struct WN(operand) {
    const T *from;       /* the same before they were rounded */
    ptrdiff_t ld_from;
    const A *at;
    ptrdiff_t ld;
    const float *scales; /* (n,): what a row's whole numbers are multiplied by; int8 alone */
} WN(operand);

static inline WN(operand) WN(as_they_lie)(const T *a, ptrdiff_t ld)
{
    const WN(operand) rows = {a, ld, NULL, 0, NULL};
    return rows;
}

static inline WN(operand) WN(from_row)(WN(operand) rows, ptrdiff_t m)
{
    rows.at += m * rows.ld;
    if (rows.scales != NULL)
        rows.scales += m;
    return rows;
}

/* From row to row, in numbers: rows do not crowd. */
static inline ptrdiff_t WN(rounded_ld)(ptrdiff_t columns)
{
    const ptrdiff_t ld = WN(blocks)(columns) * FRNN_BLOCK * FRNN_PARTS;
    return ld * (ptrdiff_t)sizeof(A) % FRNN_CROWD == 0 ? ld + FRNN_APART / (ptrdiff_t)sizeof(A) : ld;
}

/* The rows of whole tiles. */
static inline ptrdiff_t WN(whole_rows)(ptrdiff_t n)
{
    return FRNN_TILES ? n + n / 16 + 1 : n;
}

/* The bytes of n rounded rows and their scales, in lines. */
static inline size_t WN(arranged_bytes)(ptrdiff_t columns, ptrdiff_t n)
{
    const ptrdiff_t rows = WN(whole_rows)(n);
    return frnn_lines(rows * WN(rounded_ld)(columns) * sizeof(A)) + frnn_lines(rows * sizeof(float));
}

static inline ptrdiff_t WN(room)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns)
{
    (void)cell;
    return (ptrdiff_t)(WN(arranged_bytes)(columns, n) / sizeof(T));
}

/* Round n rows, and give the numbers of the rows that fill up the last tile a value. */
static void WN(round_rows)(ptrdiff_t n, ptrdiff_t columns, int is_bounded, WN(operand) *rows, void *scratch)
{
    const ptrdiff_t ld = WN(rounded_ld)(columns), whole = WN(whole_rows)(n);
    A *to = scratch;
    float *scales = (float *)((char *)scratch + frnn_lines(whole * ld * sizeof(A)));
    for (ptrdiff_t m = 0; m < n; m++)
        WN(round_row)(columns, is_bounded, rows->from + m * rows->ld_from, to + m * ld, scales + m);
    memset(to + n * ld, 0, (whole - n) * ld * sizeof(A));
    rows->at = to;
    rows->ld = ld;
    rows->scales = scales;
}

static inline void WN(arrange)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns, int is_bounded,
                               WN(operand) *rows, T **scratch)
{
    WN(round_rows)(n, columns, is_bounded, rows, *scratch);
    *scratch += WN(room)(cell, n, columns);
}

/* ---------------------------------------------------------------- rows of a Linear layer */

/* The rows of a bundle whose sums fit on the stack. */
enum { WN(DENSE_ROWS) = 64, WN(APART) = 1 };

/* As many rows as are rounded together. */
static inline ptrdiff_t WN(most_rows)(ptrdiff_t columns, ptrdiff_t n, ptrdiff_t ldx, int is_far)
{
    const ptrdiff_t near = FRNN_NEAR / (WN(rounded_ld)(columns) * (ptrdiff_t)sizeof(A)) / 64 * 64;
    (void)ldx, (void)is_far;
    return n < near ? n : near < 64 ? 64 : near;
}

static inline WN(operand) WN(arranged)(ptrdiff_t columns, ptrdiff_t n, const T *a, ptrdiff_t ld, void *scratch)
{
    WN(operand) rows = WN(as_they_lie)(a, ld);
    WN(round_rows)(n, columns, 0, &rows, scratch);
    return rows;
}

static inline void WN(lay_apart_in)(T *room, ptrdiff_t n, WN(operand) *rows)
{
    (void)room, (void)n, (void)rows;
}

/* ---------------------------------------------------------------- sums */

/* The vectors that a lone row sums up in one pass, of a bundle of this many. */
#define FRNN_PASS(vectors)                                                                            \
    ((vectors) % 4 == 0 ? 4 : (vectors) % 6 == 0 && FRNN_REGISTERS == 32 ? 6 : (vectors) % 3 == 0 ? 3 \
     : (vectors) % 2 == 0                                                        ? 2                  \
                                                                                 : 1)
