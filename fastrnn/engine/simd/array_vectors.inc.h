/* The words of vectors.h that only kernels of arrays use, for the same arithmetic and instruction set.
 *
 *   M                 a truth for each lane
 *   m_eq m_ne m_lt m_le(a, b)    comparisons; a NaN equals nothing, and m_ne is true of it
 *   m_and m_or m_xor(a, b)
 *   v_select(m, a, b) a where m is true, else b
 *   v_sqrt v_floor v_ceil v_trunc v_round(a); v_round gives the even one of two that are equally near
 *   v_log2_floor(a)   the exponent of a number and v_mantissa(a) what it is multiplied by: within sqrt(1/2) and
 *                     sqrt(2), for positive normal numbers
 *   v_load_some(p, n), v_store_some(p, a, n)    the first n < VL lanes; the others are 0
 */

#undef M
#undef m_cmp
#undef m_eq
#undef m_ne
#undef m_lt
#undef m_le
#undef m_and
#undef m_or
#undef m_xor
#undef v_select
#undef v_sqrt
#undef v_floor
#undef v_ceil
#undef v_trunc
#undef v_round
#undef I
#undef i_of
#undef v_of
#undef i_set
#undef i_add
#undef i_and
#undef i_or
#undef i_right
#undef v_load_some
#undef v_store_some

/* Whole numbers of the lanes' width: I, i_of(V), v_of(I), i_set, i_add, i_and, i_or, i_right (a shift without sign). */

#if defined(FRNN_ISA_AVX512)
#define I __m512i
#define i_and(a, b) _mm512_and_si512(a, b)
#define i_or(a, b) _mm512_or_si512(a, b)
#if !FRNN_IS_F64
#define M __mmask16
#define m_cmp(a, b, how) _mm512_cmp_ps_mask(a, b, how)
#define v_select(m, a, b) _mm512_mask_blend_ps(m, b, a)
#define v_sqrt(a) _mm512_sqrt_ps(a)
#define v_floor(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
#define v_ceil(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)
#define v_trunc(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)
#define v_round(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define i_of(a) _mm512_castps_si512(a)
#define v_of(a) _mm512_castsi512_ps(a)
#define i_set(x) _mm512_set1_epi32(x)
#define i_add(a, b) _mm512_add_epi32(a, b)
#define i_right(a, n) _mm512_srli_epi32(a, n)
#define v_load_some(p, n) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), p)
#define v_store_some(p, a, n) _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1), a)
#else
#define M __mmask8
#define m_cmp(a, b, how) _mm512_cmp_pd_mask(a, b, how)
#define v_select(m, a, b) _mm512_mask_blend_pd(m, b, a)
#define v_sqrt(a) _mm512_sqrt_pd(a)
#define v_floor(a) _mm512_roundscale_pd(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
#define v_ceil(a) _mm512_roundscale_pd(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)
#define v_trunc(a) _mm512_roundscale_pd(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)
#define v_round(a) _mm512_roundscale_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define i_of(a) _mm512_castpd_si512(a)
#define v_of(a) _mm512_castsi512_pd(a)
#define i_set(x) _mm512_set1_epi64(x)
#define i_add(a, b) _mm512_add_epi64(a, b)
#define i_right(a, n) _mm512_srli_epi64(a, n)
#define v_load_some(p, n) _mm512_maskz_loadu_pd((__mmask8)((1u << (n)) - 1), p)
#define v_store_some(p, a, n) _mm512_mask_storeu_pd(p, (__mmask8)((1u << (n)) - 1), a)
#endif
#define m_eq(a, b) m_cmp(a, b, _CMP_EQ_OQ)
#define m_ne(a, b) m_cmp(a, b, _CMP_NEQ_UQ)
#define m_lt(a, b) m_cmp(a, b, _CMP_LT_OQ)
#define m_le(a, b) m_cmp(a, b, _CMP_LE_OQ)
#define m_and(a, b) ((M)((a) & (b)))
#define m_or(a, b) ((M)((a) | (b)))
#define m_xor(a, b) ((M)((a) ^ (b)))

#elif defined(FRNN_ISA_AVX2)
#define I __m256i
#define i_and(a, b) _mm256_and_si256(a, b)
#define i_or(a, b) _mm256_or_si256(a, b)
#if !FRNN_IS_F64
#define M __m256
#define m_cmp(a, b, how) _mm256_cmp_ps(a, b, how)
#define m_and(a, b) _mm256_and_ps(a, b)
#define m_or(a, b) _mm256_or_ps(a, b)
#define m_xor(a, b) _mm256_xor_ps(a, b)
#define v_select(m, a, b) _mm256_blendv_ps(b, a, m)
#define v_sqrt(a) _mm256_sqrt_ps(a)
#define v_floor(a) _mm256_floor_ps(a)
#define v_ceil(a) _mm256_ceil_ps(a)
#define v_trunc(a) _mm256_round_ps(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)
#define v_round(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define i_of(a) _mm256_castps_si256(a)
#define v_of(a) _mm256_castsi256_ps(a)
#define i_set(x) _mm256_set1_epi32(x)
#define i_add(a, b) _mm256_add_epi32(a, b)
#define i_right(a, n) _mm256_srli_epi32(a, n)
#else
#define M __m256d
#define m_cmp(a, b, how) _mm256_cmp_pd(a, b, how)
#define m_and(a, b) _mm256_and_pd(a, b)
#define m_or(a, b) _mm256_or_pd(a, b)
#define m_xor(a, b) _mm256_xor_pd(a, b)
#define v_select(m, a, b) _mm256_blendv_pd(b, a, m)
#define v_sqrt(a) _mm256_sqrt_pd(a)
#define v_floor(a) _mm256_floor_pd(a)
#define v_ceil(a) _mm256_ceil_pd(a)
#define v_trunc(a) _mm256_round_pd(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)
#define v_round(a) _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define i_of(a) _mm256_castpd_si256(a)
#define v_of(a) _mm256_castsi256_pd(a)
#define i_set(x) _mm256_set1_epi64x(x)
#define i_add(a, b) _mm256_add_epi64(a, b)
#define i_right(a, n) _mm256_srli_epi64(a, n)
#endif
#define m_eq(a, b) m_cmp(a, b, _CMP_EQ_OQ)
#define m_ne(a, b) m_cmp(a, b, _CMP_NEQ_UQ)
#define m_lt(a, b) m_cmp(a, b, _CMP_LT_OQ)
#define m_le(a, b) m_cmp(a, b, _CMP_LE_OQ)

