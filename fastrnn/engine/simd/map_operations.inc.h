/* The operations of maps of floating-point numbers, each a loop over a tile. */

/* n is a multiple of VL. An operand is at a, or the vector at a is all of it where the mask is 0. */
typedef void FN(operation)(ptrdiff_t n, T *to, const T *a, ptrdiff_t a_mask, const T *b, ptrdiff_t b_mask, const T *c,
                           ptrdiff_t c_mask, const frnn_number *p);

#define FRNN_OPERATION(name, expression)                                                         \
    static void FN(map_##name)(ptrdiff_t n, T *to, const T *a, ptrdiff_t a_mask, const T *b,     \
                               ptrdiff_t b_mask, const T *c, ptrdiff_t c_mask, const frnn_number *parameters) \
    {                                                                                            \
        const V p = v_set((T)parameters[0].real), q = v_set((T)parameters[1].real);              \
        const V r = v_set((T)parameters[2].real);                                                \
        (void)b, (void)b_mask, (void)c, (void)c_mask, (void)p, (void)q, (void)r;                 \
        for (ptrdiff_t i = 0; i < n; i += VL) {                                                  \
            const V x = v_load(a + (i & a_mask));                                                \
            v_store(to + i, expression);                                                         \
        }                                                                                        \
    }
#define Y v_load(b + (i & b_mask))
#define Z v_load(c + (i & c_mask))
#define FRNN_TRUTH(m) v_select(m, v_set(1), v_set(0))
#define FRNN_TRUE(a) m_ne(a, v_set(0))
#define FRNN_INFINITE(a) m_eq(v_abs(a), v_set((T)INFINITY))

/* Number by number: rare ones, by the C library. */
#define FRNN_SCALAR_OPERATION(name, expression)                                                  \
    static void FN(map_##name)(ptrdiff_t n, T *to, const T *a, ptrdiff_t a_mask, const T *b,     \
                               ptrdiff_t b_mask, const T *c, ptrdiff_t c_mask, const frnn_number *parameters) \
    {                                                                                            \
        (void)c, (void)c_mask, (void)b, (void)b_mask, (void)parameters;                          \
        for (ptrdiff_t i = 0; i < n; i++) {                                                      \
            const T x = a[i & a_mask];                                                           \
            to[i] = expression;                                                                  \
        }                                                                                        \
    }
#define y b[i & b_mask]

