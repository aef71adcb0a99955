/* Reductions of floating-point numbers.
 *
 * The order of a sum is that of its elements' numbers alone: element k goes to lane k % FRNN_REDUCE_LANES, the lanes
 * of a block are joined two by two, and blocks are added in float64. So outputs that lie side by side may be made
 * together, column by column, and one output by itself, with the same bits.
 */

/* What an element does to a lane. `shift` is the mean, for FRNN_REDUCE_VAR. */
static FRNN_INLINE V FN(take)(const frnn_reduction reduction, V lane, V x, V shift)
{
    switch (reduction) {
    case FRNN_REDUCE_SUM_SQUARES: return v_fma(x, x, lane);
    case FRNN_REDUCE_SUM_ABS: return v_add(lane, v_abs(x));
    case FRNN_REDUCE_VAR: x = v_sub(x, shift); return v_fma(x, x, lane);
    case FRNN_REDUCE_PROD: return v_mul(lane, x);
    case FRNN_REDUCE_MAX: return FN(maximum_of)(x, lane);
    case FRNN_REDUCE_MIN: return FN(minimum_of)(x, lane);
    case FRNN_REDUCE_ANY: return v_select(m_ne(x, v_set(0)), v_set(1), lane);
    case FRNN_REDUCE_ALL: return v_select(m_ne(x, v_set(0)), lane, v_set(0));
    default: return v_add(lane, x);
    }
}

static FRNN_INLINE V FN(join)(const frnn_reduction reduction, V a, V b)
{
    switch (reduction) {
    case FRNN_REDUCE_PROD: return v_mul(a, b);
    case FRNN_REDUCE_MAX:
    case FRNN_REDUCE_ANY: return FN(maximum_of)(a, b);
    case FRNN_REDUCE_MIN:
    case FRNN_REDUCE_ALL: return FN(minimum_of)(a, b);
    default: return v_add(a, b);
    }
}

static FRNN_INLINE double FN(join_one)(const frnn_reduction reduction, double a, double b)
{
    switch (reduction) {
    case FRNN_REDUCE_PROD: return a * b;
    case FRNN_REDUCE_MAX:
    case FRNN_REDUCE_ANY: return a != a || a > b ? a : b;
    case FRNN_REDUCE_MIN:
    case FRNN_REDUCE_ALL: return a != a || a < b ? a : b;
    default: return a + b;
    }
}

/* Where a lane begins; and what changes no lane, but for FRNN_REDUCE_VAR, where it is the mean. */
static inline T FN(nothing)(frnn_reduction reduction)
{
    switch (reduction) {
    case FRNN_REDUCE_PROD:
    case FRNN_REDUCE_ALL: return 1;
    case FRNN_REDUCE_MAX: return -(T)INFINITY;
    case FRNN_REDUCE_MIN: return (T)INFINITY;
    default: return 0;
    }
}

/* ---------------------------------------------------------------- one output */

/* Join `count` lanes two by two. */
static FRNN_INLINE T FN(join_lanes)(const frnn_reduction reduction, T *lanes, ptrdiff_t count)
{
    for (ptrdiff_t half = FRNN_REDUCE_LANES / 2; half > 0; half /= 2) {
        if (half >= count)
            continue;
        if (half >= VL)
            for (ptrdiff_t j = 0; j < half; j += VL)
                v_store(lanes + j, FN(join)(reduction, v_load(lanes + j), v_load(lanes + half + j)));
        else
            for (ptrdiff_t j = 0; j < half; j++)
                lanes[j] = (T)FN(join_one)(reduction, lanes[j], lanes[j + half]);
        count = half;
    }
    return lanes[0];
}

