/* What layers without products do to rows of features: activations, softmax, layer norm. */

/* y = f(x) of n numbers, wherever their rows end. */
#define FRNN_EACH(f)                                                                             \
    for (ptrdiff_t j = 0; j < n; j += VL) {                                                      \
        const V part = FN(load_part)(x + j, n - j);                                              \
        FN(store_part)(y + j, f, n - j);                                                         \
    }

static inline double FN(total)(V sum)
{
    T lanes[VL];
    double total = 0;
    v_store(lanes, sum);
    for (int j = 0; j < VL; j++)
        total += (double)lanes[j];
    return total;
}

/* The first `count` lanes, 0 in the others. */
static inline V FN(first_lanes)(V value, ptrdiff_t count)
{
    T lanes[VL];
    if (count >= VL)
        return value;
    v_store(lanes, value);
    return FN(load_part)(lanes, count);
}

static T FN(largest)(ptrdiff_t n, const T *x)
{
    T largest = x[0], lanes[VL];
    V most = v_set(largest);
    ptrdiff_t j = 0;
    for (; n - j >= VL; j += VL)
        most = v_max(most, v_load(x + j));
    for (; j < n; j++)
        largest = x[j] > largest ? x[j] : largest;
    v_store(lanes, most);
    for (j = 0; j < VL; j++)
        largest = lanes[j] > largest ? lanes[j] : largest;
    return largest;
}

/* A NaN in a row makes all of it NaN, as its sum is one. */
static void FN(softmax)(const frnn_row_kind kind, ptrdiff_t n, const T *x, T *y)
{
    const V shift = v_set(FN(largest)(n, x));
    V sum = v_set(0);
    for (ptrdiff_t j = 0; j < n; j += VL) {
        const V power = FN(first_lanes)(FN(exp_of)(v_sub(FN(load_part)(x + j, n - j), shift)), n - j);
        sum = v_add(sum, power);
        if (kind == FRNN_SOFTMAX)
            FN(store_part)(y + j, power, n - j);
    }
    if (kind == FRNN_SOFTMAX) {
        const V whole = v_set((T)FN(total)(sum));
        const T *x = y;
        FRNN_EACH(v_div(part, whole))
    } else {
        const V logarithm = v_set((T)log(FN(total)(sum)));
        FRNN_EACH(v_sub(v_sub(part, shift), logarithm))
    }
}

static void FN(layer_norm)(const frnn_rows *what, const T *x, T *y)
{
    const ptrdiff_t n = what->features;
    const T *weight = what->weight, *bias = what->bias;
    V sum = v_set(0), mean, factor;
    for (ptrdiff_t j = 0; j < n; j += VL)
        sum = v_add(sum, FN(load_part)(x + j, n - j));
    mean = v_set((T)(FN(total)(sum) / (double)n));
    sum = v_set(0);
    for (ptrdiff_t j = 0; j < n; j += VL) {
        const V part = FN(first_lanes)(v_sub(FN(load_part)(x + j, n - j), mean), n - j);
        sum = v_fma(part, part, sum);
    }
    factor = v_set((T)(1 / sqrt(FN(total)(sum) / (double)n + what->eps)));
    for (ptrdiff_t j = 0; j < n; j += VL) {
        V part = v_mul(v_sub(FN(load_part)(x + j, n - j), mean), factor);
        if (weight != NULL)
            part = v_mul(part, FN(load_part)(weight + j, n - j));
        if (bias != NULL)
            part = v_add(part, FN(load_part)(bias + j, n - j));
        FN(store_part)(y + j, part, n - j);
    }
}

static void FN(rows)(const frnn_rows *what, ptrdiff_t rows, const void *source, void *target)
{
    const ptrdiff_t n = rows * what->features;
    const T *x = source;
    T *y = target;
    switch (what->kind) {
    case FRNN_RELU: FRNN_EACH(v_max(v_set(0), part)) break;
    case FRNN_TANH: FRNN_EACH(FN(tanh_of)(part)) break;
    case FRNN_SIGMOID: FRNN_EACH(FN(sigmoid_of)(part)) break;
    case FRNN_LAYER_NORM:
        for (ptrdiff_t i = 0; i < n; i += what->features)
            FN(layer_norm)(what, x + i, y + i);
        break;
    default:
        for (ptrdiff_t i = 0; i < n; i += what->features)
            FN(softmax)(what->kind, what->features, x + i, y + i);
    }
}

#undef FRNN_EACH
