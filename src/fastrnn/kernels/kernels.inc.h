/* The formulas, once, in the words of vec.h. kernels.c includes this file for every pair of dtype and
 * instruction set, with FN(name) giving each function its full name: frnn_f32_step__avx2.
 *
 * Weights lie in panels of 16 units with all their gates: (ceil(H/16), G, K, 16). The gates of a row lie
 * the same way: (ceil(H/16), G, 16), so that a panel's units are finished while they are in the cache.
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

/* Vectors of one gate of a panel, and where vector v of a panel's row of weights begins. */
#define FRNN_GATE_VECTORS (FRNN_PANEL / VL)
#define FRNN_COLUMN(v) ((v) / FRNN_GATE_VECTORS * gate_size + (v) % FRNN_GATE_VECTORS * VL)

/* acc (rows, vectors) += a (rows, K) times part of a panel, K one chunk at most. ROWS and VECTORS are
 * constants, so that the sums are registers: 12 of AVX2's 16 at most, 24 of AVX-512's 32. */
static FRNN_INLINE void FN(tile)(const int rows, const int vectors, ptrdiff_t K, const T *a, ptrdiff_t lda,
                                 const T *w, ptrdiff_t gate_size, T *acc, ptrdiff_t ldacc)
{
    V sum[FRNN_TILE_ROWS][8];
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[m][v] = v_set(0);
    for (ptrdiff_t k = 0; k < K; k++, w += FRNN_PANEL) {
        V column[8];
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            column[v] = v_load(w + FRNN_COLUMN(v));
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

/* One row against the same vectors of several panels, K one chunk at most: enough sums to hide the
 * latency of the fused multiply-add where a panel alone has few. */
static FRNN_INLINE void FN(row)(const int panels, const int vectors, ptrdiff_t K, const T *a, const T *w,
                                ptrdiff_t gate_size, ptrdiff_t panel_size, T *acc, ptrdiff_t width)
{
    V sum[8][4];
    FRNN_UNROLL
    for (int q = 0; q < panels; q++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[q][v] = v_set(0);
    for (ptrdiff_t k = 0; k < K; k++, w += FRNN_PANEL) {
        V factor = v_set(a[k]);
        FRNN_UNROLL
        for (int q = 0; q < panels; q++)
            FRNN_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[q][v] = v_fma(factor, v_load(w + q * panel_size + FRNN_COLUMN(v)), sum[q][v]);
    }
    FRNN_UNROLL
    for (int q = 0; q < panels; q++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++) {
            T *at = acc + q * width + v * VL;
            v_store(at, v_add(v_load(at), sum[q][v]));
        }
}

#define FRNN_TILE(R, N) FN(tile)(R, N, K, a, lda, w, gate_size, acc, ldacc)

/* Part of a panel, `vectors` wide, for n rows: tiles as few as hold them, of equal height (8 = 4 + 4). */
static FRNN_INLINE void FN(tiles)(const int vectors, ptrdiff_t n, ptrdiff_t K, const T *a, ptrdiff_t lda,
                                  const T *w, ptrdiff_t gate_size, T *acc, ptrdiff_t ldacc)
{
    for (ptrdiff_t left = n, rows; left > 0; left -= rows, a += rows * lda, acc += rows * ldacc) {
        const ptrdiff_t tiles = (left + FRNN_TILE_ROWS - 1) / FRNN_TILE_ROWS;
        rows = (left + tiles - 1) / tiles;
        switch (rows) {
        case 1: FRNN_TILE(1, vectors); break;
        case 2: FRNN_TILE(2, vectors); break;
        case 3: FRNN_TILE(3, vectors); break;
        case 4: FRNN_TILE(4, vectors); break;
        case 5: FRNN_TILE(5, vectors); break;
        default: FRNN_TILE(6, vectors); break;
        }
    }
}

/* acc (n, gates, 16) += a (n, K) W, W one panel (gates, K, 16). A chunk of a gate or so stays in the
 * first-level cache while all rows pass over it. */
static void FN(panel)(ptrdiff_t n, ptrdiff_t K_all, const T *a_all, ptrdiff_t lda, const T *panel,
                      ptrdiff_t gates, T *acc_all, ptrdiff_t ldacc)
{
    const ptrdiff_t gate_size = K_all * FRNN_PANEL;
    const int vectors = (int)gates * FRNN_GATE_VECTORS;
    const int most = n == 1 ? 8 : FRNN_TILE_VECTORS;
    for (int v = 0, wide; v < vectors; v += wide) {
        wide = vectors - v < most ? vectors - v : most;
        /* Whole gates, or a part of one: vectors from one gate to the middle of another have no stride. */
        if (v % FRNN_GATE_VECTORS != 0 && wide > FRNN_GATE_VECTORS - v % FRNN_GATE_VECTORS)
            wide = FRNN_GATE_VECTORS - v % FRNN_GATE_VECTORS;
        T *acc = acc_all + v * VL;
        for (ptrdiff_t k = 0; k < K_all; k += FRNN_CHUNK) {
            const ptrdiff_t K = K_all - k < FRNN_CHUNK ? K_all - k : FRNN_CHUNK;
            const T *a = a_all + k, *w = panel + FRNN_COLUMN(v) + k * FRNN_PANEL;
            if (n == 1)
                switch (wide) {
                case 8: FRNN_TILE(1, 8); break;
                case 6: FRNN_TILE(1, 6); break;
                case 4: FRNN_TILE(1, 4); break;
                case 3: FRNN_TILE(1, 3); break;
                case 2: FRNN_TILE(1, 2); break;
                default: FRNN_TILE(1, 1); break;
                }
            else
                switch (wide) {
#if FRNN_TILE_VECTORS == 4
                case 4: FN(tiles)(4, n, K, a, lda, w, gate_size, acc, ldacc); break;
                case 3: FN(tiles)(3, n, K, a, lda, w, gate_size, acc, ldacc); break;
#endif
                case 2: FN(tiles)(2, n, K, a, lda, w, gate_size, acc, ldacc); break;
                default: FN(tiles)(1, n, K, a, lda, w, gate_size, acc, ldacc); break;
                }
        }
    }
}

/* How many panels a lone row takes at once. */
static inline int FN(row_panels)(ptrdiff_t gates)
{
    switch (gates * FRNN_GATE_VECTORS) {
    case 1: return 8;
    case 2: return 4;
    case 3:
    case 4: return 2;
    default: return 1;
    }
}

/* acc (panels, gates, 16) += a (K) W for a lone row; panels is what row_panels says. */
static inline void FN(row_of_panels)(ptrdiff_t K_all, const T *a, const T *w, ptrdiff_t gates, T *acc)
{
    const ptrdiff_t gate_size = K_all * FRNN_PANEL, size = gates * gate_size, width = gates * FRNN_PANEL;
    for (ptrdiff_t k = 0; k < K_all; k += FRNN_CHUNK, a += FRNN_CHUNK, w += FRNN_CHUNK * FRNN_PANEL) {
        const ptrdiff_t K = K_all - k < FRNN_CHUNK ? K_all - k : FRNN_CHUNK;
        switch (gates * FRNN_GATE_VECTORS) {
        case 1: FN(row)(8, 1, K, a, w, gate_size, size, acc, width); break;
        case 2: FN(row)(4, 2, K, a, w, gate_size, size, acc, width); break;
        case 3: FN(row)(2, 3, K, a, w, gate_size, size, acc, width); break;
        default: FN(row)(2, 4, K, a, w, gate_size, size, acc, width); break;
        }
    }
}

#undef FRNN_TILE

/* ---------------------------------------------------------------- the operations of a backend */

static void FN(project)(const frnn_cell *cell, ptrdiff_t n, const void *x_, ptrdiff_t ldx,
                        void *gates_, ptrdiff_t ldg, int is_odd)
{
    const ptrdiff_t K = cell->input_size, G = cell->gates, width = G * FRNN_PANEL;
    const ptrdiff_t panels = (cell->hidden_size + FRNN_PANEL - 1) / FRNN_PANEL;
    const T *x = x_, *w = cell->w_ih, *bias = cell->bias;
    T *gates = gates_;
    const int together = n == 1 ? FN(row_panels)(G) : 1;
    for (ptrdiff_t m = 0; m < n; m++)
        memcpy(gates + m * ldg, bias, panels * width * sizeof(T));
    for (ptrdiff_t done = 0, count; done < panels; done += count) {
        count = panels - done >= together ? together : 1;
        const ptrdiff_t panel = is_odd ? panels - done - count : done;
        if (count > 1)
            FN(row_of_panels)(K, x, w + panel * K * width, G, gates + panel * width);
        else
            FN(panel)(n, K, x, ldx, w + panel * K * width, G, gates + panel * width, ldg);
    }
}

static void FN(dense_rows)(ptrdiff_t n, ptrdiff_t K, ptrdiff_t outputs, const T *x, ptrdiff_t ldx,
                           const T *w, const T *bias, T *out, ptrdiff_t ldo)
{
    T acc[4 * FRNN_TILE_ROWS * FRNN_PANEL];
    for (ptrdiff_t m = 0, rows; m < n; m += rows) {
        rows = n - m < 4 * FRNN_TILE_ROWS ? n - m : 4 * FRNN_TILE_ROWS;
        for (ptrdiff_t first = 0; first < outputs; first += FRNN_PANEL) {
            for (ptrdiff_t i = 0; i < rows; i++)
                for (ptrdiff_t j = 0; j < FRNN_PANEL; j++)
                    acc[i * FRNN_PANEL + j] = bias == NULL ? 0 : bias[first + j];
            FN(panel)(rows, K, x + m * ldx, ldx, w + first * K, 1, acc, FRNN_PANEL);
            const ptrdiff_t wide = outputs - first < FRNN_PANEL ? outputs - first : FRNN_PANEL;
            for (ptrdiff_t i = 0; i < rows; i++)
                memcpy(out + (m + i) * ldo + first, acc + i * FRNN_PANEL, wide * sizeof(T));
        }
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
    const ptrdiff_t H = cell->hidden_size, K = cell->output_size, G = cell->gates, width = G * FRNN_PANEL;
    const ptrdiff_t panels = (H + FRNN_PANEL - 1) / FRNN_PANEL;
    const int is_gru = cell->kind == FRNN_GRU;
    const T *w = cell->w_hh, *h_prev = h_prev_;
    T *gates = gates_, *c = c_;
    T *h = cell->w_hr == NULL ? h_next_ : scratch; /* (n, H): before the projection */
    const ptrdiff_t ldh = cell->w_hr == NULL ? ld_next : H;
    T *new_x = scratch; /* (n, 16) of a GRU: what x gives the n gate of a panel, or of a row's panels */
    const int together = n == 1 ? FN(row_panels)(G) : 1;

    for (ptrdiff_t done = 0, count; done < panels; done += count) {
        count = panels - done >= together ? together : 1;
        const ptrdiff_t panel = is_odd ? panels - done - count : done;
        /* A row's panels lie one behind the other, a panel's rows ldg apart. */
        const ptrdiff_t parts = count > 1 ? count : n, apart = count > 1 ? width : ldg;
        T *acc = gates + panel * width;
        if (is_gru)
            for (ptrdiff_t i = 0; i < parts; i++) {
                T *gate = acc + i * apart + 2 * FRNN_PANEL;
                const ptrdiff_t of = panel + (count > 1 ? i : 0);
                memcpy(new_x + i * FRNN_PANEL, gate, FRNN_PANEL * sizeof(T));
                memcpy(gate, (const T *)cell->bias_hn + of * FRNN_PANEL, FRNN_PANEL * sizeof(T));
            }
        if (count > 1)
            FN(row_of_panels)(K, h_prev, w + panel * K * width, G, acc);
        else
            FN(panel)(n, K, h_prev, ld_prev, w + panel * K * width, G, acc, ldg);
        for (ptrdiff_t i = 0; i < parts; i++) {
            const ptrdiff_t m = count > 1 ? 0 : i;
            const ptrdiff_t first = (panel + (count > 1 ? i : 0)) * FRNN_PANEL;
            FN(finish)(cell->kind, acc + i * apart, is_gru ? new_x + i * FRNN_PANEL : NULL,
                       is_gru ? h_prev + m * ld_prev + first : NULL, h + m * ldh + first,
                       c == NULL ? NULL : c + m * H + first, H - first);
        }
    }
    if (cell->w_hr != NULL)
        FN(dense_rows)(n, H, K, h, ldh, cell->w_hr, NULL, h_next_, ld_next);
}

static size_t FN(scratch_bytes)(const frnn_cell *cell, ptrdiff_t n)
{
    if (cell->kind == FRNN_GRU)
        return (size_t)((n < 8 ? 8 : n) * FRNN_PANEL) * sizeof(T);
    return cell->w_hr == NULL ? 0 : (size_t)(n * cell->hidden_size) * sizeof(T);
}

static const frnn_backend FN(table) = {
    FN(project), FN(step), FN(dense), frnn_panel_gates, FN(scratch_bytes), FN(sigmoid), FN(tanh),
    frnn_flush_denormals, frnn_restore_denormals,
};

#undef FRNN_GATE_VECTORS
#undef FRNN_COLUMN
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
