/* Windows that move over rows of channels: depthwise convolutions, pools, and the rows of a convolution as a product. */

/* The taps of an axis that meet the input, from `first` to `last`, that excluded, and the place where tap 0 would be. */
typedef struct FN(span) {
    ptrdiff_t first, last, start;
} FN(span);

static inline FN(span) FN(span_of)(const frnn_window *window, int axis, ptrdiff_t position)
{
    const ptrdiff_t dilation = window->dilation[axis], size = window->input[axis], taps = window->taps[axis];
    FN(span) span = {0, taps, position * window->stride[axis] - window->before[axis]};
    if (span.start < 0)
        span.first = (-span.start + dilation - 1) / dilation;
    if (span.start + (taps - 1) * dilation >= size)
        span.last = span.start >= size ? 0 : (size - 1 - span.start) / dilation + 1;
    if (span.first > span.last)
        span.first = span.last = 0;
    return span;
}

/* For each tap (k, l) that meets the input: `x` is where, and `tap` its number. */
#define FRNN_EACH_TAP(base)                                                                      \
    for (ptrdiff_t k = rows.first; k < rows.last; k++)                                           \
        for (ptrdiff_t l = columns.first, tap = k * window->taps[1] + l; l < columns.last; l++, tap++) { \
            const T *x = (const T *)((base) + (rows.start + k * window->dilation[0]) * window->input_bytes[0] \
                + (columns.start + l * window->dilation[1]) * window->input_bytes[1]);

/* ---------------------------------------------------------------- depthwise */

/* `vectors` vectors of outputs of one position; or a part of one, where `count` is less than VL. */
static FRNN_INLINE void FN(depthwise_part)(const int vectors, ptrdiff_t count, const frnn_window *window,
                                           FN(span) rows, FN(span) columns, const T *weight, const T *bias,
                                           const char *base, T *y)
{
    const ptrdiff_t outputs = window->channels * window->multiplier;
    V sums[4];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = bias == NULL ? v_set(0) : count < VL ? v_load_some(bias, count) : v_load(bias + v * VL);
    FRNN_EACH_TAP(base)
        const T *w = weight + tap * outputs;
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            if (count < VL)
                sums[v] = v_fma(v_load_some(x, count), v_load_some(w, count), sums[v]);
            else
                sums[v] = v_fma(v_load(x + v * VL), v_load(w + v * VL), sums[v]);
    }
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        if (count < VL)
            v_store_some(y, sums[v], count);
        else
            v_store(y + v * VL, sums[v]);
}

/* Several outputs for each channel: a channel's outputs one by one. */
static void FN(multiplied)(const frnn_window *window, FN(span) rows, FN(span) columns, const T *weight, const T *bias,
                           const char *base, T *y)
{
    const ptrdiff_t outputs = window->channels * window->multiplier;
    for (ptrdiff_t o = 0; o < outputs; o++)
        y[o] = bias == NULL ? 0 : bias[o];
    FRNN_EACH_TAP(base)
        const T *w = weight + tap * outputs;
        for (ptrdiff_t c = 0, o = 0; c < window->channels; c++)
            for (ptrdiff_t end = o + window->multiplier; o < end; o++)
                y[o] += x[c] * w[o];
    }
}

/* `count` channels, at most VL, of RUN positions side by side, whose taps along the axis are all in the input: each
 * weight is read once for all of them, and their sums do not wait for each other. */
enum { FN(RUN) = 4 };

static FRNN_INLINE void FN(depthwise_run)(ptrdiff_t count, const frnn_window *window, FN(span) rows, FN(span) columns,
                                          const T *weight, const T *bias, const char *base, char *y)
{
    const ptrdiff_t outputs = window->channels, apart = window->stride[1] * window->input_bytes[1];
    V sums[FN(RUN)];
    FRNN_UNROLL
    for (int p = 0; p < FN(RUN); p++)
        sums[p] = bias == NULL ? v_set(0) : count < VL ? v_load_some(bias, count) : v_load(bias);
    FRNN_EACH_TAP(base)
        const T *at = weight + tap * outputs;
        const V w = count < VL ? v_load_some(at, count) : v_load(at);
        FRNN_UNROLL
        for (int p = 0; p < FN(RUN); p++) {
            const T *x_p = (const T *)((const char *)x + p * apart);
            sums[p] = v_fma(count < VL ? v_load_some(x_p, count) : v_load(x_p), w, sums[p]);
        }
    }
    FRNN_UNROLL
    for (int p = 0; p < FN(RUN); p++) {
        T *to = (T *)(y + p * window->output_bytes[1]);
        if (count < VL)
            v_store_some(to, sums[p], count);
        else
            v_store(to, sums[p]);
    }
}

