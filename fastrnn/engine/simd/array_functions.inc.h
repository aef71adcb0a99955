/* Functions of numbers that only kernels of arrays use: exponentials of any number, logarithms, erf, and activations
 * that are made of them. */

#if FRNN_IS_F64
#define C(f, d) d
#else
#define C(f, d) f
#endif

#define LOG2_E C(1.44269504088896341f, 1.44269504088896341)
#define LN2_HIGH C(0.693359375f, 0.693145751953125)
#define LN2_LOW C(-2.12194440e-4f, 1.42860682030941723212e-6)
#define ROUND C(12582912.0f + 127.0f, 6755399441055744.0 + 1023.0)

/* Half of 2^n and exp(r) - 1 where x = n ln(2) + r: half, since 2^n itself may be too large where the product is not.
 * Below `least` x stays there. */
static inline void FN(exp_halves)(V x, T least, V *half, V *p, V *twice)
{
    V rounded, n, r;
    const M is_large = m_lt(v_set(0), x);
    const V less = v_select(is_large, v_set(1), v_set(0));
    x = v_min(v_set(C(89.0f, 710.0)), v_max(v_set(least), x));
    rounded = v_fma(x, v_set(LOG2_E), v_set(ROUND));
    n = v_sub(rounded, v_set(ROUND));
    r = v_fma(n, v_set(-LN2_LOW), v_fma(n, v_set(-LN2_HIGH), x));
    FN(exp_parts)(v_sub(rounded, less), r, half, p);
    *twice = v_add(v_set(1), less);
}

/* exp(x) of any x; infinity where it is too large, 0 where it is no normal number. */
static inline V FN(exp_any)(V x)
{
    V half, p, twice;
    FN(exp_halves)(x, C(-88.0f, -709.0), &half, &p, &twice);
    return v_mul(v_fma(half, p, half), twice);
}

/* exp(x) - 1, exact for small x; x's sign. */
static inline V FN(expm1_of)(V x)
{
    V half, p, twice, result;
    FN(exp_halves)(x, C(-30.0f, -60.0), &half, &p, &twice);
    result = v_fma(half, p, v_sub(half, v_fma(v_set((T)-0.5), twice, v_set((T)1.5))));
    return v_copysign(v_abs(v_mul(result, twice)), x);
}

/* ln(x). With x = 2^n (1 + f), 1 + f from sqrt(1/2) to sqrt(2), and s = f / (2 + f): ln(1 + f) = f - f^2/2 +
 * s (f^2/2 + R(s^2)), where R approximates the series of (ln((1 + s) / (1 - s)) - 2 s) / s. Method and coefficients:
 * Sun's fdlibm, e_log.c and FreeBSD's e_logf.c. */
static inline V FN(log_positive)(V x)
{
    const M is_tiny = m_lt(x, v_set(C(FLT_MIN, DBL_MIN)));
    const V before = v_select(is_tiny, v_set(C(-25, -54)), v_set(0));
    V n, f, s, z, w, R, half;
    I bits;
    x = v_select(is_tiny, v_mul(x, v_set(C(33554432.0f, 18014398509481984.0))), x);
#if FRNN_IS_F64
    bits = i_add(i_of(x), i_set((int64_t)(0x3ff0000000000000 - 0x3fe6a09e667f3bcd)));
    n = v_sub(v_of(i_or(i_right(bits, 52), i_set(0x4330000000000000))), v_set(4503599627370496.0 + 1023.0));
    f = v_of(i_add(i_and(bits, i_set(0x000fffffffffffff)), i_set(0x3fe6a09e667f3bcd)));
#else
    bits = i_add(i_of(x), i_set(0x3f800000 - 0x3f3504f3));
    n = v_sub(v_of(i_or(i_right(bits, 23), i_set(0x4b000000))), v_set(8388608.0f + 127.0f));
    f = v_of(i_add(i_and(bits, i_set(0x007fffff)), i_set(0x3f3504f3)));
#endif
    n = v_add(n, before);
    f = v_sub(f, v_set(1));
    s = v_div(f, v_add(f, v_set(2)));
    z = v_mul(s, s);
    w = v_mul(z, z);
#if FRNN_IS_F64
    R = v_fma(v_fma(v_set(0.1531383769920937332), w, v_set(0.2222219843214978396)), w, v_set(0.3999999999940941908));
    half = v_fma(v_set(0.1479819860511658591), w, v_set(0.1818357216161805012));
    half = v_fma(v_fma(half, w, v_set(0.2857142874366239149)), w, v_set(0.6666666666666735130));
#else
    R = v_fma(v_set(0.24279078841f), w, v_set(0.40000972152f));
    half = v_fma(v_set(0.28498786688f), w, v_set(0.66666662693f));
#endif
    R = v_fma(half, z, v_mul(R, w));
    half = v_mul(v_mul(v_set(C(0.5f, 0.5)), f), f);
    R = v_fma(n, v_set(C(9.0580006145e-6f, 1.90821492927058770002e-10)), v_mul(s, v_add(half, R)));
    return v_fma(n, v_set(C(6.9313812256e-1f, 6.93147180369123816490e-1)), v_sub(f, v_sub(half, R)));
}

