/* Products of whole-number weights, with one scale for each row of the matrix, and rows that are rounded to whole
 * numbers from -127 to 127, with one scale for each row of the batch. Sums are whole numbers, so their order does not
 * matter: they are the same on every instruction set and for any number of rows.
 *
 *     result = from + scale of the row * scale of the weights * sum      (the scales first; the last two rounded once)
 *
 * A row's scale is its largest magnitude / 127. Rows that are bounded by 1 have 1 / 127, unless one of their numbers
 * is larger. Rows below 1e-30 are zeros. NaN and infinities in a row give NaN.
 *
 * FRNN_VNNI: the level has dot products of four whole numbers, of which those of the rows have no sign (VPDPBUSD).
 * 128 is added to them there, and 128 times the sum of the weights taken away from the sum. FRNN_TILES: more than a few
 * rows go to the tiles of AMX, as they are. Fewer take less time without: LSTM 256 with one row 2.4 us a step instead of
 * 6.8, with two 5.1 instead of 7.0.
 */
#define FRNN_PARTS 1
#define FRNN_EACH_PRODUCT(DO) DO(0, 0, 1, 1)
#define FRNN_GROUP 4
#define FRNN_BLOCK 64
#define FRNN_HAS_LONE 1
#if FRNN_VNNI
#define A uint8_t
#elif defined(FRNN_ISA_NEON)
#define A int8_t
#else
#define A int16_t /* of each four the first and third, then the second and fourth */
#endif
#define FRNN_LEAST 1e-30f

/* ---------------------------------------------------------------- numbers */

static FRNN_COLD T WN(largest_of)(const frnn_source *source, ptrdiff_t row, ptrdiff_t K)
{
    return source->storage == FRNN_STORED_S8 ? 0
                                             : frnn_from_bits(frnn_largest_bits(K, (const T *)source->data + row * K));
}

static inline W WN(stored)(const frnn_source *source, ptrdiff_t i, T largest, int part)
{
    (void)part;
    if (source->storage == FRNN_STORED_S8)
        return ((const W *)source->data)[i];
    return largest < FRNN_LEAST ? 0 : (W)frnn_nearest(((const T *)source->data)[i] * (127 / largest));
}

/* The scales and the sums of weights, as gates lie. */
static FRNN_COLD size_t WN(pack_scales)(frnn_matrix *matrix, const frnn_source *source, void *memory)
{
    const ptrdiff_t G = matrix->gates, units = matrix->rows / G, K = matrix->columns;
    const ptrdiff_t columns = frnn_panels(units) * FRNN_PANEL * G;
    const size_t size = frnn_lines(columns * sizeof(float));
    if (memory == NULL)
        return 2 * size;
    float *scales = memory;
    int32_t *sums = (int32_t *)((char *)memory + size);
    for (ptrdiff_t c = 0; c < columns; c++) {
        const ptrdiff_t unit = c / FRNN_PANEL / G * FRNN_PANEL + c % FRNN_PANEL;
        const ptrdiff_t row = c / FRNN_PANEL % G * units + unit;
        scales[c] = 0;
        sums[c] = 0;
        if (unit >= units)
            continue;
        const T largest = WN(largest_of)(source, row, K);
        for (ptrdiff_t k = 0; k < K; k++)
            sums[c] += WN(stored)(source, row * K + k, largest, 0);
        if (source->storage == FRNN_STORED_S8)
            scales[c] = source->scales[row];
        else
            scales[c] = largest < FRNN_LEAST ? 0 : largest / 127;
    }
    matrix->scales = scales;
    matrix->sums = sums;
    return 2 * size;
}

/* Whether this many rows are few. */
static inline int WN(are_few)(ptrdiff_t n)
{
    return !FRNN_TILES || n <= 3;
}

