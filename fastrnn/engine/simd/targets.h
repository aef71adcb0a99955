/* What the kernels need of the compiler and the processor: intrinsics, inlining, code for one instruction set, names. */
#ifndef FRNN_TARGETS_H
#define FRNN_TARGETS_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define FRNN_X86 1
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#define FRNN_ARM 1
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define FRNN_INLINE inline __attribute__((always_inline))
#define FRNN_OUTLINE __attribute__((noinline)) /* what is called rarely, and would make its callers slow to begin */
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
#define FRNN_OUTLINE
#define FRNN_COLD
#define FRNN_PREFETCH(address)
#define FRNN_UNROLL
#define FRNN_UNROLL_4
#endif

#define FRNN_JOIN(dtype, name, isa) frnn_##dtype##_##name##__##isa
#define FRNN_NAME(dtype, name, isa) FRNN_JOIN(dtype, name, isa)

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

/* What an instruction set needs to be there. */
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

static int frnn_has_avx512_vnni(void)
{
    return frnn_has_avx512() && __builtin_cpu_supports("avx512vnni");
}

/* Not every compiler knows its name: bit 4 of EAX, leaf 7, subleaf 1. */
static int frnn_has_avx2_vnni(void)
{
    unsigned a, b, c, d;
    return frnn_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

#endif