static FRNN_INLINE T FN(block_of)(const frnn_reduction reduction, const T *x, ptrdiff_t n, T mean)
{
    const V shift = v_set(mean);
    const T start = FN(nothing)(reduction);
    V sums[FRNN_REDUCE_LANES / VL];
    T lanes[FRNN_REDUCE_LANES];
    ptrdiff_t k = 0;
    FRNN_UNROLL
    for (int v = 0; v < FRNN_REDUCE_LANES / VL; v++)
        sums[v] = v_set(start);
    for (; n - k >= FRNN_REDUCE_LANES; k += FRNN_REDUCE_LANES)
        FRNN_UNROLL
        for (int v = 0; v < FRNN_REDUCE_LANES / VL; v++)
            sums[v] = FN(take)(reduction, sums[v], v_load(x + k + v * VL), shift);
    if (k < n) {
        for (int j = 0; j < FRNN_REDUCE_LANES; j++)
            lanes[j] = k + j < n ? x[k + j] : reduction == FRNN_REDUCE_VAR ? mean : start;
        FRNN_UNROLL
        for (int v = 0; v < FRNN_REDUCE_LANES / VL; v++)
            sums[v] = FN(take)(reduction, sums[v], v_load(lanes + v * VL), shift);
    }
    FRNN_UNROLL
    for (int v = 0; v < FRNN_REDUCE_LANES / VL; v++)
        v_store(lanes + v * VL, sums[v]);
    return FN(join_lanes)(reduction, lanes, FRNN_REDUCE_LANES);
}

#define FRNN_EACH_REDUCTION(DO)                                                                  \
    switch (reduction) {                                                                         \
    case FRNN_REDUCE_SUM_SQUARES: DO(FRNN_REDUCE_SUM_SQUARES); break;                            \
    case FRNN_REDUCE_SUM_ABS: DO(FRNN_REDUCE_SUM_ABS); break;                                    \
    case FRNN_REDUCE_VAR: DO(FRNN_REDUCE_VAR); break;                                            \
    case FRNN_REDUCE_PROD: DO(FRNN_REDUCE_PROD); break;                                          \
    case FRNN_REDUCE_MAX: DO(FRNN_REDUCE_MAX); break;                                            \
    case FRNN_REDUCE_MIN: DO(FRNN_REDUCE_MIN); break;                                            \
    case FRNN_REDUCE_ANY: DO(FRNN_REDUCE_ANY); break;                                            \
    case FRNN_REDUCE_ALL: DO(FRNN_REDUCE_ALL); break;                                            \
    default: DO(FRNN_REDUCE_SUM); break;                                                         \
    }

static T FN(reduce_block)(frnn_reduction reduction, const T *x, ptrdiff_t n, T mean)
{
    T result;
#define FRNN_DO(KIND) result = FN(block_of)(KIND, x, n, mean)
    FRNN_EACH_REDUCTION(FRNN_DO)
#undef FRNN_DO
    return result;
}

static inline ptrdiff_t FN(reduced_count)(const frnn_reduce *what)
{
    ptrdiff_t count = 1;
    for (int i = 0; i < what->reduced; i++)
        count *= what->sizes[what->kept + i];
    return count;
}

/* The elements of a block, brought together where they are not. */
static inline const T *FN(elements)(const frnn_reduce *what, const char *base, ptrdiff_t k, ptrdiff_t count, T *tile)
{
    const ptrdiff_t stride = what->input.strides[what->kept];
    if (what->reduced == 1 && what->input.type == FRNN_TYPE && stride == (ptrdiff_t)sizeof(T))
        return (const T *)(base + k * stride);
    FN(fetch)(what, base, k, count, tile);
    return tile;
}

static double FN(reduce_one)(const frnn_reduce *what, frnn_reduction reduction, ptrdiff_t n, const char *base, T mean,
                             T *tile)
{
    double total = (double)FN(nothing)(reduction);
    for (ptrdiff_t k = 0; k < n; k += FRNN_REDUCE_BLOCK) {
        const ptrdiff_t count = n - k < FRNN_REDUCE_BLOCK ? n - k : FRNN_REDUCE_BLOCK;
        const T *x = FN(elements)(what, base, k, count, tile);
        total = FN(join_one)(reduction, total, (double)FN(reduce_block)(reduction, x, count, mean));
    }
    return total;
}