#elif defined(FRNN_ISA_NEON)
#if !FRNN_IS_F64
#define M uint32x4_t
#define I uint32x4_t
#define m_eq(a, b) vceqq_f32(a, b)
#define m_ne(a, b) vmvnq_u32(vceqq_f32(a, b))
#define m_lt(a, b) vcltq_f32(a, b)
#define m_le(a, b) vcleq_f32(a, b)
#define m_and(a, b) vandq_u32(a, b)
#define m_or(a, b) vorrq_u32(a, b)
#define m_xor(a, b) veorq_u32(a, b)
#define v_select(m, a, b) vbslq_f32(m, a, b)
#define v_sqrt(a) vsqrtq_f32(a)
#define v_floor(a) vrndmq_f32(a)
#define v_ceil(a) vrndpq_f32(a)
#define v_trunc(a) vrndq_f32(a)
#define v_round(a) vrndnq_f32(a)
#define i_of(a) vreinterpretq_u32_f32(a)
#define v_of(a) vreinterpretq_f32_u32(a)
#define i_set(x) vdupq_n_u32((uint32_t)(x))
#define i_add(a, b) vaddq_u32(a, b)
#define i_and(a, b) vandq_u32(a, b)
#define i_or(a, b) vorrq_u32(a, b)
#define i_right(a, n) vshrq_n_u32(a, n)
#else
#define M uint64x2_t
#define I uint64x2_t
#define m_eq(a, b) vceqq_f64(a, b)
#define m_ne(a, b) vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(vceqq_f64(a, b))))
#define m_lt(a, b) vcltq_f64(a, b)
#define m_le(a, b) vcleq_f64(a, b)
#define m_and(a, b) vandq_u64(a, b)
#define m_or(a, b) vorrq_u64(a, b)
#define m_xor(a, b) veorq_u64(a, b)
#define v_select(m, a, b) vbslq_f64(m, a, b)
#define v_sqrt(a) vsqrtq_f64(a)
#define v_floor(a) vrndmq_f64(a)
#define v_ceil(a) vrndpq_f64(a)
#define v_trunc(a) vrndq_f64(a)
#define v_round(a) vrndnq_f64(a)
#define i_of(a) vreinterpretq_u64_f64(a)
#define v_of(a) vreinterpretq_f64_u64(a)
#define i_set(x) vdupq_n_u64((uint64_t)(x))
#define i_add(a, b) vaddq_u64(a, b)
#define i_and(a, b) vandq_u64(a, b)
#define i_or(a, b) vorrq_u64(a, b)
#define i_right(a, n) vshrq_n_u64(a, n)
#endif

#else /* baseline: one lane, plain C */
#define M int
#define m_eq(a, b) ((a) == (b))
#define m_ne(a, b) ((a) != (b))
#define m_lt(a, b) ((a) < (b))
#define m_le(a, b) ((a) <= (b))
#define m_and(a, b) ((a) & (b))
#define m_or(a, b) ((a) | (b))
#define m_xor(a, b) ((a) ^ (b))
#define v_select(m, a, b) ((m) ? (a) : (b))
#define i_set(x) (x)
#define i_add(a, b) ((I)((a) + (b)))
#define i_and(a, b) ((a) & (b))
#define i_or(a, b) ((a) | (b))
#define i_right(a, n) ((a) >> (n))
#if FRNN_IS_F64
#define I uint64_t
#define v_sqrt(a) sqrt(a)
#define v_floor(a) floor(a)
#define v_ceil(a) ceil(a)
#define v_trunc(a) trunc(a)
#define v_round(a) rint(a)
#define i_of(a) frnn_bits_f64(a)
#define v_of(a) frnn_of_bits_f64(a)
#else
#define I uint32_t
#define v_sqrt(a) sqrtf(a)
#define v_floor(a) floorf(a)
#define v_ceil(a) ceilf(a)
#define v_trunc(a) truncf(a)
#define v_round(a) rintf(a)
#define i_of(a) frnn_bits_f32(a)
#define v_of(a) frnn_of_bits_f32(a)
#endif
#endif

#ifndef v_load_some
#define v_load_some(p, n) FN(load_part)(p, n)
#define v_store_some(p, a, n) FN(store_part)(p, a, n)
#endif

#undef F
#if FRNN_IS_F64
#define F(name) name
#else
#define F(name) name##f
#endif