/* All channels of one position. */
static void FN(depthwise_position)(const frnn_window *window, FN(span) rows, FN(span) columns, const T *weight,
                                   const T *bias, const char *x, T *out)
{
    const ptrdiff_t channels = window->channels;
    ptrdiff_t c = 0;
    if (window->multiplier > 1) {
        FN(multiplied)(window, rows, columns, weight, bias, x, out);
        return;
    }
#define FRNN_PART(N, COUNT)                                                                      \
    FN(depthwise_part)(N, COUNT, window, rows, columns, weight + c, bias == NULL ? NULL : bias + c,            \
                       x + c * (ptrdiff_t)sizeof(T), out + c)
    for (; channels - c >= 4 * VL; c += 4 * VL)
        FRNN_PART(4, VL);
    for (; channels - c >= VL; c += VL)
        FRNN_PART(1, VL);
    if (c < channels)
        FRNN_PART(1, channels - c);
#undef FRNN_PART
}

/* Whether the taps of a run of positions from this one on are all in the input. */
static inline int FN(is_run)(const frnn_window *window, ptrdiff_t position, ptrdiff_t start)
{
    const ptrdiff_t last = start + (FN(RUN) - 1) * window->stride[1] + (window->taps[1] - 1) * window->dilation[1];
    return window->multiplier == 1 && position + FN(RUN) <= window->output[1] && start >= 0 && last < window->input[1];
}

static void FN(depthwise)(const frnn_window *window, const void *weights, const void *biases, const char *x, char *y)
{
    const T *weight = weights, *bias = biases;
    const ptrdiff_t channels = window->channels;
    for (ptrdiff_t i = 0; i < window->output[0]; i++) {
        const FN(span) rows = FN(span_of)(window, 0, i);
        for (ptrdiff_t j = 0, count; j < window->output[1]; j += count) {
            const FN(span) columns = FN(span_of)(window, 1, j);
            char *out = y + i * window->output_bytes[0] + j * window->output_bytes[1];
            count = FN(is_run)(window, j, columns.start) ? FN(RUN) : 1;
            if (count == 1) {
                FN(depthwise_position)(window, rows, columns, weight, bias, x, (T *)out);
                continue;
            }
            ptrdiff_t c = 0;
#define FRNN_PART(COUNT)                                                                         \
    FN(depthwise_run)(COUNT, window, rows, columns, weight + c, bias == NULL ? NULL : bias + c,  \
                      x + c * (ptrdiff_t)sizeof(T), out + c * (ptrdiff_t)sizeof(T))
            for (; channels - c >= VL; c += VL)
                FRNN_PART(VL);
            if (c < channels)
                FRNN_PART(channels - c);
#undef FRNN_PART
        }
    }
}

/* ---------------------------------------------------------------- pools */

static FRNN_INLINE void FN(pool_part)(const frnn_pooling pooling, ptrdiff_t count, const frnn_window *window,
                                      FN(span) rows, FN(span) columns, const char *base, V divisor, T *y)
{
    V sum = v_set(pooling == FRNN_POOL_MAX ? -(T)INFINITY : 0);
    FRNN_EACH_TAP(base)
        const V part = count < VL ? v_load_some(x, count) : v_load(x);
        (void)tap;
        sum = pooling == FRNN_POOL_MAX ? FN(maximum_of)(part, sum) : v_add(sum, part);
    }
    if (pooling == FRNN_POOL_AVERAGE)
        sum = v_div(sum, divisor);
    if (count < VL)
        v_store_some(y, sum, count);
    else
        v_store(y, sum);
}

