/* The formulas, once, in the words of vec.h. kernels.c includes this file for every pair of dtype and
 * instruction set, with FN(name) giving each function its full name: frnn_f32_step__avx2.
 *
 * Weights lie in panels of 16 units: (ceil(H/16), K, G, 16), so that one pass over a panel gives
 * every gate of 16 units. The gates of a row lie the same way: (ceil(H/16), G, 16).
 *
 * Every output is a sum in one order, however many rows go together: bias, then the products with x,
 * then those with h, each in chunks of FRNN_CHUNK that are summed one after the other from 0 and then
 * added. So a row's bits never depend on its batch, and the rounding error of a long sum stays that
 * of its chunks.
 */

/* ---------------------------------------------------------------- exponentials */

#if FRNN_IS_F64
#define C(f, d) d
#else
#define C(f, d) f
#endif

/* exp(x) = scale * (1 + p): scale a power of two, p = exp(r) - 1 for |r| <= ln(2)/2, by its series.
 * f32: Cephes expf (Moshier), relative error of 1 + p below 0.6 ulp. f64: Taylor to r^13. */
static inline void FN(exp_parts)(V x, V *scale, V *p)
{
    V n = v_round(v_mul(x, v_set(C(1.44269504088896341f, 1.44269504088896341))));
    V r = v_fma(n, v_set(C(-0.693359375f, -0.693145751953125)), x);
    V q;
    r = v_fma(n, v_set(C(2.12194440e-4f, -1.42860682030941723212e-6)), r);
#if FRNN_IS_F64
    q = v_set(1.0 / 6227020800.0);
    q = v_fma(q, r, v_set(1.0 / 479001600.0));
    q = v_fma(q, r, v_set(1.0 / 39916800.0));
    q = v_fma(q, r, v_set(1.0 / 3628800.0));
    q = v_fma(q, r, v_set(1.0 / 362880.0));
    q = v_fma(q, r, v_set(1.0 / 40320.0));
    q = v_fma(q, r, v_set(1.0 / 5040.0));
    q = v_fma(q, r, v_set(1.0 / 720.0));
    q = v_fma(q, r, v_set(1.0 / 120.0));
    q = v_fma(q, r, v_set(1.0 / 24.0));
    q = v_fma(q, r, v_set(1.0 / 6.0));
    q = v_fma(q, r, v_set(0.5));
#else
    q = v_set(1.9875691500e-4f);
    q = v_fma(q, r, v_set(1.3981999507e-3f));
    q = v_fma(q, r, v_set(8.3334519073e-3f));
    q = v_fma(q, r, v_set(4.1665795894e-2f));
    q = v_fma(q, r, v_set(1.6666665459e-1f));
    q = v_fma(q, r, v_set(5.0000001201e-1f));
#endif
    *p = v_fma(v_mul(q, r), r, r);
    *scale = v_pow2(n);
}

/* sigmoid(x) = over / under, both finite: 1 / (1 + z) or z / (1 + z) with z = exp(-|x|). */
static inline void FN(sigmoid_parts)(V x, V *over, V *under)
{
    V scale, p, z;
    FN(exp_parts)(v_sub(v_set(0), v_min(v_set(C(88.0f, 709.0)), v_abs(x))), &scale, &p);
    z = v_fma(scale, p, scale);
    *over = v_where_negative(x, z, v_set(1));
    *under = v_add(v_set(1), z);
}

/* tanh(x) = over / under: e / (e + 2) with e = exp(2|x|) - 1, which is exact for small x; x's sign. */
static inline void FN(tanh_parts)(V x, V *over, V *under)
{
    V scale, p, e, a = v_abs(x);
    FN(exp_parts)(v_min(v_set(C(18.4f, 38.4)), v_add(a, a)), &scale, &p);
    e = v_fma(scale, p, v_sub(scale, v_set(1)));
    *over = v_copysign(e, x);
    *under = v_add(e, v_set(2));
}

static inline V FN(sigmoid_of)(V x)
{
    V over, under;
    FN(sigmoid_parts)(x, &over, &under);
    return v_div(over, under);
}

static inline V FN(tanh_of)(V x)
{
    V over, under;
    FN(tanh_parts)(x, &over, &under);
    return v_div(over, under);
}

/* sigmoid(a) * tanh(b) with one division. */
static inline V FN(sigmoid_tanh)(V a, V b)
{
    V over_a, under_a, over_b, under_b;
    FN(sigmoid_parts)(a, &over_a, &under_a);
    FN(tanh_parts)(b, &over_b, &under_b);
    return v_div(v_mul(over_a, over_b), v_mul(under_a, under_b));
}

#undef C

