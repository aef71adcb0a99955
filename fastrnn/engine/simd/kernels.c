/* The simd backend: isa.inc.h included once for every instruction set, between target pragmas. So no build flag is
 * needed, and the rest of the file stays at the compiler's baseline.
 *
 *   vectors.h        the words in which every formula is written
 *   functions.inc.h  exponentials, sigmoid, tanh
 *   row_functions.inc.h       what layers without products do
 *   gates.inc.h      the formulas of the cells
 *   layout.inc.h     how gates, biases and states lie
 *   arithmetic.inc.h these five for one arithmetic, and its table
 *   products.inc.h   sums of products; operands.inc.h: the rows that they read; packing.inc.h: the weights
 *   cells.inc.h      bundles and steps: products, then gates
 *   storage.inc.h    these four for one storage of weights, and its table
 *   bundles.h        panels and bundles; tuning.h: the constants that were found by trying
 */
#if defined(__GNUC__) && !defined(__clang__)
/* The products of a loop read memory in the order in which they are written here. Out of order they take up to 1.4
 * times as long, since the processor no longer sees one stream to prefetch. */
#pragma GCC optimize("no-schedule-insns2")
#endif

#include "backend.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "bundles.h"
#include "tuning.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define FRNN_X86 1
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#define FRNN_ARM 1
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define FRNN_INLINE inline __attribute__((always_inline))
#define FRNN_COLD __attribute__((cold)) /* small rather than fast */
#define FRNN_PREFETCH(address) __builtin_prefetch(address, 0, FRNN_LOCALITY)
#define FRNN_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define FRNN_TARGET(features) \
    FRNN_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define FRNN_END_TARGET FRNN_PRAGMA(clang attribute pop)
#define FRNN_UNROLL FRNN_PRAGMA(unroll)
#define FRNN_UNROLL_4 FRNN_PRAGMA(unroll(4))
#else
#define FRNN_TARGET(features) FRNN_PRAGMA(GCC push_options) FRNN_PRAGMA(GCC target(features))
#define FRNN_END_TARGET FRNN_PRAGMA(GCC pop_options)
#define FRNN_UNROLL FRNN_PRAGMA(GCC unroll 16)
#define FRNN_UNROLL_4 FRNN_PRAGMA(GCC unroll 4)
#endif
#else
#define FRNN_INLINE inline
#define FRNN_COLD
#define FRNN_PREFETCH(address)
#define FRNN_UNROLL
#define FRNN_UNROLL_4
#endif

#define FRNN_JOIN(dtype, name, isa) frnn_##dtype##_##name##__##isa
#define FRNN_NAME(dtype, name, isa) FRNN_JOIN(dtype, name, isa)
#define FRNN_JOIN_PRODUCTS(isa) frnn_products__##isa
#define FRNN_PRODUCTS(isa) FRNN_JOIN_PRODUCTS(isa)

/* ---------------------------------------------------------------- what all share */

/* For the time of a call, on this thread. Denormals are 0, since they make decaying states many times slower. Numbers
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

/* v_to_exponent and v_div of vectors.h for one lane. A quotient that is no normal number is 0, as it is with the
 * other instruction sets, since not every processor flushes it, nor a compiler that folds constants. */
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

#define FRNN_ISA baseline
#define FRNN_REGISTERS 16
#define FRNN_SEGMENT 128
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 0
#define FRNN_PRODUCTS_PER_NS 4
#include "isa.inc.h"

#if defined(FRNN_X86)

FRNN_TARGET("avx2,fma")
#define FRNN_ISA_AVX2
#define FRNN_ISA avx2
#define FRNN_REGISTERS 16
#define FRNN_SEGMENT 256
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 48
#define FRNN_PRODUCTS_PER_NS 70
#include "isa.inc.h"
#undef FRNN_ISA_AVX2
FRNN_END_TARGET

FRNN_TARGET("avx512f,avx512bw,avx512dq,avx512vl")
#define FRNN_ISA_AVX512
#define FRNN_ISA avx512
#define FRNN_REGISTERS 32
#define FRNN_SEGMENT 256
#define FRNN_LOCALITY 2
#define FRNN_INTERLEAVED 0
#define FRNN_PRODUCTS_PER_NS 70
#include "isa.inc.h"
#undef FRNN_ISA_AVX512
FRNN_END_TARGET

#elif defined(FRNN_ARM)

#define FRNN_ISA_NEON
#define FRNN_ISA neon
#define FRNN_REGISTERS 32
#define FRNN_SEGMENT 128
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 0
#define FRNN_PRODUCTS_PER_NS 35
#include "isa.inc.h"
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

#define FRNN_ENTRY(isa, test) {#isa, test, FRNN_PRODUCTS(isa)}

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