/* The positions of an axis that count for an average. */
static inline ptrdiff_t FN(counted)(const frnn_pool *pool, int axis, FN(span) span)
{
    const frnn_window *window = &pool->window;
    const ptrdiff_t end = span.start + window->taps[axis], most = window->input[axis] + pool->after[axis];
    return pool->counts_padding ? (end < most ? end : most) - span.start : span.last - span.first;
}

static void FN(pool)(const frnn_pool *pool, const char *x, char *y)
{
    const frnn_window *window = &pool->window;
    for (ptrdiff_t i = 0; i < window->output[0]; i++)
        for (ptrdiff_t j = 0; j < window->output[1]; j++) {
            const FN(span) rows = FN(span_of)(window, 0, i), columns = FN(span_of)(window, 1, j);
            const ptrdiff_t counted = FN(counted)(pool, 0, rows) * FN(counted)(pool, 1, columns);
            const V divisor = v_set((T)(pool->divisor != 0 ? pool->divisor : (double)counted));
            T *out = (T *)(y + i * window->output_bytes[0] + j * window->output_bytes[1]);
            for (ptrdiff_t c = 0; c < window->channels; c += VL) {
                const ptrdiff_t left = window->channels - c, count = left < VL ? left : VL;
                const char *at = x + c * (ptrdiff_t)sizeof(T);
                if (pool->pooling == FRNN_POOL_MAX)
                    FN(pool_part)(FRNN_POOL_MAX, count, window, rows, columns, at, divisor, out + c);
                else
                    FN(pool_part)(FRNN_POOL_AVERAGE, count, window, rows, columns, at, divisor, out + c);
            }
        }
}

#undef FRNN_EACH_TAP

/* ---------------------------------------------------------------- rows for a product */

/* Copy the channels of a position: a few, for which memcpy takes long to begin. */
static FRNN_INLINE void FN(copy_channels)(T *to, const T *from, ptrdiff_t channels)
{
    ptrdiff_t c = 0;
    for (; channels - c >= VL; c += VL)
        v_store(to + c, v_load(from + c));
    if (c < channels)
        v_store_some(to + c, v_load_some(from + c, channels - c), channels - c);
}

/* The taps of one row of the window, (taps[1], channels). */
static inline void FN(gather_taps)(const frnn_window *window, FN(span) span, const char *x, T *to)
{
    const ptrdiff_t channels = window->channels, bytes = channels * (ptrdiff_t)sizeof(T);
    const ptrdiff_t step = window->dilation[1] * window->input_bytes[1], count = span.last - span.first;
    if (count < window->taps[1]) {
        memset(to, 0, (size_t)(span.first * bytes));
        memset(to + span.last * channels, 0, (size_t)((window->taps[1] - span.last) * bytes));
    }
    x += span.start * window->input_bytes[1] + span.first * step;
    to += span.first * channels;
    if (step == bytes)
        memcpy(to, x, (size_t)(count * bytes));
    else
        for (ptrdiff_t l = 0; l < count; l++, x += step, to += channels)
            FN(copy_channels)(to, (const T *)x, channels);
}

static void FN(gather_rows)(const frnn_window *window, ptrdiff_t first, ptrdiff_t count, const char *x, char *to,
                            ptrdiff_t ld)
{
    const ptrdiff_t width = window->taps[1] * window->channels;
    ptrdiff_t i = first / window->output[1], j = first % window->output[1];
    for (; count > 0; count--, to += ld * (ptrdiff_t)sizeof(T)) {
        T *row = (T *)to;
        const FN(span) rows = FN(span_of)(window, 0, i), columns = FN(span_of)(window, 1, j);
        for (ptrdiff_t k = 0; k < window->taps[0]; k++, row += width)
            if (k < rows.first || k >= rows.last || columns.first == columns.last)
                memset(row, 0, (size_t)width * sizeof(T));
            else
                FN(gather_taps)(window, columns,
                                x + (rows.start + k * window->dilation[0]) * window->input_bytes[0], row);
        if (++j == window->output[1]) {
            j = 0;
            i++;
        }
    }
}
