/* The simd backend: kernels.inc.h included once for every dtype and instruction set, between target
 * pragmas, so that no build flag is needed and the rest of the file stays at the compiler's baseline.
 */
#if defined(__GNUC__) && !defined(__clang__)
/* The products of a loop read memory in the order in which they are written here: out of order they take
 * up to 1.4 times as long (`python -m bench --only step` with this line and without), since the processor no
 * longer sees one stream to prefetch. */
#pragma GCC optimize("no-schedule-insns2")
#endif

#include "backend.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define FRNN_X86 1
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#define FRNN_ARM 1
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define FRNN_INLINE inline __attribute__((always_inline))
#define FRNN_PREFETCH(address) __builtin_prefetch(address, 0, FRNN_LOCALITY)
#define FRNN_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define FRNN_UNROLL FRNN_PRAGMA(unroll)
#define FRNN_UNROLL_4 FRNN_PRAGMA(unroll(4))
#else
#define FRNN_UNROLL FRNN_PRAGMA(GCC unroll 16)
#define FRNN_UNROLL_4 FRNN_PRAGMA(GCC unroll 4)
#endif
#else
#define FRNN_INLINE inline
#define FRNN_PREFETCH(address)
#define FRNN_UNROLL
#define FRNN_UNROLL_4
#endif

#define FRNN_TILE_ROWS 6
#define FRNN_SUMS (FRNN_REGISTERS / 4 * 3) /* the vectors of a lone row that registers hold */
#define FRNN_LINE 64
/* Rows of x and h that are a multiple of FRNN_CROWD bytes wide and apart are copied to where they are FRNN_APART
 * bytes further apart, once for all the weights. The projection of 96 rows of 1024 (Zen 4, one call of `project` in
 * a loop, GFLOP/s): 98 as they lie, 115 apart; with avx2 46 and 111, and 103 if they are but 64 bytes further apart. */
#define FRNN_CROWD 2048
#define FRNN_APART 320
/* Weights of more bytes than FRNN_NEAR, from the third-level cache on, are asked for ahead where more than
 * FRNN_FEW rows share them: a few are through with a strip before the next one can come, and the processor's own
 * prefetching does better alone. LSTM of 1024 units (Zen 4, avx512): asked for ahead, steps of 64 rows take 0.96 of
 * the time (`step` in a loop, builds in turns); before strips, one row, asked for ahead, took 1.3 times as long for
 * a step and 1.16 times for 100x1 (cases of `python -m bench`, builds in turns). FRNN_LOCALITY, of each instruction
 * set, is the compiler's word for the cache that they come into: 3 the first; 2 the second, where the first has no
 * room for strips of long vectors: LSTM 1024, 10x64 takes 0.96 of the time that it takes with 3 (Granite Rapids,
 * avx512, builds in turns; the figures of Zen 4 are of 3). */
#define FRNN_NEAR (1 << 20)
#define FRNN_FEW 8
/* More rows than FRNN_FEW are interleaved where a cell's weights have FRNN_INTERLEAVED strips or more (0: never): a
 * tile then reads one stream, not one for each of its rows. With avx2 LSTM 256->512, 100x128 takes 0.93 of the time,
 * 1024, 100x64 0.94, 256 and GRU 256, 100x32 0.95 and 0.96; 8 rows, and 32 strips as of LSTM 128, gain nothing (Zen 3,
 * shared, builds in turns). With avx512 LSTM 128 to 1024, 32 to 128 rows, take 0.98 to 1.04 (Granite Rapids, `step` in
 * a loop, builds in turns). */
/* Each instruction set says how many registers it has, and how many rows of a strip are a chunk: what tiles read
 * stays near, and there are few beginnings and ends of sums. LSTM 256->256, chunks of 256 beside such of 128: 100x8
 * takes 0.90 of the time with avx2 (Zen 3, `python -m bench compare`); steps of 32 rows 0.99 with avx512 (Zen 4,
 * `step` in a loop, builds in turns). */
#define FRNN_NAME(dtype, name, isa) frnn_##dtype##_##name##__##isa

/* ---------------------------------------------------------------- what all share */

/* A part is a block. */
static ptrdiff_t frnn_part_units(const frnn_cell *cell)
{
    return cell->block * FRNN_PANEL;
}

static ptrdiff_t frnn_panel_gates(const frnn_cell *cell)
{
    return (cell->hidden_size + FRNN_PANEL - 1) / FRNN_PANEL * FRNN_PANEL * cell->gates;
}

