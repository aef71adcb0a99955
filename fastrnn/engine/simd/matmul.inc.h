/* Products of two arrays, neither of which was packed before. Sums are made in segments of FRNN_MATMUL_SEGMENT
 * products, each from 0, which are then added: an output's bits depend on its row and column alone. */

#define FRNN_MATMUL_ROWS (FRNN_REGISTERS == 32 ? 12 : 6)
#define FRNN_MATMUL_STRIP (2 * VL)

/* c (rows, a strip) = or += a (rows, K) b (K, a strip); K is at most a segment. */
static FRNN_INLINE void FN(matmul_tile)(const int rows, ptrdiff_t K, const T *a, ptrdiff_t a_row, ptrdiff_t a_column,
                                        const T *b, ptrdiff_t b_row, T *c, ptrdiff_t c_row, int is_first)
{
    V sums[FRNN_MATMUL_ROWS][2];
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        sums[m][0] = sums[m][1] = v_set(0);
    for (ptrdiff_t k = 0; k < K; k++, a += a_column, b += b_row) {
        const V left = v_load(b), right = v_load(b + VL);
        FRNN_UNROLL
        for (int m = 0; m < rows; m++) {
            const V factor = v_set(a[m * a_row]);
            sums[m][0] = v_fma(factor, left, sums[m][0]);
            sums[m][1] = v_fma(factor, right, sums[m][1]);
        }
    }
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            T *at = c + m * c_row + v * VL;
            v_store(at, is_first ? sums[m][v] : v_add(v_load(at), sums[m][v]));
        }
}

static void FN(matmul_rows)(ptrdiff_t rows, ptrdiff_t K, const T *a, ptrdiff_t a_row, ptrdiff_t a_column, const T *b,
                            ptrdiff_t b_row, T *c, ptrdiff_t c_row, int is_first)
{
#define FRNN_TILE(N) FN(matmul_tile)(N, K, a, a_row, a_column, b, b_row, c, c_row, is_first)
    switch (rows) {
    case 1: FRNN_TILE(1); break;
    case 2: FRNN_TILE(2); break;
    case 4: FRNN_TILE(4); break;
#if FRNN_REGISTERS == 32
    case 6: FRNN_TILE(6); break;
    default: FRNN_TILE(12); break;
#else
    default: FRNN_TILE(6); break;
#endif
    }
#undef FRNN_TILE
}

static inline ptrdiff_t FN(matmul_height)(ptrdiff_t left)
{
    return left >= FRNN_MATMUL_ROWS ? FRNN_MATMUL_ROWS : left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Bring a strip of b, of which `columns` there are, together; the others are 0. */
static void FN(matmul_pack)(ptrdiff_t K, ptrdiff_t columns, const T *b, ptrdiff_t b_row, ptrdiff_t b_column, T *packed)
{
    if (columns < FRNN_MATMUL_STRIP)
        memset(packed, 0, (size_t)(K * FRNN_MATMUL_STRIP) * sizeof(T));
    if (b_column == 1)
        for (ptrdiff_t k = 0; k < K; k++)
            memcpy(packed + k * FRNN_MATMUL_STRIP, b + k * b_row, (size_t)columns * sizeof(T));
    else
        for (ptrdiff_t j = 0; j < columns; j++)
            for (ptrdiff_t k = 0; k < K; k++)
                packed[k * FRNN_MATMUL_STRIP + j] = b[k * b_row + j * b_column];
}

static void FN(matmul)(const frnn_matmul *what, const void *a_data, const void *b_data, void *c_data, char *scratch)
{
    const ptrdiff_t n = what->n;
    const T *a = a_data, *b = b_data;
    T *c = c_data, *packed = (T *)scratch, *part = packed + FRNN_MATMUL_SEGMENT * FRNN_MATMUL_STRIP;
    if (what->K == 0)
        for (ptrdiff_t i = 0; i < what->m; i++)
            memset(c + i * what->c_row, 0, (size_t)n * sizeof(T));
    for (ptrdiff_t j = 0; j < n; j += FRNN_MATMUL_STRIP) {
        const ptrdiff_t columns = n - j < FRNN_MATMUL_STRIP ? n - j : FRNN_MATMUL_STRIP;
        const int is_part = columns < FRNN_MATMUL_STRIP;
        const int is_packed = is_part || what->b_column != 1 || what->m > 4 * FRNN_MATMUL_ROWS;
        for (ptrdiff_t k = 0; k < what->K; k += FRNN_MATMUL_SEGMENT) {
            const ptrdiff_t K = what->K - k < FRNN_MATMUL_SEGMENT ? what->K - k : FRNN_MATMUL_SEGMENT;
            const T *strip = b + k * what->b_row + j * what->b_column;
            if (is_packed)
                FN(matmul_pack)(K, columns, strip, what->b_row, what->b_column, packed);
            for (ptrdiff_t i = 0, rows; i < what->m; i += rows) {
                T *at = c + i * what->c_row + j;
                rows = FN(matmul_height)(what->m - i);
                for (ptrdiff_t m = 0; is_part && k > 0 && m < rows; m++)
                    memcpy(part + m * FRNN_MATMUL_STRIP, at + m * what->c_row, (size_t)columns * sizeof(T));
                FN(matmul_rows)(rows, K, a + i * what->a_row + k * what->a_column, what->a_row, what->a_column,
                                is_packed ? packed : strip, is_packed ? FRNN_MATMUL_STRIP : what->b_row,
                                is_part ? part : at, is_part ? FRNN_MATMUL_STRIP : what->c_row, k == 0);
                for (ptrdiff_t m = 0; is_part && m < rows; m++)
                    memcpy(at + m * what->c_row, part + m * FRNN_MATMUL_STRIP, (size_t)columns * sizeof(T));
            }
        }
    }
}

#undef FRNN_MATMUL_ROWS
#undef FRNN_MATMUL_STRIP
