/* Products of narrow weights per second, in the instructions that the kernels use. probe.py compiles this file with
 * the flags of an instruction set and does the timing.
 *
 *   tiles_bfloat16, tiles_int8   (with TILES) 4 products of tiles in a round, 2 x 2, for tiles of this many rows
 *   sums_int8                    8-bit products by VNNI, or 16-bit ones that are widened, in vectors
 *
 * Each sum depends on the one before, so nothing can be moved out of the loops. Operands stay in registers.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifdef TILES
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST_PERMISSION 0x1023
#define TILE_DATA 18

/* Whether the system lets this process use tiles. */
int tiles_allowed(void)
{
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* Tiles 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 weights. Lines of 64 bytes. */
static void configure(int rows)
{
    struct {
        uint8_t palette, start, zeros[14];
        uint16_t bytes[16];
        uint8_t lines[16];
    } config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = 64;
        config.lines[tile] = tile < 6 ? rows : 16;
    }
    __asm__ volatile("" ::"r"(&config) : "memory"); /* gcc's intrinsic says that it reads 8 bytes alone */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}

#define DEFINE_TILES(name, PRODUCT)                     \
    int name(int rows, long rounds)                     \
    {                                                   \
        int32_t sums[16 * 16];                          \
        configure(rows);                                \
        for (long round = 0; round < rounds; round++) { \
            PRODUCT(0, 4, 6);                           \
            PRODUCT(1, 4, 7);                           \
            PRODUCT(2, 5, 6);                           \
            PRODUCT(3, 5, 7);                           \
        }                                               \
        _tile_stored(0, sums, 64);                      \
        _tile_release();                                \
        return sums[0];                                 \
    }

DEFINE_TILES(tiles_bfloat16, _tile_dpbf16ps)
DEFINE_TILES(tiles_int8, _tile_dpbssd)
#endif

#if defined(__AVX512VNNI__)
typedef __m512i vector;
#define SUMS 24
#define FILLED(number) _mm512_set1_epi32(number)
#define PLUS(a, b) _mm512_add_epi32(a, b)
#define ADD(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#elif defined(__AVX512BW__)
typedef __m512i vector;
#define SUMS 24
#define FILLED(number) _mm512_set1_epi32(number)
#define PLUS(a, b) _mm512_add_epi32(a, b)
#define ADD(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(sum, b))
#elif defined(__AVXVNNI__)
typedef __m256i vector;
#define SUMS 12
#define FILLED(number) _mm256_set1_epi32(number)
#define PLUS(a, b) _mm256_add_epi32(a, b)
#define ADD(sum, a, b) _mm256_dpbusd_avx_epi32(sum, a, b)
#else
typedef __m256i vector;
#define SUMS 12
#define FILLED(number) _mm256_set1_epi32(number)
#define PLUS(a, b) _mm256_add_epi32(a, b)
#define ADD(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(sum, b))
#endif

/* Indices are written out, so that the sums are variables in registers. */
#define EACH_4(DO, i) DO(i) DO(i + 1) DO(i + 2) DO(i + 3)
#define EACH_12(DO) EACH_4(DO, 0) EACH_4(DO, 4) EACH_4(DO, 8)
#if SUMS == 24
#define EACH(DO) EACH_12(DO) EACH_4(DO, 12) EACH_4(DO, 16) EACH_4(DO, 20)
#else
#define EACH(DO) EACH_12(DO)
#endif

#define START(i) sums[i] = FILLED((int)rounds * 3 + i); /* different ones, so that none stands for another */
#define ADD_ONE(i) sums[i] = ADD(sums[i], a, b);
#define ADD_UP(i) total = PLUS(total, sums[i]);

/* Does rounds * SUMS vectors of products. `rows` changes nothing. */
int sums_int8(int rows, long rounds)
{
    vector sums[SUMS], a = FILLED(0x01010101 + 0 * rows), b = FILLED(0x02020202), total = FILLED(0);
    int32_t numbers[sizeof(vector) / 4];
    EACH(START)
    for (long round = 0; round < rounds; round++) {
        EACH(ADD_ONE)
    }
    EACH(ADD_UP)
    (void)a; /* the widened products read sums and b */
    memcpy(numbers, &total, sizeof numbers);
    return numbers[0];
}