FRNN_OPERATION(COPY, x)
FRNN_OPERATION(NEG, v_mul(x, v_set(-1)))
FRNN_OPERATION(ABS, v_abs(x))
FRNN_OPERATION(SIGN, FN(sign_of)(x))
FRNN_OPERATION(RECIPROCAL, v_div(v_set(1), x))
FRNN_OPERATION(SQUARE, v_mul(x, x))
FRNN_OPERATION(SQRT, v_sqrt(x))
FRNN_OPERATION(RSQRT, v_div(v_set(1), v_sqrt(x)))
FRNN_OPERATION(EXP, FN(exp_any)(x))
FRNN_OPERATION(EXPM1, FN(expm1_of)(x))
FRNN_OPERATION(LOG, FN(log_of)(x))
FRNN_SCALAR_OPERATION(LOG2, F(log2)(x))
FRNN_SCALAR_OPERATION(LOG10, F(log10)(x))
FRNN_OPERATION(LOG1P, FN(log1p_of)(x))
FRNN_SCALAR_OPERATION(EXP2, F(exp2)(x))
FRNN_SCALAR_OPERATION(SIN, F(sin)(x))
FRNN_SCALAR_OPERATION(COS, F(cos)(x))
FRNN_SCALAR_OPERATION(TAN, F(tan)(x))
FRNN_SCALAR_OPERATION(ASIN, F(asin)(x))
FRNN_SCALAR_OPERATION(ACOS, F(acos)(x))
FRNN_SCALAR_OPERATION(ATAN, F(atan)(x))
FRNN_SCALAR_OPERATION(SINH, F(sinh)(x))
FRNN_SCALAR_OPERATION(COSH, F(cosh)(x))
FRNN_OPERATION(TANH, FN(tanh_of)(x))
FRNN_OPERATION(ERF, FN(erf_of)(x))
FRNN_OPERATION(SIGMOID, FN(sigmoid_of)(x))
FRNN_OPERATION(RELU, v_max(v_set(0), x))
FRNN_OPERATION(GELU, FN(gelu_of)(x))
FRNN_OPERATION(GELU_TANH, FN(gelu_tanh_of)(x))
FRNN_OPERATION(SILU, FN(silu_of)(x))
FRNN_OPERATION(MISH, FN(mish_of)(x))
FRNN_OPERATION(HARDSIGMOID, FN(hardsigmoid_of)(x))
FRNN_OPERATION(HARDSWISH, v_div(v_mul(x, v_min(v_set(6), v_max(v_set(0), v_add(x, v_set(3))))), v_set(6)))
FRNN_OPERATION(SOFTSIGN, v_div(x, v_add(v_set(1), v_abs(x))))
FRNN_OPERATION(LOGSIGMOID, FN(logsigmoid_of)(x))
FRNN_OPERATION(TANHSHRINK, v_sub(x, FN(tanh_of)(x)))
FRNN_OPERATION(ELU, FN(elu_of)(x, p, q, r))
FRNN_OPERATION(LEAKY_RELU, v_select(m_lt(v_set(0), x), x, v_mul(x, p)))
FRNN_OPERATION(SOFTPLUS, FN(softplus_of)(x, p, q))
FRNN_OPERATION(CLAMP, v_min(q, v_max(p, x)))
FRNN_OPERATION(SOFTSHRINK, FN(softshrink_of)(x, p))
FRNN_OPERATION(HARDSHRINK, v_select(m_le(v_abs(x), p), v_set(0), x))
FRNN_OPERATION(THRESHOLD, v_select(m_le(x, p), q, x))
FRNN_OPERATION(FLOOR, v_floor(x))
FRNN_OPERATION(CEIL, v_ceil(x))
FRNN_OPERATION(TRUNC, v_trunc(x))
FRNN_OPERATION(ROUND, v_round(x))
FRNN_OPERATION(FRAC, v_sub(x, v_trunc(x)))
FRNN_OPERATION(LOGICAL_NOT, FRNN_TRUTH(m_eq(x, v_set(0))))
FRNN_OPERATION(ISNAN, FRNN_TRUTH(m_ne(x, x)))
FRNN_OPERATION(ISINF, FRNN_TRUTH(FRNN_INFINITE(x)))
FRNN_OPERATION(ISFINITE, FRNN_TRUTH(m_lt(v_abs(x), v_set((T)INFINITY))))
FRNN_OPERATION(ADD, v_add(x, Y))
FRNN_OPERATION(SUB, v_sub(x, Y))
FRNN_OPERATION(MUL, v_mul(x, Y))
FRNN_OPERATION(DIV, v_div(x, Y))
FRNN_SCALAR_OPERATION(POW, F(pow)(x, y))
FRNN_SCALAR_OPERATION(ATAN2, F(atan2)(x, y))
FRNN_OPERATION(MAXIMUM, FN(maximum_of)(x, Y))
FRNN_OPERATION(MINIMUM, FN(minimum_of)(x, Y))
FRNN_SCALAR_OPERATION(FMOD, F(fmod)(x, y))
FRNN_SCALAR_OPERATION(REMAINDER, FN(remainder_of)(x, y))
FRNN_SCALAR_OPERATION(FLOOR_DIVIDE, FN(floor_divide_of)(x, y))
FRNN_OPERATION(EQ, FRNN_TRUTH(m_eq(x, Y)))
FRNN_OPERATION(NE, FRNN_TRUTH(m_ne(x, Y)))
FRNN_OPERATION(LT, FRNN_TRUTH(m_lt(x, Y)))
FRNN_OPERATION(LE, FRNN_TRUTH(m_le(x, Y)))
FRNN_OPERATION(GT, FRNN_TRUTH(m_lt(Y, x)))
FRNN_OPERATION(GE, FRNN_TRUTH(m_le(Y, x)))
FRNN_OPERATION(LOGICAL_AND, FRNN_TRUTH(m_and(FRNN_TRUE(x), FRNN_TRUE(Y))))
FRNN_OPERATION(LOGICAL_OR, FRNN_TRUTH(m_or(FRNN_TRUE(x), FRNN_TRUE(Y))))
FRNN_OPERATION(LOGICAL_XOR, FRNN_TRUTH(m_xor(FRNN_TRUE(x), FRNN_TRUE(Y))))
FRNN_OPERATION(WHERE, v_select(FRNN_TRUE(x), Y, Z))
FRNN_OPERATION(ADDCMUL, v_add(x, v_mul(v_mul(p, Y), Z)))
FRNN_OPERATION(ADDCDIV, v_add(x, v_div(v_mul(p, Y), Z)))
FRNN_OPERATION(LERP, FN(lerp_of)(x, Y, Z))

#undef y
#undef Y
#undef Z
#undef FRNN_OPERATION
#undef FRNN_SCALAR_OPERATION
#undef FRNN_TRUTH
#undef FRNN_TRUE
#undef FRNN_INFINITE

static FN(operation) *const FN(operations)[] = {
#define FRNN_ENTRY(name) FN(map_##name),
    FRNN_MAP_OPERATIONS(FRNN_ENTRY)
#undef FRNN_ENTRY
};