/* Part of a vector: the first `count` lanes. */
static inline V FN(load_part)(const T *from, ptrdiff_t count)
{
    T lanes[VL] = {0};
    if (count >= VL)
        return v_load(from);
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

static void FN(sigmoid)(ptrdiff_t n, const void *x, void *y)
{
    for (ptrdiff_t j = 0; j < n; j += VL)
        FN(store_part)((T *)y + j, FN(sigmoid_of)(FN(load_part)((const T *)x + j, n - j)), n - j);
}

static void FN(tanh)(ptrdiff_t n, const void *x, void *y)
{
    for (ptrdiff_t j = 0; j < n; j += VL)
        FN(store_part)((T *)y + j, FN(tanh_of)(FN(load_part)((const T *)x + j, n - j)), n - j);
}

/* ---------------------------------------------------------------- products */

/* acc (rows, vectors) += a (rows, K) times part of one panel. ROWS and VECTORS are constants, so that
 * the accumulators are registers: at most 12 of AVX2's 16, 24 of AVX-512's 32. */
static FRNN_INLINE void FN(tile)(const int rows, const int vectors, ptrdiff_t K, const T *a, ptrdiff_t lda,
                                 const T *w, ptrdiff_t ldw, T *acc, ptrdiff_t ldacc)
{
    for (ptrdiff_t k = 0; k < K;) {
        const ptrdiff_t end = K - k < FRNN_CHUNK ? K : k + FRNN_CHUNK;
        V sum[FRNN_TILE_ROWS][8];
        FRNN_UNROLL
        for (int m = 0; m < rows; m++)
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[m][v] = v_set(0);
        for (; k < end; k++, w += ldw) {
            V column[8];
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++)
                column[v] = v_load(w + v * VL);
            FRNN_UNROLL
            for (int m = 0; m < rows; m++) {
                V factor = v_set(a[m * lda + k]);
                FRNN_UNROLL
                for (int v = 0; v < vectors; v++)
                    sum[m][v] = v_fma(factor, column[v], sum[m][v]);
            }
        }
        FRNN_UNROLL
        for (int m = 0; m < rows; m++)
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++) {
                T *at = acc + m * ldacc + v * VL;
                v_store(at, v_add(v_load(at), sum[m][v]));
            }
    }
}

/* One row against the same vectors of several panels: enough accumulators to hide the latency of the
 * fused multiply-add where a panel alone has few. */
static FRNN_INLINE void FN(row)(const int panels, const int vectors, ptrdiff_t K, const T *a,
                                const T *w, ptrdiff_t ldw, T *acc)
{
    const ptrdiff_t next_panel = K * ldw;
    for (ptrdiff_t k = 0; k < K;) {
        const ptrdiff_t end = K - k < FRNN_CHUNK ? K : k + FRNN_CHUNK;
        V sum[8][4];
        FRNN_UNROLL
        for (int q = 0; q < panels; q++)
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[q][v] = v_set(0);
        for (; k < end; k++, w += ldw) {
            V factor = v_set(a[k]);
            FRNN_UNROLL
            for (int q = 0; q < panels; q++)
                FRNN_UNROLL
                for (int v = 0; v < vectors; v++)
                    sum[q][v] = v_fma(factor, v_load(w + q * next_panel + v * VL), sum[q][v]);
        }
        FRNN_UNROLL
        for (int q = 0; q < panels; q++)
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++) {
                T *at = acc + q * ldw + v * VL;
                v_store(at, v_add(v_load(at), sum[q][v]));
            }
    }
}

/* acc (rows, width) += a (rows, K) W, W one panel (K, width), width = gates * 16. */
static void FN(panel)(int rows, ptrdiff_t K, const T *a, ptrdiff_t lda, const T *w, ptrdiff_t width,
                      T *acc, ptrdiff_t ldacc)
{
    const int vectors = (int)(width / VL);
    int v = 0;
#define FRNN_TILE(R, N) FN(tile)(R, N, K, a, lda, w + v * VL, width, acc + v * VL, ldacc)
    if (rows == 1) {
        for (; v + 8 <= vectors; v += 8)
            FRNN_TILE(1, 8);
        if (v + 6 <= vectors) {
            FRNN_TILE(1, 6);
            v += 6;
        }
        for (; v + 3 <= vectors; v += 3)
            FRNN_TILE(1, 3);
        for (; v < vectors; v++)
            FRNN_TILE(1, 1);
        return;
    }
    while (v < vectors) {
        int wide = vectors - v < FRNN_TILE_VECTORS ? vectors - v : FRNN_TILE_VECTORS;
#define FRNN_ROWS(N)                                     \
    switch (rows) {                                      \
    case 2: FRNN_TILE(2, N); break;                      \
    case 3: FRNN_TILE(3, N); break;                      \
    case 4: FRNN_TILE(4, N); break;                      \
    case 5: FRNN_TILE(5, N); break;                      \
    default: FRNN_TILE(6, N); break;                     \
    }                                                    \
    break;
        switch (wide) {
        case 1: FRNN_ROWS(1)
        case 2: FRNN_ROWS(2)
#if FRNN_TILE_VECTORS == 4
        case 3: FRNN_ROWS(3)
        default: FRNN_ROWS(4)
#endif
        }
        v += wide;
    }
#undef FRNN_ROWS
#undef FRNN_TILE
}

