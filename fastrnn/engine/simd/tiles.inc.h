/* Sums of any number of rows on the tiles of AMX, for one storage. tiles.h has their configuration.
 *
 * A tile holds 16 units, or numbers of up to 16 rows. All tiles of rows have the same height; the last one may have
 * fewer rows, and then what it gives goes through memory of its own. Two tiles of rows meet two of weights at a time,
 * or one meets four, so that 4 of the 8 tiles are sums.
 */

/* All sums of a block: DO(tile of rows, tile of columns, number of its register). */
#define FRNN_EACH_SUM(DO) \
    do {                  \
        DO(0, 0, 0);      \
        if (wide > 1)     \
            DO(0, 1, 1);  \
        if (tall == 2) {  \
            DO(1, 0, 2);  \
            if (wide > 1) \
                DO(1, 1, 3); \
        } else {          \
            if (wide > 2) \
                DO(0, 2, 2); \
            if (wide > 3) \
                DO(0, 3, 3); \
        }                 \
    } while (0)

/* Where the sums of a tile of rows begin and end: at the first column of a block. */
typedef struct WN(place) {
    const T *from;
    ptrdiff_t ldfrom;
    void *to;
    ptrdiff_t ldto;
} WN(place);

/* `tall` tiles of rows times `wide` tiles of columns, both constants: at most 4 sums. */
static FRNN_INLINE void WN(block)(const int tall, const int wide, ptrdiff_t blocks, const A *a, ptrdiff_t lda,
                                  ptrdiff_t height, const W *const *w, ptrdiff_t block, const WN(place) *places)
{
#if FRNN_SUMS_BEGIN_ZERO
#define FRNN_BEGIN_SUM(I, J, C) _tile_zero(C)
#else
#define FRNN_BEGIN_SUM(I, J, C) \
    _tile_loadd(C, places[I].from + (J) * FRNN_PANEL, places[I].ldfrom * (ptrdiff_t)sizeof(T))
#endif
#define FRNN_END_SUM(I, J, C) \
    _tile_stored(C, (T *)places[I].to + (J) * FRNN_PANEL, places[I].ldto * (ptrdiff_t)sizeof(T))
#define FRNN_COLUMN(J, OF_WEIGHTS) (w[J] + b * block + (OF_WEIGHTS) * WN(PART))
#define FRNN_MULTIPLY(OF_ROW, OF_WEIGHTS, NEW_ROW, NEW_WEIGHTS)                    \
    do {                                                                           \
        const A *rows = a + ((OF_ROW) * blocks + b) * FRNN_BLOCK;                  \
        if (NEW_ROW)                                                               \
            _tile_loadd(4, rows, lda * sizeof(A));                                 \
        if (NEW_ROW && tall == 2)                                                  \
            _tile_loadd(5, rows + height * lda, lda * sizeof(A));                  \
        if (NEW_WEIGHTS || wide > 2)                                               \
            _tile_loadd(6, FRNN_COLUMN(0, OF_WEIGHTS), 64);                        \
        FRNN_TILE_DOT(0, 4, 6);                                                    \
        if (tall == 2)                                                             \
            FRNN_TILE_DOT(2, 5, 6);                                                \
        if (wide > 1 && (NEW_WEIGHTS || wide > 2))                                 \
            _tile_loadd(7, FRNN_COLUMN(1, OF_WEIGHTS), 64);                        \
        if (wide > 1)                                                              \
            FRNN_TILE_DOT(1, 4, 7);                                                \
        if (wide > 1 && tall == 2)                                                 \
            FRNN_TILE_DOT(3, 5, 7);                                                \
        if (wide > 2) {                                                            \
            _tile_loadd(6, FRNN_COLUMN(2, OF_WEIGHTS), 64);                        \
            FRNN_TILE_DOT(2, 4, 6);                                                \
        }                                                                          \
        if (wide > 3) {                                                            \
            _tile_loadd(7, FRNN_COLUMN(3, OF_WEIGHTS), 64);                        \
            FRNN_TILE_DOT(3, 4, 7);                                                \
        }                                                                          \
    } while (0);
    FRNN_WRITTEN();
    FRNN_EACH_SUM(FRNN_BEGIN_SUM);
    for (ptrdiff_t b = 0; b < blocks; b++) {
        FRNN_EACH_PRODUCT(FRNN_MULTIPLY)
    }
    FRNN_EACH_SUM(FRNN_END_SUM);
#undef FRNN_BEGIN_SUM
#undef FRNN_END_SUM
#undef FRNN_COLUMN
#undef FRNN_MULTIPLY
}

