/* The vector vocabulary: the words in which every formula is written, for one arithmetic and one instruction set.
 * isa.inc.h defines FRNN_IS_F64 and, by arithmetic.inc.h, includes this file for each arithmetic; kernels.c defines
 * FRNN_ISA_*.
 *
 *   T, V, VL         scalar, vector, lanes
 *   v_load v_store   any alignment
 *   v_set            one scalar in all lanes
 *   v_add v_sub v_mul v_div v_min v_max
 *   v_fma(a, b, c)   a*b + c, rounded once where the instruction set can (all but baseline)
 *   v_fnms(a, b, c)  -a*b - c, likewise
 *   v_to_exponent    the lowest bits of a number as the exponent of one whose other bits are 0
 *   v_abs, v_copysign(magnitude, sign)
 *   v_reciprocal(x)  1 / x within 3e-7, for x whose reciprocal is a normal number; float32 alone
 *   v_even_bfloat16(p), v_odd_bfloat16(p)   of VL pairs of bfloat16, the first ones and the second ones; float32 alone
 *
 * v_min(limit, x) and v_max(limit, x), in this order, let a NaN in x through: x86 and baseline give the
 * second argument where one is NaN, NEON a NaN.
 */

#undef T
#undef V
#undef VL
#undef v_load
#undef v_store
#undef v_set
#undef v_add
#undef v_sub
#undef v_mul
#undef v_div
#undef v_min
#undef v_max
#undef v_fma
#undef v_fnms
#undef v_to_exponent
#undef v_abs
#undef v_copysign
#undef v_even_bfloat16
#undef v_odd_bfloat16
#undef v_reciprocal

#if defined(FRNN_ISA_AVX512) && !FRNN_IS_F64
#define T float
#define V __m512
#define VL 16
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, a) _mm512_storeu_ps(p, a)
#define v_set(x) _mm512_set1_ps(x)
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_fnms(a, b, c) _mm512_fnmsub_ps(a, b, c)
#define v_to_exponent(a) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23))
#define v_abs(a) _mm512_abs_ps(a)
#define v_copysign(m, s) _mm512_castsi512_ps(_mm512_ternarylogic_epi32( \
    _mm512_set1_epi32(INT32_MIN), _mm512_castps_si512(s), _mm512_castps_si512(m), 0xCA))
#define v_reciprocal(x) FN(reciprocal)(x)
#define v_even_bfloat16(p) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))
#define v_odd_bfloat16(p) \
    _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xFFFF0000)))

#elif defined(FRNN_ISA_AVX512)
#define T double
#define V __m512d
#define VL 8
#define v_load(p) _mm512_loadu_pd(p)
#define v_store(p, a) _mm512_storeu_pd(p, a)
#define v_set(x) _mm512_set1_pd(x)
#define v_add(a, b) _mm512_add_pd(a, b)
#define v_sub(a, b) _mm512_sub_pd(a, b)
#define v_mul(a, b) _mm512_mul_pd(a, b)
#define v_div(a, b) _mm512_div_pd(a, b)
#define v_min(a, b) _mm512_min_pd(a, b)
#define v_max(a, b) _mm512_max_pd(a, b)
#define v_fma(a, b, c) _mm512_fmadd_pd(a, b, c)
#define v_fnms(a, b, c) _mm512_fnmsub_pd(a, b, c)
#define v_to_exponent(a) _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a), 52))
#define v_abs(a) _mm512_abs_pd(a)
#define v_copysign(m, s) _mm512_castsi512_pd(_mm512_ternarylogic_epi64( \
    _mm512_set1_epi64(INT64_MIN), _mm512_castpd_si512(s), _mm512_castpd_si512(m), 0xCA))

#elif defined(FRNN_ISA_AVX2) && !FRNN_IS_F64
#define T float
#define V __m256
#define VL 8
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, a) _mm256_storeu_ps(p, a)
#define v_set(x) _mm256_set1_ps(x)
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_min(a, b) _mm256_min_ps(a, b)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_fnms(a, b, c) _mm256_fnmsub_ps(a, b, c)
#define v_to_exponent(a) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23))
#define v_abs(a) _mm256_andnot_ps(v_set(-0.0f), a)
#define v_copysign(m, s) _mm256_or_ps(m, _mm256_and_ps(v_set(-0.0f), s))
#define v_reciprocal(x) FN(reciprocal)(x)
#define v_even_bfloat16(p) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(p)), 16))
#define v_odd_bfloat16(p) \
    _mm256_and_ps(_mm256_loadu_ps((const float *)(p)), _mm256_castsi256_ps(_mm256_set1_epi32((int)0xFFFF0000)))