static inline V FN(log_of)(V x)
{
    const V infinity = v_set((T)INFINITY);
    V result = FN(log_positive)(x);
    result = v_select(m_lt(x, infinity), result, x); /* infinity and NaN stay */
    result = v_select(m_eq(x, v_set(0)), v_set(-(T)INFINITY), result);
    return v_select(m_lt(x, v_set(0)), v_set((T)NAN), result);
}

/* ln(1 + x): with u = 1 + x rounded, ln(u) and what the rounding left, relative to u. */
static inline V FN(log1p_of)(V x)
{
    const V u = v_add(v_set(1), x);
    const V left = v_sub(x, v_sub(u, v_set(1)));
    const M has_left = m_and(m_lt(v_set(0), u), m_lt(u, v_set((T)INFINITY)));
    const V result = v_add(FN(log_of)(u), v_select(has_left, v_div(left, u), v_set(0)));
    return v_select(m_eq(u, v_set(1)), x, result);
}

/* ---------------------------------------------------------------- erf */

#if FRNN_IS_F64
#define FRNN_LANES(f)                                                                            \
    T lanes[VL];                                                                                 \
    v_store(lanes, x);                                                                           \
    for (int j = 0; j < VL; j++)                                                                 \
        lanes[j] = f;                                                                            \
    return v_load(lanes);

static inline V FN(erf_of)(V x)
{
    FRNN_LANES(erf(lanes[j]))
}

static inline V FN(gelu_of)(V x)
{
    FRNN_LANES(0.5 * lanes[j] * erfc(-0.707106781186547524 * lanes[j]))
}

#undef FRNN_LANES
#else
/* erf(a) / a in a^2 up to 1, and erfc(a) exp(a^2) in 1 / (a + 1.5) - 0.24 up to 11: polynomials of least relative error
 * through Chebyshev's nodes, 1.3e-9 and 3.7e-9. */
static inline void FN(erf_parts)(V a, V *near_0, V *beyond)
{
    V z = v_mul(a, a), low, t, q;
    low = v_fma(v_set(7.847259148e-05f), z, v_set(-0.000800818933f));
    low = v_fma(v_fma(low, z, v_set(0.00518809889f)), z, v_set(-0.0268536911f));
    low = v_fma(v_fma(low, z, v_set(0.1128358225f)), z, v_set(-0.3761262557f));
    *near_0 = v_mul(v_fma(low, z, v_set(1.128379166f)), a);
    a = v_min(v_set(10.5f), a);
    t = v_sub(v_div(v_set(1), v_add(a, v_set(1.5f))), v_set(0.24f));
    q = v_fma(v_set(-5.64734743f), t, v_set(1.61068734f));
    q = v_fma(v_fma(q, t, v_set(2.39120159f)), t, v_set(-1.26317876f));
    q = v_fma(v_fma(q, t, v_set(-1.2473077f)), t, v_set(0.785451749f));
    q = v_fma(v_fma(q, t, v_set(1.60309363f)), t, v_set(1.15726505f));
    q = v_fma(q, t, v_set(0.199072625f));
    z = v_mul(a, a);
    q = v_mul(q, FN(exp_of)(v_sub(v_set(0), z)));
    *beyond = v_fma(v_fnms(a, a, v_sub(v_set(0), z)), q, q); /* what rounding a^2 left */
}

static inline V FN(erf_of)(V x)
{
    V a = v_abs(x), near_0, beyond;
    FN(erf_parts)(a, &near_0, &beyond);
    return v_copysign(v_select(m_lt(v_set(1), a), v_sub(v_set(1), beyond), near_0), x);
}

