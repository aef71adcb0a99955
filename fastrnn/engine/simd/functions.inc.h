/* Functions of numbers: exponentials, sigmoid and tanh, for gates and for rows, and parts of vectors. */

#if FRNN_IS_F64
#define C(f, d) d
#else
#define C(f, d) f
#endif

#if !FRNN_IS_F64 && VL > 1
/* 1 / x: the processor's approximation, and Newton's iteration once or, on NEON, twice. */
static inline V FN(reciprocal)(V x)
{
#if defined(FRNN_ISA_AVX512)
    const V y = _mm512_rcp14_ps(x);
#elif defined(FRNN_ISA_AVX2)
    const V y = _mm256_rcp_ps(x);
#else
    const V y0 = vrecpeq_f32(x), y = vmulq_f32(y0, vrecpsq_f32(x, y0));
#endif
    return v_mul(y, v_sub(v_set(1), v_fma(x, y, v_set(-1))));
}
#endif

/* exp(x) = scale * (1 + p), where x = n ln(2) + r with whole n and |r| <= ln(2)/2: scale = 2^n and
 * p = exp(r) - 1. The caller gives r, and x log2(e) + ROUND: adding ROUND rounds to a whole number, and
 * leaves it in the lowest bits with the bias of the exponent. The polynomial is r + r^2 q(r), its q fitted
 * by Remez's exchange for the least relative error of p: 9e-8 (f32), 3e-16 (f64). ln(2) in two parts,
 * where n is large: Cody and Waite, Software Manual for the Elementary Functions, 1980. */
#define LOG2_E C(1.44269504088896341f, 1.44269504088896341)
#define LN2 C(0.693147180559945309f, 0.693147180559945309)
#define LN2_HIGH C(0.693359375f, 0.693145751953125)
#define LN2_LOW C(-2.12194440e-4f, 1.42860682030941723212e-6)

#define ROUND C(12582912.0f + 127.0f, 6755399441055744.0 + 1023.0) /* 3/2 2^23, 3/2 2^52 */

static inline void FN(exp_parts)(V rounded, V r, V *scale, V *p)
{
    /* By pairs, for a short chain of dependent operations. */
    V r2, low, high;
    r2 = v_mul(r, r);
#if FRNN_IS_F64
    V r4 = v_mul(r2, r2), middle;
    low = v_fma(v_set(0.16666666666666682), r, v_set(0.5));
    low = v_fma(v_fma(v_set(0.008333333333316125), r, v_set(0.04166666666655529)), r2, low);
    middle = v_fma(v_set(0.00019841269899874793), r, v_set(0.0013888888938372041));
    middle = v_fma(v_fma(v_set(2.755723068963093e-06), r, v_set(2.480149731861908e-05)), r2, middle);
    high = v_fma(v_set(2.5113625524303837e-08), r, v_set(2.7629117872955094e-07));
    high = v_fma(v_fma(high, r4, middle), r4, low);
#else
    low = v_fma(v_set(0.16666628f), r, v_set(0.5f));
    high = v_fma(v_set(0.00835526f), r, v_set(0.04166654f));
    high = v_fma(v_fma(v_set(0.0013926979f), r2, high), r2, low);
#endif
    *p = v_fma(high, r2, r);
    *scale = v_to_exponent(rounded);
}

/* 1 / sigmoid(x) = 1 + exp(-x), for x within +-most, beyond which it stays. */
static inline V FN(sigmoid_under)(V x, T most)
{
    V rounded, n, r, scale, p;
    x = v_min(v_set(most), v_max(v_set(-most), x));
    rounded = v_fma(x, v_set(-LOG2_E), v_set(ROUND));
    n = v_sub(rounded, v_set(ROUND));
    r = v_fma(n, v_set(-LN2_LOW), v_fnms(n, v_set(LN2_HIGH), x));
    FN(exp_parts)(rounded, r, &scale, &p);
    return v_fma(scale, p, v_add(scale, v_set(1)));
}

/* tanh(x) = over / under: e / (e + 2) with e = exp(2|x|) - 1, which is exact for small x; x's sign. */
static inline void FN(tanh_parts)(V x, V *over, V *under)
{
    V rounded, n, scale, p, a = v_min(v_set(C(9.2f, 19.2)), v_abs(x));
    a = v_add(a, a);
    rounded = v_fma(a, v_set(LOG2_E), v_set(ROUND));
    n = v_sub(rounded, v_set(ROUND));
    FN(exp_parts)(rounded, v_fma(n, v_set(-LN2), a), &scale, &p);
    *over = v_copysign(v_fma(scale, p, v_sub(scale, v_set(1))), x);
    *under = v_fma(scale, p, v_add(scale, v_set(1)));
}

static inline V FN(sigmoid_of)(V x)
{
    return v_div(v_set(1), FN(sigmoid_under)(x, C(88.0f, 709.0)));
}

static inline V FN(tanh_of)(V x)
{
    V over, under;
    FN(tanh_parts)(x, &over, &under);
    return v_div(over, under);
}

/* sigmoid(a) * tanh(b) with one division; a sigmoid below 1e-30 stays there, so that the product of the
 * denominators does not overflow. */
static inline V FN(sigmoid_tanh)(V a, V b)
{
    V over, under;
    FN(tanh_parts)(b, &over, &under);
    return v_div(over, v_mul(FN(sigmoid_under)(a, C(70.0f, 670.0)), under));
}

/* exp(x) for x <= 0; 0 where it is no normal number. */
static inline V FN(exp_of)(V x)
{
    V rounded, n, r, scale, p;
    x = v_max(v_set(C(-88.0f, -709.0)), x); /* there scale is 0 */
    rounded = v_fma(x, v_set(LOG2_E), v_set(ROUND));
    n = v_sub(rounded, v_set(ROUND));
    r = v_fma(n, v_set(-LN2_LOW), v_fma(n, v_set(-LN2_HIGH), x));
    FN(exp_parts)(rounded, r, &scale, &p);
    return v_fma(scale, p, scale);
}

#undef LOG2_E
#undef LN2
#undef LN2_HIGH
#undef LN2_LOW
#undef ROUND
#undef C

/* Part of a vector: the first `count` lanes. */
static inline V FN(load_part)(const T *from, ptrdiff_t count)
{
    if (count >= VL)
        return v_load(from);
    T lanes[VL] = {0};
    for (ptrdiff_t j = 0; j < count; j++)
        lanes[j] = from[j];
    return v_load(lanes);
}

static inline void FN(store_part)(T *to, V value, ptrdiff_t count)
{
    T lanes[VL];
    if (count >= VL) {
        v_store(to, value);
        return;
    }
    v_store(lanes, value);
    for (ptrdiff_t j = 0; j < count; j++)
        to[j] = lanes[j];
}