#elif defined(FRNN_ISA_AVX2)
#define T double
#define V __m256d
#define VL 4
#define v_load(p) _mm256_loadu_pd(p)
#define v_store(p, a) _mm256_storeu_pd(p, a)
#define v_set(x) _mm256_set1_pd(x)
#define v_add(a, b) _mm256_add_pd(a, b)
#define v_sub(a, b) _mm256_sub_pd(a, b)
#define v_mul(a, b) _mm256_mul_pd(a, b)
#define v_div(a, b) _mm256_div_pd(a, b)
#define v_min(a, b) _mm256_min_pd(a, b)
#define v_max(a, b) _mm256_max_pd(a, b)
#define v_fma(a, b, c) _mm256_fmadd_pd(a, b, c)
#define v_fnms(a, b, c) _mm256_fnmsub_pd(a, b, c)
#define v_to_exponent(a) _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a), 52))
#define v_abs(a) _mm256_andnot_pd(v_set(-0.0), a)
#define v_copysign(m, s) _mm256_or_pd(m, _mm256_and_pd(v_set(-0.0), s))

#elif defined(FRNN_ISA_NEON) && !FRNN_IS_F64
#define T float
#define V float32x4_t
#define VL 4
#define v_load(p) vld1q_f32(p)
#define v_store(p, a) vst1q_f32(p, a)
#define v_set(x) vdupq_n_f32(x)
#define v_add(a, b) vaddq_f32(a, b)
#define v_sub(a, b) vsubq_f32(a, b)
#define v_mul(a, b) vmulq_f32(a, b)
#define v_div(a, b) vdivq_f32(a, b)
#define v_min(a, b) vminq_f32(a, b)
#define v_max(a, b) vmaxq_f32(a, b)
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_fnms(a, b, c) vnegq_f32(vfmaq_f32(c, a, b))
#define v_to_exponent(a) vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(a), 23))
#define v_abs(a) vabsq_f32(a)
#define v_copysign(m, s) vbslq_f32(vdupq_n_u32(0x80000000u), s, m)
#define v_reciprocal(x) FN(reciprocal)(x)
#define v_even_bfloat16(p) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(vld1q_u16(p)), 16))
#define v_odd_bfloat16(p) \
    vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(vld1q_u16(p)), vdupq_n_u32(0xFFFF0000u)))

#elif defined(FRNN_ISA_NEON)
#define T double
#define V float64x2_t
#define VL 2
#define v_load(p) vld1q_f64(p)
#define v_store(p, a) vst1q_f64(p, a)
#define v_set(x) vdupq_n_f64(x)
#define v_add(a, b) vaddq_f64(a, b)
#define v_sub(a, b) vsubq_f64(a, b)
#define v_mul(a, b) vmulq_f64(a, b)
#define v_div(a, b) vdivq_f64(a, b)
#define v_min(a, b) vminq_f64(a, b)
#define v_max(a, b) vmaxq_f64(a, b)
#define v_fma(a, b, c) vfmaq_f64(c, a, b)
#define v_fnms(a, b, c) vnegq_f64(vfmaq_f64(c, a, b))
#define v_to_exponent(a) vreinterpretq_f64_s64(vshlq_n_s64(vreinterpretq_s64_f64(a), 52))
#define v_abs(a) vabsq_f64(a)
#define v_copysign(m, s) vbslq_f64(vdupq_n_u64(0x8000000000000000u), s, m)

#else /* baseline: one lane, plain C */
#define VL 1
#define v_load(p) (*(p))
#define v_store(p, a) (*(p) = (a))
#define v_set(x) (x)
#define v_add(a, b) ((a) + (b))
#define v_sub(a, b) ((a) - (b))
#define v_mul(a, b) ((a) * (b))
#define v_min(a, b) ((a) < (b) ? (a) : (b))
#define v_max(a, b) ((a) > (b) ? (a) : (b))
#define v_fma(a, b, c) ((a) * (b) + (c))
#define v_fnms(a, b, c) (-((a) * (b)) - (c))
#if FRNN_IS_F64
#define T double
#define V double
#define v_to_exponent(a) frnn_to_exponent_f64(a)
#define v_div(a, b) frnn_divide_f64(a, b)
#define v_abs(a) fabs(a)
#define v_copysign(m, s) copysign(m, s)
#else
#define T float
#define V float
#define v_to_exponent(a) frnn_to_exponent_f32(a)
#define v_div(a, b) frnn_divide_f32(a, b)
#define v_abs(a) fabsf(a)
#define v_copysign(m, s) copysignf(m, s)
#define v_reciprocal(x) v_div(1, x)
#define v_even_bfloat16(p) frnn_from_bits((uint32_t)(p)[0] << 16)
#define v_odd_bfloat16(p) frnn_from_bits((uint32_t)(p)[1] << 16)
#endif
#endif
