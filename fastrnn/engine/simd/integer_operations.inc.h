/* The operations of maps of whole numbers, each a loop over a tile. Sums, differences and products wrap. */

typedef void FN(operation)(ptrdiff_t n, T *to, const T *a, ptrdiff_t a_mask, const T *b, ptrdiff_t b_mask, const T *c,
                           ptrdiff_t c_mask, const frnn_number *p);

static inline int64_t frnn_wrapped(uint64_t a)
{
    return (int64_t)a;
}

static inline int64_t frnn_trunc_divide(int64_t a, int64_t b)
{
    return b == 0 ? 0 : b == -1 ? frnn_wrapped(-(uint64_t)a) : a / b;
}

static inline int64_t frnn_fmod(int64_t a, int64_t b)
{
    return b == 0 || b == -1 ? 0 : a % b;
}

static inline int64_t frnn_floor_divide(int64_t a, int64_t b)
{
    return frnn_trunc_divide(a, b) - (frnn_fmod(a, b) != 0 && (a < 0) != (b < 0));
}

static inline int64_t frnn_remainder(int64_t a, int64_t b)
{
    const int64_t left = frnn_fmod(a, b);
    return left != 0 && (left < 0) != (b < 0) ? left + b : left;
}

/* A power below 0 is that of a fraction: 0 but for 1 and -1. */
static inline int64_t frnn_power(int64_t a, int64_t n)
{
    uint64_t result = 1, square = (uint64_t)a;
    if (n < 0)
        return a == 1 ? 1 : a == -1 ? (n % 2 ? -1 : 1) : 0;
    for (; n > 0; n >>= 1, square *= square)
        if (n & 1)
            result *= square;
    return frnn_wrapped(result);
}

static inline int64_t frnn_shift_left(int64_t a, int64_t n)
{
    return n < 0 || n > 63 ? 0 : frnn_wrapped((uint64_t)a << n);
}

static inline int64_t frnn_shift_right(int64_t a, int64_t n)
{
    return a >> (n < 0 || n > 63 ? 63 : n);
}

#define FRNN_OPERATION(name, expression)                                                         \
    static void FN(map_##name)(ptrdiff_t n, T *to, const T *a, ptrdiff_t a_mask, const T *b,     \
                               ptrdiff_t b_mask, const T *c, ptrdiff_t c_mask, const frnn_number *parameters) \
    {                                                                                            \
        const T p = parameters[0].whole, q = parameters[1].whole;                                \
        (void)b, (void)b_mask, (void)c, (void)c_mask, (void)p, (void)q;                          \
        for (ptrdiff_t i = 0; i < n; i++) {                                                      \
            const T x = a[i & a_mask];                                                           \
            to[i] = expression;                                                                  \
        }                                                                                        \
    }
#define y b[i & b_mask]
#define z c[i & c_mask]

FRNN_OPERATION(COPY, x)
FRNN_OPERATION(NEG, frnn_wrapped(-(uint64_t)x))
FRNN_OPERATION(ABS, x < 0 ? frnn_wrapped(-(uint64_t)x) : x)
FRNN_OPERATION(SIGN, (x > 0) - (x < 0))
FRNN_OPERATION(SQUARE, frnn_wrapped((uint64_t)x * (uint64_t)x))
FRNN_OPERATION(LOGICAL_NOT, x == 0)
FRNN_OPERATION(BITWISE_NOT, ~x)
FRNN_OPERATION(CLAMP, (x < p ? p : x) > q ? q : (x < p ? p : x))
FRNN_OPERATION(ADD, frnn_wrapped((uint64_t)x + (uint64_t)y))
FRNN_OPERATION(SUB, frnn_wrapped((uint64_t)x - (uint64_t)y))
FRNN_OPERATION(MUL, frnn_wrapped((uint64_t)x * (uint64_t)y))
FRNN_OPERATION(TRUNC_DIVIDE, frnn_trunc_divide(x, y))
FRNN_OPERATION(FLOOR_DIVIDE, frnn_floor_divide(x, y))
FRNN_OPERATION(FMOD, frnn_fmod(x, y))
FRNN_OPERATION(REMAINDER, frnn_remainder(x, y))
FRNN_OPERATION(POW, frnn_power(x, y))
FRNN_OPERATION(MAXIMUM, x > y ? x : y)
FRNN_OPERATION(MINIMUM, x < y ? x : y)
FRNN_OPERATION(BITWISE_AND, x &y)
FRNN_OPERATION(BITWISE_OR, x | y)
FRNN_OPERATION(BITWISE_XOR, x ^ y)
FRNN_OPERATION(SHIFT_LEFT, frnn_shift_left(x, y))
FRNN_OPERATION(SHIFT_RIGHT, frnn_shift_right(x, y))
FRNN_OPERATION(EQ, x == y)
FRNN_OPERATION(NE, x != y)
FRNN_OPERATION(LT, x < y)
FRNN_OPERATION(LE, x <= y)
FRNN_OPERATION(GT, x > y)
FRNN_OPERATION(GE, x >= y)
FRNN_OPERATION(LOGICAL_AND, (x != 0) & (y != 0))
FRNN_OPERATION(LOGICAL_OR, (x != 0) | (y != 0))
FRNN_OPERATION(LOGICAL_XOR, (x != 0) ^ (y != 0))
FRNN_OPERATION(WHERE, x != 0 ? y : z)

#undef y
#undef z
#undef FRNN_OPERATION

static FN(operation) *const FN(operations)[] = {
#define FRNN_ENTRY(name) FN(map_##name),
    FRNN_INTEGER_OPERATIONS(FRNN_ENTRY)
#undef FRNN_ENTRY
};