/* x P(x), P the normal distribution: by erfc where x is far below 0, since 1 + erf would cancel. */
static inline V FN(gelu_of)(V x)
{
    const V half = v_set(0.5f), a = v_mul(v_abs(x), v_set(0.707106781186547524f));
    V near_0, beyond, share;
    FN(erf_parts)(a, &near_0, &beyond);
    share = v_mul(half, v_select(m_lt(v_set(1), a), beyond, v_sub(v_set(1), near_0)));
    return v_mul(x, v_select(m_lt(v_set(0), x), v_sub(v_set(1), share), share));
}
#endif

/* ---------------------------------------------------------------- activations */

static inline V FN(silu_of)(V x)
{
    return v_div(x, v_add(v_set(1), FN(exp_any)(v_sub(v_set(0), x))));
}

/* x (1 + tanh(y)) / 2 = x sigmoid(2 y) with y = sqrt(2/pi) (x + 0.044715 x^3). */
static inline V FN(gelu_tanh_of)(V x)
{
    V y = v_fma(v_mul(v_mul(x, x), x), v_set(C(0.044715f, 0.044715)), x);
    y = v_mul(y, v_set(C(-1.59576912160573071f, -1.59576912160573071)));
    return v_div(x, v_add(v_set(1), FN(exp_any)(y)));
}

/* x tanh(ln(1 + e)) = x (e^2 + 2 e) / (e^2 + 2 e + 2) with e = exp(x). */
static inline V FN(mish_of)(V x)
{
    const V e = FN(exp_any)(v_min(v_set(C(30.0f, 60.0)), x));
    const V over = v_mul(e, v_add(e, v_set(2)));
    return v_mul(x, v_div(over, v_add(over, v_set(2))));
}

static inline V FN(softplus_of)(V x, V beta, V threshold)
{
    const V scaled = v_mul(x, beta);
    return v_select(m_lt(threshold, scaled), x, v_div(FN(log1p_of)(FN(exp_any)(scaled)), beta));
}

static inline V FN(logsigmoid_of)(V x)
{
    const V least = v_min(v_set(0), x);
    return v_sub(least, FN(log1p_of)(FN(exp_of)(v_sub(v_set(0), v_abs(x)))));
}

static inline V FN(sign_of)(V x)
{
    return v_select(m_lt(v_set(0), x), v_set(1), v_select(m_lt(x, v_set(0)), v_set(-1), v_set(0)));
}

static inline V FN(maximum_of)(V a, V b)
{
    return v_select(m_ne(a, a), a, v_max(a, b));
}

static inline V FN(minimum_of)(V a, V b)
{
    return v_select(m_ne(a, a), a, v_min(a, b));
}

static inline V FN(elu_of)(V x, V alpha, V scale, V input_scale)
{
    const V below = v_mul(FN(expm1_of)(v_mul(x, input_scale)), v_mul(alpha, scale));
    return v_select(m_lt(x, v_set(0)), below, v_mul(x, scale));
}

static inline V FN(hardsigmoid_of)(V x)
{
    return v_div(v_min(v_set(6), v_max(v_set(0), v_add(x, v_set(3)))), v_set(6));
}

static inline V FN(softshrink_of)(V x, V by)
{
    const V below = v_select(m_lt(x, v_sub(v_set(0), by)), v_add(x, by), v_mul(x, v_set(0)));
    return v_select(m_lt(by, x), v_sub(x, by), below);
}

/* From a to b by a weight, from the nearer of the two. */
static inline V FN(lerp_of)(V a, V b, V weight)
{
    const V way = v_sub(b, a);
    const V from_b = v_sub(b, v_mul(way, v_sub(v_set(1), weight)));
    return v_select(m_lt(v_abs(weight), v_set((T)0.5)), v_add(a, v_mul(weight, way)), from_b);
}

/* What is left of a / b with b's sign, as Python has it. */
static inline T FN(remainder_of)(T a, T b)
{
    const T left = F(fmod)(a, b);
    return left != 0 && (b < 0) != (left < 0) ? left + b : left;
}

/* floor(a / b) of the exact quotient. */
static inline T FN(floor_divide_of)(T a, T b)
{
    T left, quotient, whole;
    if (b == 0)
        return a / b;
    left = F(fmod)(a, b);
    quotient = (a - left) / b;
    if (left != 0 && (b < 0) != (left < 0))
        quotient -= 1;
    if (quotient == 0)
        return F(copysign)(0, a / b);
    whole = F(floor)(quotient);
    return quotient - whole > (T)0.5 ? whole + 1 : whole;
}

#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef ROUND
#undef C
