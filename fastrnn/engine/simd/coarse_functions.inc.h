/* Sigmoid and tanh for gates of narrow weights, whose products err by 1e-3 and more: these err by 5e-5 at most. Without
 * division, and small results are not exact, but that of 0.
 *
 * exp(x) = 2^(n + r) with whole n and |r| <= 1/2. The polynomial for 2^r is 1 + r q(r), its q fitted for the least
 * relative error, 1.1e-4, by least squares with weights (Lawson's algorithm).
 */
#define ROUND (12582912.0f + 127.0f) /* 3/2 2^23: as in functions.inc.h */
#define LOG2_E 1.44269504088896341f

/* exp(factor x) = scale * p, for x within +-most. */
static FRNN_INLINE void GN(exp_parts)(V x, T factor, T most, V *scale, V *p)
{
    V rounded, r;
    x = v_min(v_set(most), v_max(v_set(-most), x));
    rounded = v_fma(x, v_set(factor * LOG2_E), v_set(ROUND));
    r = v_fma(x, v_set(factor * LOG2_E), v_sub(v_set(ROUND), rounded));
    *p = v_fma(v_set(0.055008926f), r, v_set(0.24221095f));
    *p = v_fma(*p, r, v_set(0.6932829f));
    *p = v_fma(*p, r, v_set(1));
    *scale = v_to_exponent(rounded);
}

/* 1 / sigmoid(x), as in functions.inc.h. */
static FRNN_INLINE V GN(sigmoid_under)(V x, T most)
{
    V scale, p;
    GN(exp_parts)(x, -1, most, &scale, &p);
    return v_fma(scale, p, v_set(1));
}

/* tanh(x) = over / under = (e - 1) / (e + 1) with e = exp(2 x). */
static FRNN_INLINE void GN(tanh_parts)(V x, V *over, V *under)
{
    V scale, p;
    GN(exp_parts)(x, 2, 10, &scale, &p);
    *over = v_fma(scale, p, v_set(-1));
    *under = v_fma(scale, p, v_set(1));
}

static FRNN_INLINE V GN(sigmoid_of)(V x)
{
    return v_reciprocal(GN(sigmoid_under)(x, 85));
}

static FRNN_INLINE V GN(tanh_of)(V x)
{
    V over, under;
    GN(tanh_parts)(x, &over, &under);
    return v_mul(over, v_reciprocal(under));
}

static FRNN_INLINE V GN(sigmoid_tanh)(V a, V b)
{
    V over, under;
    GN(tanh_parts)(b, &over, &under);
    return v_mul(over, v_reciprocal(v_mul(GN(sigmoid_under)(a, 60), under)));
}

#undef ROUND
#undef LOG2_E
