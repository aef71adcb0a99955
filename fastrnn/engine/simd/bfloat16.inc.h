/* Products of bfloat16 weights and rows that are rounded to bfloat16, summed up in float32. Or of weights and rows that
 * are sums of FRNN_PARTS such numbers each: the first is the number rounded, the next what is left of it, rounded.
 *
 * The order of sums is that of AMX (TDPBF16PS), on every instruction set: for each 32 rows of K a chain of fused
 * multiply-adds over the even ones and one over the odd ones, each from 0; the sum of both; that added to the sum so
 * far, which begins with the bias. Denormals are zeros. So the bits are the same with AMX and without, and for any
 * number of rows. The dot products of AVX512-BF16 have another order: they are not used.
 * Parts are multiplied in the order of FRNN_EACH_PRODUCT, for 32 rows of K at a time; products that are as small as what
 * was left of the last part are left out. Henry, Tang and Heinecke, Leveraging the bfloat16 Artificial Intelligence
 * Datatype For Higher-Precision Computations, 2019.
 * Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS.
 */
#define FRNN_GROUP 2
#define FRNN_BLOCK 32
#define FRNN_HAS_LONE (!FRNN_TILES && FRNN_PARTS == 1)
#if FRNN_TILES
#define A uint16_t
#define A_OF(bits) ((A)((bits) >> 16))
#else
#define A float /* rounded */
#define A_OF(bits) frnn_from_bits(bits)
#endif

/* DO(part of the row, part of the weights, whether either is another one than in the product before). Only one of them
 * changes from product to product, so that the other stays in its tile. */
#if FRNN_PARTS == 1
#define FRNN_EACH_PRODUCT(DO) DO(0, 0, 1, 1)
#elif FRNN_PARTS == 2
#define FRNN_EACH_PRODUCT(DO) DO(1, 0, 1, 1) DO(0, 0, 1, 0) DO(0, 1, 0, 1)
#else
#define FRNN_EACH_PRODUCT(DO) \
    DO(2, 0, 1, 1) DO(1, 0, 1, 0) DO(1, 1, 0, 1) DO(0, 1, 1, 0) DO(0, 2, 0, 1) DO(0, 0, 0, 1)
#endif

/* ---------------------------------------------------------------- numbers */

static inline T WN(largest_of)(const frnn_source *source, ptrdiff_t row, ptrdiff_t K)
{
    (void)source, (void)row, (void)K;
    return 0;
}

static inline W WN(stored)(const frnn_source *source, ptrdiff_t i, T largest, int part)
{
    (void)largest;
    if (source->storage == FRNN_STORED_BF16)
        return part == 0 ? ((const W *)source->data)[i] : 0;
    const frnn_parts parts = frnn_bfloat16_parts(((const T *)source->data)[i]);
    return (W)((part == 0 ? parts.first : part == 1 ? parts.second : parts.third) >> 16);
}

static inline size_t WN(pack_scales)(frnn_matrix *matrix, const frnn_source *source, void *memory)
{
    (void)matrix, (void)source, (void)memory;
    return 0;
}

static void WN(round_row)(ptrdiff_t columns, int is_bounded, const T *from, A *to, float *scale)
{
    const ptrdiff_t whole = (columns + FRNN_BLOCK - 1) / FRNN_BLOCK * FRNN_BLOCK;
    (void)is_bounded, (void)scale;
#if FRNN_PARTS > 1
    A *const second = to + whole, *const third = second + whole;
    for (ptrdiff_t k = 0; k < columns; k++) {
        const frnn_parts parts = frnn_bfloat16_parts(from[k]);
        to[k] = A_OF(parts.first);
        second[k] = A_OF(parts.second);
        if (FRNN_PARTS > 2)
            third[k] = A_OF(parts.third);
    }
    for (int part = 0; part < FRNN_PARTS; part++)
        memset(to + part * whole + columns, 0, (whole - columns) * sizeof(A));
#else
    ptrdiff_t k = 0;
#if FRNN_TILES
    for (; k + 32 <= columns; k += 32)
        _mm512_storeu_si512(to + k, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + k + 16),
                                                                 _mm512_loadu_ps(from + k)));
    for (; k < columns; k++)
        to[k] = frnn_to_bfloat16(from[k]);
#else
    for (; k < columns; k++)
        to[k] = frnn_rounded_to_bfloat16(from[k]);
#endif
    for (; k < whole; k++)
        to[k] = 0;
#endif
}

#include "narrow.inc.h"

#if FRNN_TILES
#define FRNN_SUMS_BEGIN_ZERO 0
#define FRNN_TILE_DOT(sum, a, b) _tile_dpbf16ps(sum, a, b)