/* For the time of a call, on this thread: denormals, which make decaying states many times slower, are 0; numbers
 * are rounded to the nearest and nothing traps, whatever the caller, or whoever started a worker, has set. */
static uint64_t frnn_enter(void)
{
#if defined(FRNN_X86)
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x9FC0); /* flush to zero, denormals are zero, all exceptions masked */
    return before;
#elif defined(FRNN_ARM)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)1 << 24)); /* flush to zero */
    return before;
#else
    return 0;
#endif
}

static void frnn_leave(uint64_t before)
{
#if defined(FRNN_X86)
    _mm_setcsr((unsigned)before);
#elif defined(FRNN_ARM)
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

/* v_to_exponent and v_div of vec.h for one lane. A quotient that is no normal number is 0, as it is for
 * the other instruction sets: neither every processor nor a compiler that folds constants flushes it. */
static inline float frnn_to_exponent_f32(float a)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    bits <<= 23;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline float frnn_divide_f32(float a, float b)
{
    const float quotient = a / b;
    return fabsf(quotient) < FLT_MIN ? copysignf(0, quotient) : quotient;
}

static inline double frnn_to_exponent_f64(double a)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    bits <<= 52;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline double frnn_divide_f64(double a, double b)
{
    const double quotient = a / b;
    return fabs(quotient) < DBL_MIN ? copysign(0, quotient) : quotient;
}

/* ---------------------------------------------------------------- one block for each instruction set */

#define FRNN_REGISTERS 16
#define FRNN_CHUNK 128
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 0
#define FN(name) FRNN_NAME(f32, name, baseline)
#define FRNN_IS_F64 0
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#define FN(name) FRNN_NAME(f64, name, baseline)
#define FRNN_IS_F64 1
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#undef FRNN_REGISTERS
#undef FRNN_CHUNK
#undef FRNN_LOCALITY
#undef FRNN_INTERLEAVED

#if defined(FRNN_X86)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define FRNN_ISA_AVX2
#define FRNN_REGISTERS 16
#define FRNN_CHUNK 256
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 48
#define FN(name) FRNN_NAME(f32, name, avx2)
#define FRNN_IS_F64 0
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#define FN(name) FRNN_NAME(f64, name, avx2)
#define FRNN_IS_F64 1
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#undef FRNN_REGISTERS
#undef FRNN_CHUNK
#undef FRNN_LOCALITY
#undef FRNN_INTERLEAVED
#undef FRNN_ISA_AVX2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define FRNN_ISA_AVX512
#define FRNN_REGISTERS 32
#define FRNN_CHUNK 256
#define FRNN_LOCALITY 2
#define FRNN_INTERLEAVED 0
#define FN(name) FRNN_NAME(f32, name, avx512)
#define FRNN_IS_F64 0
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#define FN(name) FRNN_NAME(f64, name, avx512)
#define FRNN_IS_F64 1
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#undef FRNN_REGISTERS
#undef FRNN_CHUNK
#undef FRNN_LOCALITY
#undef FRNN_INTERLEAVED
#undef FRNN_ISA_AVX512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#elif defined(FRNN_ARM)

#define FRNN_ISA_NEON
#define FRNN_REGISTERS 32
#define FRNN_CHUNK 128
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 0
#define FN(name) FRNN_NAME(f32, name, neon)
#define FRNN_IS_F64 0
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#define FN(name) FRNN_NAME(f64, name, neon)
#define FRNN_IS_F64 1
#include "vectors.h"
#include "kernels.inc.h"
#undef FRNN_IS_F64
#undef FRNN_REGISTERS
#undef FRNN_CHUNK
#undef FRNN_LOCALITY
#undef FRNN_INTERLEAVED
#undef FRNN_ISA_NEON

#endif

/* ---------------------------------------------------------------- what this processor has */

static int frnn_always(void)
{
    return 1;
}

#if defined(FRNN_X86)
static int frnn_has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int frnn_has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#define FRNN_ENTRY(isa, test) {#isa, test, {&FRNN_NAME(f32, table, isa), &FRNN_NAME(f64, table, isa)}}

/* From the plainest to the widest. */
const frnn_isa frnn_isas[] = {
    FRNN_ENTRY(baseline, frnn_always),
#if defined(FRNN_X86)
    FRNN_ENTRY(avx2, frnn_has_avx2),
    FRNN_ENTRY(avx512, frnn_has_avx512),
#elif defined(FRNN_ARM)
    FRNN_ENTRY(neon, frnn_always),
#endif
    {0},
};