/* How many rows go together: as few tiles as hold them, of equal height (8 = 4 + 4). */
static inline int FN(tile_rows)(ptrdiff_t left)
{
    ptrdiff_t tiles = (left + FRNN_TILE_ROWS - 1) / FRNN_TILE_ROWS;
    return (int)((left + tiles - 1) / tiles);
}

/* How many panels a lone row takes at once. */
static inline int FN(row_panels)(ptrdiff_t width)
{
    switch (width / VL) {
    case 1: return 8;
    case 2: return 4;
    case 3:
    case 4: return 2;
    default: return 1;
    }
}

/* acc (panels * width) += a (K) W for a lone row; panels is what row_panels says. */
static inline void FN(row_of_panels)(ptrdiff_t K, const T *a, const T *w, ptrdiff_t width, T *acc)
{
    switch (width / VL) {
    case 1: FN(row)(8, 1, K, a, w, width, acc); break;
    case 2: FN(row)(4, 2, K, a, w, width, acc); break;
    case 3: FN(row)(2, 3, K, a, w, width, acc); break;
    default: FN(row)(2, 4, K, a, w, width, acc); break;
    }
}

/* ---------------------------------------------------------------- the operations of a backend */

static void FN(project)(const frnn_cell *cell, ptrdiff_t n, const void *x_, ptrdiff_t ldx,
                        void *gates_, ptrdiff_t ldg, int is_odd)
{
    const ptrdiff_t K = cell->input_size, width = cell->gates * FRNN_PANEL;
    const ptrdiff_t panels = (cell->hidden_size + FRNN_PANEL - 1) / FRNN_PANEL;
    const T *x = x_, *w = cell->w_ih, *bias = cell->bias;
    T *gates = gates_;
    for (ptrdiff_t m = 0; m < n; m++)
        memcpy(gates + m * ldg, bias, panels * width * sizeof(T));
    const int together = n == 1 ? FN(row_panels)(width) : 1;
    for (ptrdiff_t done = 0, count; done < panels; done += count) {
        count = panels - done >= together ? together : 1;
        const ptrdiff_t panel = is_odd ? panels - done - count : done;
        if (count > 1)
            FN(row_of_panels)(K, x, w + panel * K * width, width, gates + panel * width);
        else
            for (ptrdiff_t m = 0, rows; m < n; m += rows) {
                rows = FN(tile_rows)(n - m);
                FN(panel)((int)rows, K, x + m * ldx, ldx, w + panel * K * width, width,
                          gates + m * ldg + panel * width, ldg);
            }
    }
}

static void FN(dense_rows)(ptrdiff_t n, ptrdiff_t K, ptrdiff_t outputs, const T *x, ptrdiff_t ldx,
                           const T *w, const T *bias, T *out, ptrdiff_t ldo)
{
    T acc[FRNN_TILE_ROWS * FRNN_PANEL];
    for (ptrdiff_t first = 0; first < outputs; first += FRNN_PANEL, w += K * FRNN_PANEL)
        for (ptrdiff_t m = 0, rows; m < n; m += rows) {
            rows = FN(tile_rows)(n - m);
            for (ptrdiff_t i = 0; i < rows; i++)
                for (ptrdiff_t j = 0; j < FRNN_PANEL; j++)
                    acc[i * FRNN_PANEL + j] = bias == NULL ? 0 : bias[first + j];
            FN(panel)((int)rows, K, x + m * ldx, ldx, w, FRNN_PANEL, acc, FRNN_PANEL);
            const ptrdiff_t wide = outputs - first < FRNN_PANEL ? outputs - first : FRNN_PANEL;
            for (ptrdiff_t i = 0; i < rows; i++)
                memcpy(out + (m + i) * ldo + first, acc + i * FRNN_PANEL, wide * sizeof(T));
        }
}

static void FN(dense)(const frnn_cell *cell, ptrdiff_t n, const void *x, ptrdiff_t ldx, void *out,
                      ptrdiff_t ldo)
{
    FN(dense_rows)(n, cell->input_size, cell->hidden_size, x, ldx, cell->w_ih, cell->bias, out, ldo);
}