/* Bring the sums of the last rows to their place. */
static void WN(finish)(ptrdiff_t rows, ptrdiff_t wide, const T *sums, ptrdiff_t ld, WN(operand) a, WN(weights) weights,
                       ptrdiff_t c, const T *from, ptrdiff_t ldfrom, T *acc, ptrdiff_t width)
{
    (void)a, (void)weights, (void)c, (void)from, (void)ldfrom;
    for (ptrdiff_t m = 0; m < rows; m++)
        memcpy(acc + m * width, sums + m * ld, wide * FRNN_PANEL * sizeof(T));
}

#include "tiles.inc.h"
#else

/* ---------------------------------------------------------------- sums without tiles */

/* Tiles of sums: their even and odd chains are registers. */
#if FRNN_REGISTERS == 32
#define FRNN_TALL 4
#else
#define FRNN_TALL 2
#endif

/* sum (rows, vectors) += a (rows, a block of K) times the weights at `place`. */
static FRNN_INLINE void WN(add_block)(const int rows, const int vectors, const A *a, ptrdiff_t lda, const W *const *w,
                                      ptrdiff_t place, V (*sum)[6])
{
    V even[FRNN_TALL][6], odd[FRNN_TALL][6];
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            even[m][v] = odd[m][v] = v_set(0);
    for (ptrdiff_t k = 0; k < FRNN_BLOCK; k += 2)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++) {
            const W *pair = w[v] + place + k * FRNN_PANEL;
            const V first = v_even_bfloat16(pair), second = v_odd_bfloat16(pair);
            FRNN_UNROLL
            for (int m = 0; m < rows; m++) {
                even[m][v] = v_fma(v_set(a[m * lda + k]), first, even[m][v]);
                odd[m][v] = v_fma(v_set(a[m * lda + k + 1]), second, odd[m][v]);
            }
        }
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[m][v] = v_add(sum[m][v], v_add(even[m][v], odd[m][v]));
}

/* sum (rows, vectors) += a (rows, blocks of K) times weights. `rows` and `vectors` are constants. */
static FRNN_INLINE void WN(add_blocks)(const int rows, const int vectors, ptrdiff_t blocks, const A *a, ptrdiff_t lda,
                                       const W *const *w, ptrdiff_t block, V (*sum)[6])
{
#define FRNN_PARTS_OF(OF_ROW, OF_WEIGHTS, NEW_ROW, NEW_WEIGHTS) {OF_ROW, OF_WEIGHTS},
    static const int parts[][2] = {FRNN_EACH_PRODUCT(FRNN_PARTS_OF)};
    for (ptrdiff_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            WN(add_block)(rows, vectors, a + (parts[i][0] * blocks + b) * FRNN_BLOCK, lda, w,
                          b * block + parts[i][1] * WN(PART), sum);
#undef FRNN_PARTS_OF
}

#if FRNN_HAS_LONE
/* total += a (K) times weights for a lone row and a bundle of `vectors` vectors of columns, in registers. */
static FRNN_INLINE void WN(lone_product)(const int vectors, ptrdiff_t K, WN(operand) a, WN(weights) weights, V *total)
{
    const int pass = FRNN_PASS(vectors);
    FRNN_UNROLL
    for (int first = 0; first < vectors; first += pass) {
        const W *w[6];
        V sum[1][6];
        FRNN_UNROLL
        for (int v = 0; v < pass; v++) {
            w[v] = WN(column)(weights, (first + v) * VL);
            sum[0][v] = total[first + v];
        }
        WN(add_blocks)(1, pass, WN(blocks)(K), a.at, a.ld, w, weights.block, sum);
        FRNN_UNROLL
        for (int v = 0; v < pass; v++)
            total[first + v] = sum[0][v];
    }
}
#endif

static FRNN_INLINE void WN(tile)(const int rows, const int vectors, ptrdiff_t K, WN(operand) a, WN(weights) weights,
                                 ptrdiff_t c, const T *from, ptrdiff_t ldfrom, T *acc, ptrdiff_t width)
{
    const W *w[6];
    V sum[FRNN_TALL][6];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        w[v] = WN(column)(weights, c + v * VL);
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[m][v] = v_load(from + m * ldfrom + c + v * VL);
    WN(add_blocks)(rows, vectors, WN(blocks)(K), a.at, a.ld, w, weights.block, sum);
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(acc + m * width + c + v * VL, sum[m][v]);
}

#include "narrow_rows.inc.h"

#undef FRNN_TALL
#endif

#undef FRNN_SUMS_BEGIN_ZERO
#undef FRNN_TILE_DOT
#undef FRNN_EACH_PRODUCT
#undef FRNN_GROUP
#undef FRNN_BLOCK
#undef A
#undef A_OF