static void WN(round_row)(ptrdiff_t n, ptrdiff_t columns, int is_bounded, const T *from, A *to, float *scale)
{
    const int offset = FRNN_VNNI && WN(are_few)(n) ? 128 : 0;
    const ptrdiff_t whole = (columns + FRNN_BLOCK - 1) / FRNN_BLOCK * FRNN_BLOCK;
    const uint32_t bits = frnn_largest_bits(columns, from);
    const float largest = is_bounded && bits <= 0x3F800000 ? 1 : frnn_from_bits(bits);
    const int is_number = bits < 0x7F800000, is_nothing = largest < FRNN_LEAST || !is_number;
    const float factor = is_nothing ? 0 : 127 / largest;
    ptrdiff_t k = 0;
    *scale = !is_number ? NAN : is_nothing ? 0 : largest / 127;
    if (!is_number) {
        memset(to, 0, whole * sizeof(A));
        return;
    }
#if FRNN_VNNI || defined(FRNN_ISA_NEON)
    for (; k < columns; k++)
        to[k] = (A)(frnn_nearest(from[k] * factor) + offset);
    memset(to + k, offset, whole - k);
#else
    (void)offset;
    for (; k + 4 <= columns; k += 4) {
        to[k] = (A)frnn_nearest(from[k] * factor);
        to[k + 1] = (A)frnn_nearest(from[k + 2] * factor);
        to[k + 2] = (A)frnn_nearest(from[k + 1] * factor);
        to[k + 3] = (A)frnn_nearest(from[k + 3] * factor);
    }
    memset(to + k, 0, (whole - k) * sizeof(A));
    for (; k < columns; k++)
        to[k / 4 * 4 + k % 2 * 2 + k % 4 / 2] = (A)frnn_nearest(from[k] * factor);
#endif
}

#include "narrow.inc.h"

#if FRNN_TILES
#define FRNN_SUMS_BEGIN_ZERO 1
#define FRNN_TILE_DOT(sum, a, b) _tile_dpbssd(sum, a, b)

/* Results from the sums of some rows. */
static FRNN_INLINE void WN(finish)(ptrdiff_t rows, ptrdiff_t wide, const T *sums, ptrdiff_t ld, WN(operand) a,
                                   WN(weights) weights, ptrdiff_t c, const T *from, ptrdiff_t ldfrom, T *acc,
                                   ptrdiff_t width)
{
    for (ptrdiff_t j = 0; j < wide * FRNN_PANEL; j += VL) {
        const V scales = v_load(weights.scales + c + j);
        for (ptrdiff_t m = 0; m < rows; m++)
            v_store(acc + m * width + j,
                    v_fma(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + m * ld + j)),
                          v_mul(v_set(a.scales[m]), scales), v_load(from + m * ldfrom + j)));
    }
}

#define FRNN_PRODUCT WN(product_of_many)
#include "tiles.inc.h"
#undef FRNN_PRODUCT
#endif

/* ---------------------------------------------------------------- sums without tiles */

/* Words of whole numbers: I is VL of 32 bits; i_weights reads four weights for each, and i_dot adds their products with
 * four numbers of a row. */
#if defined(FRNN_ISA_AVX512)
#define I __m512i
#define i_zero() _mm512_setzero_si512()
#define i_float(a) _mm512_cvtepi32_ps(a)
#define i_add(a, b) _mm512_add_epi32(a, b)
#define i_load(p) _mm512_loadu_si512(p)
#define i_set(a) _mm512_set1_epi32(a)
#define i_minus_128(a) _mm512_slli_epi32(_mm512_sub_epi32(i_zero(), a), 7)
#define i_fours(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#define i_pairs(a, b) _mm512_madd_epi16(a, b)
#define i_low(a) _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8)
#define i_high(a) _mm512_srai_epi16(a, 8)
#elif defined(FRNN_ISA_AVX2)
#define I __m256i
#define i_zero() _mm256_setzero_si256()
#define i_float(a) _mm256_cvtepi32_ps(a)
#define i_add(a, b) _mm256_add_epi32(a, b)
#define i_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define i_set(a) _mm256_set1_epi32(a)
#define i_minus_128(a) _mm256_slli_epi32(_mm256_sub_epi32(i_zero(), a), 7)
#define i_fours(sum, a, b) _mm256_dpbusd_avx_epi32(sum, a, b)
#define i_pairs(a, b) _mm256_madd_epi16(a, b)
#define i_low(a) _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8)
#define i_high(a) _mm256_srai_epi16(a, 8)
#endif