/* A block for the rows of one or two tiles. The room is for the sums of tiles that do not go where they belong at
 * once. */
static FRNN_INLINE void WN(tile)(const int tall, const int wide, ptrdiff_t n, ptrdiff_t height, ptrdiff_t blocks,
                                 WN(operand) a, WN(weights) weights, ptrdiff_t c, const T *from, ptrdiff_t ldfrom,
                                 T *acc, ptrdiff_t width)
{
    enum { WIDTH = 4 * FRNN_PANEL };
    T room[2][16 * WIDTH];
    WN(place) places[2];
    const W *w[4];
    for (int j = 0; j < wide; j++)
        w[j] = WN(column)(weights, c + j * FRNN_PANEL);
    for (int i = 0; i < tall; i++) {
        const ptrdiff_t first = i * height, rows = n - first < height ? n - first : height;
        const int is_whole = rows == height && !FRNN_SUMS_BEGIN_ZERO;
        const WN(place) place = {from + first * ldfrom + c, ldfrom, acc + first * width + c, width};
        places[i] = place;
        if (is_whole)
            continue;
        places[i].to = room[i];
        places[i].ldto = WIDTH;
        if (FRNN_SUMS_BEGIN_ZERO || ldfrom == 0)
            continue;
        for (ptrdiff_t m = 0; m < rows; m++)
            memcpy(room[i] + m * WIDTH, place.from + m * ldfrom, wide * FRNN_PANEL * sizeof(T));
        places[i].from = room[i];
        places[i].ldfrom = WIDTH;
    }
    WN(block)(tall, wide, blocks, a.at, a.ld, height, w, weights.block, places);
    for (int i = 0; i < tall; i++)
        if (places[i].to == room[i]) {
            const ptrdiff_t first = i * height, rows = n - first < height ? n - first : height;
            WN(finish)(rows, wide, room[i], WIDTH, WN(from_row)(a, first), weights, c, from + first * ldfrom + c,
                       ldfrom, acc + first * width + c, width);
        }
}

/* acc (n, width) = from (n, width) + a (n, K) W for the weights W (K, width) of a bundle. ldfrom is 0 where all rows
 * begin with the same. */
static void WN(product)(ptrdiff_t n, ptrdiff_t K, WN(operand) a, WN(weights) weights, ptrdiff_t width, const T *from,
                        ptrdiff_t ldfrom, T *acc, int is_far)
{
#define FRNN_TILE(TALL, WIDE) \
    WN(tile)(TALL, WIDE, n - m, height, blocks, a, weights, c, from, ldfrom, acc, width)
    if (n == 0)
        return;
    const ptrdiff_t height = frnn_equal_part(n, 16), blocks = WN(blocks)(K);
    (void)is_far;
    frnn_need_tiles((int)height);
    for (ptrdiff_t m = 0, rows; m < n; m += rows) {
        const int tall = n - m > height ? 2 : 1, most = tall == 2 ? 2 : 4;
        rows = tall * height;
        for (ptrdiff_t c = 0, wide; c < width; c += wide * FRNN_PANEL) {
            wide = (width - c) / FRNN_PANEL < most ? (width - c) / FRNN_PANEL : most;
            if (tall == 2 && wide == 2)
                FRNN_TILE(2, 2);
            else if (tall == 2)
                FRNN_TILE(2, 1);
            else if (wide == 4)
                FRNN_TILE(1, 4);
            else if (wide == 3)
                FRNN_TILE(1, 3);
            else if (wide == 2)
                FRNN_TILE(1, 2);
            else
                FRNN_TILE(1, 1);
        }
        a = WN(from_row)(a, rows);
        from += rows * ldfrom;
        acc += rows * width;
    }
#undef FRNN_TILE
}

#undef FRNN_EACH_SUM
