/* Sums of any number of rows, tile by tile, for storages that have no tiles of AMX. `tile` is the storage's, as is the
 * name of the product, FRNN_PRODUCT. */

/* All columns of a bundle for `rows` rows, a constant. */
static FRNN_INLINE void WN(columns)(const int rows, ptrdiff_t K, WN(operand) a, WN(weights) weights, ptrdiff_t width,
                                    const T *from, ptrdiff_t ldfrom, T *acc)
{
    const int wide = rows == 1 ? 4 : 2;
    ptrdiff_t c = 0;
    for (; c + wide * VL <= width; c += wide * VL)
        WN(tile)(rows, wide, K, a, weights, c, from, ldfrom, acc, width);
    for (; c < width; c += VL)
        WN(tile)(rows, 1, K, a, weights, c, from, ldfrom, acc, width);
}

/* acc (n, width) = from (n, width) + a (n, K) W for the weights W (K, width) of a bundle. ldfrom is 0 where all rows
 * begin with the same. */
static void FRNN_PRODUCT(ptrdiff_t n, ptrdiff_t K, WN(operand) a, WN(weights) weights, ptrdiff_t width, const T *from,
                        ptrdiff_t ldfrom, T *acc, int is_far)
{
#define FRNN_COLUMNS(R) WN(columns)(R, K, a, weights, width, from, ldfrom, acc)
    (void)is_far;
    for (ptrdiff_t left = n, rows; left > 0; left -= rows) {
        rows = frnn_equal_part(left, FRNN_TALL);
        switch (rows) {
        case 1: FRNN_COLUMNS(1); break;
        case 2: FRNN_COLUMNS(2); break;
#if FRNN_TALL >= 4
        case 3: FRNN_COLUMNS(3); break;
        default: FRNN_COLUMNS(4); break;
#else
        default: break;
#endif
        }
        a = WN(from_row)(a, rows);
        from += rows * ldfrom;
        acc += rows * width;
    }
#undef FRNN_COLUMNS
}