/* The gates of one row and panel: units first .. first + 16, of which H - first exist. */
static inline void FN(finish)(frnn_kind kind, const T *gates, const T *new_x, const T *h_prev, T *h, T *c,
                              ptrdiff_t left)
{
    for (ptrdiff_t j = 0; j < FRNN_PANEL && j < left; j += VL) {
        V out, a = v_load(gates + j);
        if (kind == FRNN_LSTM) {
            V cell = FN(load_part)(c + j, left - j);
            V f = FN(sigmoid_of)(v_load(gates + FRNN_PANEL + j));
            V ig = FN(sigmoid_tanh)(a, v_load(gates + 2 * FRNN_PANEL + j));
            cell = v_fma(f, cell, ig);
            FN(store_part)(c + j, cell, left - j);
            out = FN(sigmoid_tanh)(v_load(gates + 3 * FRNN_PANEL + j), cell);
        } else if (kind == FRNN_GRU) {
            V z = FN(sigmoid_of)(v_load(gates + FRNN_PANEL + j));
            V reset = v_mul(FN(sigmoid_of)(a), v_load(gates + 2 * FRNN_PANEL + j));
            V fresh = FN(tanh_of)(v_add(v_load(new_x + j), reset));
            out = v_fma(z, v_sub(FN(load_part)(h_prev + j, left - j), fresh), fresh);
        } else if (kind == FRNN_RNN_TANH) {
            out = FN(tanh_of)(a);
        } else {
            out = v_max(v_set(0), a);
        }
        FN(store_part)(h + j, out, left - j);
    }
}

static void FN(step)(const frnn_cell *cell, ptrdiff_t n, void *gates_, ptrdiff_t ldg,
                     const void *h_prev_, ptrdiff_t ld_prev, void *h_next_, ptrdiff_t ld_next,
                     void *c_, void *scratch, int is_odd)
{
    const ptrdiff_t H = cell->hidden_size, K = cell->output_size, width = cell->gates * FRNN_PANEL;
    const ptrdiff_t panels = (H + FRNN_PANEL - 1) / FRNN_PANEL;
    const int is_gru = cell->kind == FRNN_GRU;
    const T *w = cell->w_hh, *h_prev = h_prev_;
    T *gates = gates_, *c = c_;
    T *h = cell->w_hr == NULL ? h_next_ : scratch; /* (n, H): before the projection */
    const ptrdiff_t ldh = cell->w_hr == NULL ? ld_next : H;
    const int together = n == 1 ? FN(row_panels)(width) : 1;
    T new_x[8 * FRNN_PANEL]; /* what x gives a GRU's n gate, of a tile's rows or a row's panels */

    /* Up at one step and down at the next: the panels used last are still in the cache. */
    for (ptrdiff_t done = 0, count; done < panels; done += count) {
        count = panels - done >= together ? together : 1;
        const ptrdiff_t panel = is_odd ? panels - done - count : done;
        for (ptrdiff_t m = 0, rows; m < n; m += rows) {
            rows = FN(tile_rows)(n - m);
            T *acc = gates + m * ldg + panel * width;
            if (is_gru)
                for (ptrdiff_t i = 0; i < rows * count; i++) {
                    T *gate = acc + (count > 1 ? i * width : i * ldg) + 2 * FRNN_PANEL;
                    const ptrdiff_t of = panel + (count > 1 ? i : 0);
                    memcpy(new_x + i * FRNN_PANEL, gate, FRNN_PANEL * sizeof(T));
                    memcpy(gate, (const T *)cell->bias_hn + of * FRNN_PANEL, FRNN_PANEL * sizeof(T));
                }
            if (count > 1)
                FN(row_of_panels)(K, h_prev, w + panel * K * width, width, acc);
            else
                FN(panel)((int)rows, K, h_prev + m * ld_prev, ld_prev, w + panel * K * width, width, acc, ldg);
            for (ptrdiff_t i = 0; i < rows * count; i++) {
                const ptrdiff_t r = count > 1 ? 0 : m + i;
                const ptrdiff_t first = (panel + (count > 1 ? i : 0)) * FRNN_PANEL;
                FN(finish)(cell->kind, acc + (count > 1 ? i * width : i * ldg), new_x + i * FRNN_PANEL,
                           is_gru ? h_prev + r * ld_prev + first : NULL, h + r * ldh + first,
                           c == NULL ? NULL : c + r * H + first, H - first);
            }
        }
    }
    if (cell->w_hr != NULL)
        FN(dense_rows)(n, H, K, h, ldh, cell->w_hr, NULL, h_next_, ld_next);
}

static size_t FN(scratch_bytes)(const frnn_cell *cell, ptrdiff_t n)
{
    return cell->w_hr == NULL ? 0 : (size_t)(n * cell->hidden_size) * sizeof(T);
}

static const frnn_backend FN(table) = {
    FN(project), FN(step), FN(dense), frnn_panel_gates, FN(scratch_bytes), FN(sigmoid), FN(tanh),
    frnn_flush_denormals, frnn_restore_denormals,
};

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
#undef v_round
#undef v_pow2
#undef v_abs
#undef v_copysign
#undef v_where_negative
#undef FN