#if FRNN_VNNI
#define i_begin(sums) i_minus_128(i_load(sums))
typedef I WN(four);
static FRNN_INLINE WN(four) WN(i_weights)(const W *w)
{
    return i_load(w);
}
static FRNN_INLINE I WN(i_dot)(I sum, const A *a, WN(four) w)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
    return i_fours(sum, i_set(four), w);
}
#elif defined(FRNN_ISA_AVX512) || defined(FRNN_ISA_AVX2)
/* Of each four bytes the first and third, and the second and fourth, as 16 bits. */
#define i_begin(sums) ((void)(sums), i_zero())
typedef struct WN(four) {
    I low, high;
} WN(four);
static FRNN_INLINE WN(four) WN(i_weights)(const W *w)
{
    const I all = i_load(w);
    const WN(four) four = {i_low(all), i_high(all)};
    return four;
}
static FRNN_INLINE I WN(i_dot)(I sum, const A *a, WN(four) w)
{
    int32_t low, high;
    memcpy(&low, a, sizeof low);
    memcpy(&high, a + 2, sizeof high);
    return i_add(sum, i_add(i_pairs(i_set(low), w.low), i_pairs(i_set(high), w.high)));
}
#elif defined(FRNN_ISA_NEON)
#define I int32x4_t
#define i_zero() vdupq_n_s32(0)
#define i_float(a) vcvtq_f32_s32(a)
#define i_add(a, b) vaddq_s32(a, b)
#define i_begin(sums) ((void)(sums), i_zero())
typedef int8x16_t WN(four);
static FRNN_INLINE WN(four) WN(i_weights)(const W *w)
{
    return vld1q_s8(w);
}
static FRNN_INLINE I WN(i_dot)(I sum, const A *a, WN(four) w)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, w, vreinterpretq_s8_s32(vdupq_n_s32(four)));
#else
    const int8x8_t twice = vreinterpret_s8_s32(vdup_n_s32(four));
    const int16x8_t low = vmull_s8(vget_low_s8(w), twice), high = vmull_s8(vget_high_s8(w), twice);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
#else
#define I int32_t
#define i_zero() 0
#define i_float(a) ((float)(a))
#define i_add(a, b) ((a) + (b))
#define i_begin(sums) ((void)(sums), 0)
typedef const W *WN(four);
static FRNN_INLINE WN(four) WN(i_weights)(const W *w)
{
    return w;
}
static FRNN_INLINE I WN(i_dot)(I sum, const A *a, WN(four) w)
{
    return sum + a[0] * w[0] + a[1] * w[2] + a[2] * w[1] + a[3] * w[3];
}
#endif

/* Tiles of sums in registers. */
#if FRNN_REGISTERS == 32
#define FRNN_TALL 4
#else
#define FRNN_TALL 2
#endif

/* sum (rows, vectors): a (rows, blocks of K) times weights. `rows` and `vectors` are constants. */
static FRNN_INLINE void WN(sum_blocks)(const int rows, const int vectors, ptrdiff_t blocks, const A *a, ptrdiff_t lda,
                                       const W *const *w, ptrdiff_t block, I (*sum)[6])
{
    I other[6];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        other[v] = i_zero();
    for (ptrdiff_t b = 0; b < blocks; b++, a += FRNN_BLOCK)
        for (ptrdiff_t k = 0; k < FRNN_BLOCK; k += 8)
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++) {
                const W *at = w[v] + b * block + k * FRNN_PANEL;
                const WN(four) first = WN(i_weights)(at), second = WN(i_weights)(at + 4 * FRNN_PANEL);
                FRNN_UNROLL
                for (int m = 0; m < rows; m++) {
                    I *last = rows == 1 ? other + v : sum[m] + v; /* a lone row has few chains: two for each sum */
                    sum[m][v] = WN(i_dot)(sum[m][v], a + m * lda + k, first);
                    *last = WN(i_dot)(*last, a + m * lda + k + 4, second);
                }
            }
    if (rows == 1)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[0][v] = i_add(sum[0][v], other[v]);
}