static int64_t FN(position)(const frnn_reduce *what, ptrdiff_t n, const char *base, T *tile)
{
    const T sign = what->reduction == FRNN_REDUCE_ARGMAX ? 1 : -1;
    T best = -(T)INFINITY;
    int64_t position = 0;
    for (ptrdiff_t k = 0; k < n; k += FRNN_REDUCE_BLOCK) {
        const ptrdiff_t count = n - k < FRNN_REDUCE_BLOCK ? n - k : FRNN_REDUCE_BLOCK;
        const T *x = FN(elements)(what, base, k, count, tile);
        for (ptrdiff_t j = 0; j < count; j++)
            if (sign * x[j] > best || (x[j] != x[j] && best == best)) {
                best = sign * x[j];
                position = k + j;
            }
    }
    return position;
}

static inline double FN(finish)(const frnn_reduce *what, ptrdiff_t n, double total)
{
    const double over = (double)n - what->correction;
    switch (what->reduction) {
    case FRNN_REDUCE_MEAN: return total / (double)n;
    case FRNN_REDUCE_VAR: return total / (over > 0 ? over : 0);
    default: return total;
    }
}

static inline void FN(give)(const frnn_reduce *what, double result, char *at)
{
    const T value = (T)result;
    FN(store_block)(what->output.type, &value, at, 1, 1, 0, 0);
}

/* ---------------------------------------------------------------- outputs side by side */

/* lanes (FRNN_REDUCE_LANES, FRNN_REDUCE_COLUMNS): one row of elements, one for each output, to a lane of each. */
static FRNN_INLINE void FN(take_row)(const frnn_reduction reduction, T *lane, const T *x, ptrdiff_t columns,
                                     const T *means)
{
    ptrdiff_t j = 0;
    for (; columns - j >= VL; j += VL)
        v_store(lane + j, FN(take)(reduction, v_load(lane + j), v_load(x + j), v_load(means + j)));
#if VL > 1
    if (j < columns)
        v_store(lane + j, FN(take)(reduction, v_load(lane + j), v_load_some(x + j, columns - j), v_load(means + j)));
#endif
}

static FRNN_INLINE void FN(columns_of)(const frnn_reduction reduction, const frnn_reduce *what, const char *base,
                                       ptrdiff_t n, ptrdiff_t columns, const T *means, T *lanes, double *totals)
{
    const ptrdiff_t *sizes = what->sizes + what->kept, *strides = what->input.strides + what->kept;
    ptrdiff_t index[FRNN_AXES] = {0};
    const T start = FN(nothing)(reduction);
    for (ptrdiff_t j = 0; j < columns; j++)
        totals[j] = (double)start;
    for (ptrdiff_t k = 0; k < n; k += FRNN_REDUCE_BLOCK) {
        const ptrdiff_t count = n - k < FRNN_REDUCE_BLOCK ? n - k : FRNN_REDUCE_BLOCK;
        ptrdiff_t live = count < FRNN_REDUCE_LANES ? count : FRNN_REDUCE_LANES;
        for (ptrdiff_t j = 0; j < live * FRNN_REDUCE_COLUMNS; j++)
            lanes[j] = start;
        for (ptrdiff_t i = 0; i < count; i++) {
            FN(take_row)(reduction, lanes + i % FRNN_REDUCE_LANES * FRNN_REDUCE_COLUMNS, (const T *)base, columns,
                         means);
            for (int axis = what->reduced - 1; axis >= 0; axis--) {
                base += strides[axis];
                if (++index[axis] < sizes[axis])
                    break;
                index[axis] = 0;
                base -= sizes[axis] * strides[axis];
            }
        }
        for (ptrdiff_t half = FRNN_REDUCE_LANES / 2; half > 0; half /= 2)
            if (half < live) {
                for (ptrdiff_t i = 0; i + half < live; i++)
                    for (ptrdiff_t j = 0; j < columns; j += VL) {
                        T *at = lanes + i * FRNN_REDUCE_COLUMNS + j;
                        v_store(at, FN(join)(reduction, v_load(at), v_load(at + half * FRNN_REDUCE_COLUMNS)));
                    }
                live = half;
            }
        for (ptrdiff_t j = 0; j < columns; j++)
            totals[j] = FN(join_one)(reduction, totals[j], (double)lanes[j]);
    }
}

