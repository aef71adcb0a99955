/* The most that one core of this machine can do: multiply-adds per second, and bytes read per second.
 * probe.py compiles this file with the flags of an instruction set and does the timing.
 *
 *   WIDTH         bytes in a vector
 *   ACCUMULATORS  number of independent sums in flight. Together with two factors they fit the registers.
 *
 * The vectors are the compiler's own (gcc, clang). x * a + b becomes one fused instruction if there is
 * one. It depends on x, so nothing can be moved out of the loop.
 */
#include <stddef.h>

typedef float f32v __attribute__((vector_size(WIDTH)));
typedef double f64v __attribute__((vector_size(WIDTH)));

#define EACH_4(DO, i) DO(i) DO(i + 1) DO(i + 2) DO(i + 3)
#define EACH_12(DO) EACH_4(DO, 0) EACH_4(DO, 4) EACH_4(DO, 8)
#if ACCUMULATORS == 24
#define EACH(DO) EACH_12(DO) EACH_4(DO, 12) EACH_4(DO, 16) EACH_4(DO, 20)
#else
#define EACH(DO) EACH_12(DO)
#endif

#define START(i) x[i] = a * (T)(rounds + i); /* not known at compile time */
#define MULTIPLY_ADD(i) x[i] = x[i] * a + b;
#define ADD_UP(i) sum += x[i];

/* Does rounds * ACCUMULATORS vectors of multiply-adds. Returns their sum, so that none can be left out. */
#define DEFINE_MULTIPLY_ADDS(name, V, scalar)                                 \
    scalar name(long rounds)                                                  \
    {                                                                         \
        typedef scalar T;                                                     \
        V x[ACCUMULATORS], a = (V){0} + (T)0.5, b = (V){0} + (T)0.25, sum = {0}; \
        EACH(START)                                                           \
        for (long round = 0; round < rounds; round++) {                       \
            EACH(MULTIPLY_ADD)                                                \
        }                                                                     \
        EACH(ADD_UP)                                                          \
        return sum[0];                                                        \
    }

DEFINE_MULTIPLY_ADDS(multiply_adds_f32, f32v, float)
DEFINE_MULTIPLY_ADDS(multiply_adds_f64, f64v, double)

/* Reads `bytes` (a multiple of 16 vectors) from an aligned address, `rounds` times. */
#define LOAD(i) sum##i += p[i]; sum##i += p[i + 8];
#define DEFINE_READ(name, PREFETCH)                                           \
    float name(const char *memory, size_t bytes, long rounds)                 \
    {                                                                         \
        f32v sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};                  \
        f32v sum4 = {0}, sum5 = {0}, sum6 = {0}, sum7 = {0};                  \
        const f32v *end = (const f32v *)(memory + bytes);                     \
        for (long round = 0; round < rounds; round++) {                       \
            for (const f32v *p = (const f32v *)memory; p < end; p += 16) {    \
                PREFETCH                                                      \
                LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7) \
            }                                                                 \
            __asm__ volatile("" ::: "memory");                                \
        }                                                                     \
        return (sum0 + sum1 + sum2 + sum3 + sum4 + sum5 + sum6 + sum7)[0];    \
    }

/* Fetches cache lines of 64 bytes that are needed a little later into the first level. */
#define AHEAD 2048
#define FETCH(i) __builtin_prefetch((const char *)p + AHEAD + (i) * 64);
#define FETCH_ALL FETCH(0) FETCH(1) FETCH(2) FETCH(3) FETCH_WIDER
#if WIDTH == 64
#define FETCH_WIDER EACH_12(FETCH_REST)
#define FETCH_REST(i) FETCH(4 + i)
#elif WIDTH == 32
#define FETCH_WIDER EACH_4(FETCH, 4)
#else
#define FETCH_WIDER
#endif

DEFINE_READ(read_plain, )
DEFINE_READ(read_ahead, FETCH_ALL)