/* total += a (K) times weights for a lone row and a bundle of `vectors` vectors of columns, in registers. */
static FRNN_INLINE void WN(lone_product)(const int vectors, ptrdiff_t K, WN(operand) a, WN(weights) weights, V *total)
{
    const int pass = FRNN_PASS(vectors);
    const V scale = v_set(a.scales[0]);
    FRNN_UNROLL
    for (int first = 0; first < vectors; first += pass) {
        const W *w[6];
        I sum[1][6];
        FRNN_UNROLL
        for (int v = 0; v < pass; v++) {
            w[v] = WN(column)(weights, (first + v) * VL);
            sum[0][v] = i_begin(weights.sums + (first + v) * VL);
        }
        WN(sum_blocks)(1, pass, WN(blocks)(K), a.at, a.ld, w, weights.block, sum);
        FRNN_UNROLL
        for (int v = 0; v < pass; v++)
            total[first + v] = v_fma(i_float(sum[0][v]), v_mul(scale, v_load(weights.scales + (first + v) * VL)),
                                     total[first + v]);
    }
}

static FRNN_INLINE void WN(tile)(const int rows, const int vectors, ptrdiff_t K, WN(operand) a, WN(weights) weights,
                                 ptrdiff_t c, const T *from, ptrdiff_t ldfrom, T *acc, ptrdiff_t width)
{
    const W *w[6];
    I sum[FRNN_TALL][6];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++) {
        w[v] = WN(column)(weights, c + v * VL);
        FRNN_UNROLL
        for (int m = 0; m < rows; m++)
            sum[m][v] = i_begin(weights.sums + c + v * VL);
    }
    WN(sum_blocks)(rows, vectors, WN(blocks)(K), a.at, a.ld, w, weights.block, sum);
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(acc + m * width + c + v * VL,
                    v_fma(i_float(sum[m][v]), v_mul(v_set(a.scales[m]), v_load(weights.scales + c + v * VL)),
                          v_load(from + m * ldfrom + c + v * VL)));
}

#if FRNN_TILES
#define FRNN_PRODUCT WN(product_of_few)
#include "narrow_rows.inc.h"
#undef FRNN_PRODUCT

/* acc = from + a W, as in products.inc.h. */
static void WN(product)(ptrdiff_t n, ptrdiff_t K, WN(operand) a, WN(weights) weights, ptrdiff_t width, const T *from,
                        ptrdiff_t ldfrom, T *acc, int is_far)
{
    if (a.are_few)
        WN(product_of_few)(n, K, a, weights, width, from, ldfrom, acc, is_far);
    else
        WN(product_of_many)(n, K, a, weights, width, from, ldfrom, acc, is_far);
}
#else
#define FRNN_PRODUCT WN(product)
#include "narrow_rows.inc.h"
#undef FRNN_PRODUCT
#endif

#undef FRNN_TALL
#undef I
#undef i_zero
#undef i_float
#undef i_begin
#undef i_add
#undef i_load
#undef i_minus_128
#undef i_fours
#undef i_pairs
#undef i_set
#undef i_low
#undef i_high

#undef FRNN_SUMS_BEGIN_ZERO
#undef FRNN_TILE_DOT
#undef FRNN_EACH_PRODUCT
#undef FRNN_GROUP
#undef FRNN_BLOCK
#undef FRNN_LEAST
#undef A