static void FN(columns)(frnn_reduction reduction, const frnn_reduce *what, const char *base, ptrdiff_t n,
                        ptrdiff_t columns, const T *means, T *lanes, double *totals)
{
#define FRNN_DO(KIND) FN(columns_of)(KIND, what, base, n, columns, means, lanes, totals)
    FRNN_EACH_REDUCTION(FRNN_DO)
#undef FRNN_DO
}

static void FN(reduce_columns)(const frnn_reduce *what, ptrdiff_t n, const char *input, char *output, char *scratch)
{
    const ptrdiff_t width = what->sizes[what->kept - 1], stride = what->output.strides[what->kept - 1];
    T *lanes = (T *)scratch, *means = lanes + FRNN_REDUCE_LANES * FRNN_REDUCE_COLUMNS;
    double *totals = (double *)(means + FRNN_REDUCE_COLUMNS);
    for (ptrdiff_t j = 0; j < FRNN_REDUCE_COLUMNS; j++)
        means[j] = 0;
    for (ptrdiff_t first = 0; first < width; first += FRNN_REDUCE_COLUMNS) {
        const ptrdiff_t columns = width - first < FRNN_REDUCE_COLUMNS ? width - first : FRNN_REDUCE_COLUMNS;
        const char *base = input + first * (ptrdiff_t)sizeof(T);
        if (what->reduction == FRNN_REDUCE_VAR) {
            FN(columns)(FRNN_REDUCE_SUM, what, base, n, columns, means, lanes, totals);
            for (ptrdiff_t j = 0; j < columns; j++)
                means[j] = (T)(totals[j] / (double)n);
        }
        FN(columns)(what->reduction, what, base, n, columns, means, lanes, totals);
        for (ptrdiff_t j = 0; j < columns; j++)
            FN(give)(what, FN(finish)(what, n, totals[j]), output + (first + j) * stride);
    }
}

#undef FRNN_EACH_REDUCTION

/* ---------------------------------------------------------------- all outputs */

static void FN(reduce_each)(const frnn_reduce *what, ptrdiff_t n, const char *base, char *at, T *tile)
{
    T mean = 0;
    if (what->reduction == FRNN_REDUCE_ARGMAX || what->reduction == FRNN_REDUCE_ARGMIN) {
        const int64_t position = FN(position)(what, n, base, tile);
        memcpy(at, &position, sizeof position);
        return;
    }
    if (what->reduction == FRNN_REDUCE_VAR)
        mean = (T)(FN(reduce_one)(what, FRNN_REDUCE_SUM, n, base, 0, tile) / (double)n);
    FN(give)(what, FN(finish)(what, n, FN(reduce_one)(what, what->reduction, n, base, mean, tile)), at);
}

static void FN(reduce)(const frnn_reduce *what, const char *input, char *output, char *scratch)
{
    const ptrdiff_t n = FN(reduced_count)(what);
    const int last = what->kept - 1;
    const int is_columns = what->kept > 0 && what->sizes[last] > 1 && what->input.type == FRNN_TYPE
        && what->input.strides[last] == (ptrdiff_t)sizeof(T) && what->reduction < FRNN_REDUCE_ARGMAX
        && what->input.strides[what->kept + what->reduced - 1] != (ptrdiff_t)sizeof(T);
    const int outer = what->kept - is_columns;
    ptrdiff_t index[FRNN_AXES] = {0};
    for (int axis = 0; axis < what->kept; axis++)
        if (what->sizes[axis] == 0)
            return;
    for (;;) {
        int axis = outer - 1;
        if (is_columns)
            FN(reduce_columns)(what, n, input, output, scratch);
        else
            FN(reduce_each)(what, n, input, output, (T *)scratch);
        for (; axis >= 0; axis--) {
            input += what->input.strides[axis];
            output += what->output.strides[axis];
            if (++index[axis] < what->sizes[axis])
                break;
            index[axis] = 0;
            input -= what->sizes[axis] * what->input.strides[axis];
            output -= what->sizes[axis] * what->output.strides[axis];
        }
        if (axis < 0)
            return;
    }
}
