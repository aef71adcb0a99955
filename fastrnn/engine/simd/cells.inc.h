/* Cells: their bundles from inputs and the state before to the new state. They know the kinds of cells; how weights are
 * stored and multiplied is products.inc.h's matter, what gates compute gates.inc.h's.
 */

/* What a step knows of its cell. */
typedef struct WN(context) {
    const frnn_cell *cell;
    const frnn_step *step;
    T *h;          /* (n, H): before the projection */
    ptrdiff_t ldh;
    WN(operand) x, h_prev;
    T *scratch;    /* what is left of the step's */
    int is_far;
} WN(context);

static FRNN_INLINE FN(units) WN(units_at)(const WN(context) *context, ptrdiff_t m, ptrdiff_t unit)
{
    const frnn_step *step = context->step;
    const ptrdiff_t place = step->c_order == NULL ? m : step->c_order[m];
    const FN(units) units = {(const T *)step->h_prev + m * step->ld_prev + unit,
                             context->h + m * context->ldh + unit,
                             step->c == NULL ? NULL : (T *)step->c + place * step->ldc + unit,
                             context->cell->hidden_size - unit};
    return units;
}

/* ---------------------------------------------------------------- a lone row */

#if FRNN_HAS_LONE
/* A bundle of `panels` panels for a lone row, from its inputs or gates to its new state in registers. */
static FRNN_INLINE void WN(lone_bundle)(const frnn_kind kind, const int gates, const int panels,
                                        const WN(context) *context, frnn_bundle bundle)
{
    enum { PARTS = FRNN_PANEL / VL };
    const frnn_cell *cell = context->cell;
    const frnn_step *step = context->step;
    const FN(units) first = WN(units_at)(context, 0, bundle.panel * FRNN_PANEL);
    const int vectors = panels * gates * PARTS;
    V total[FRNN_SUMS], new_x[FRNN_SUMS];
    const T *from = (const T *)cell->bias + bundle.offset;
    if (step->x == NULL)
        from = (const T *)step->gates + bundle.offset * step->rows + step->row * bundle.width;
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        total[v] = v_load(from + v * VL);
    if (step->x != NULL)
        WN(lone_product)(vectors, cell->w_ih.columns, context->x, WN(weights_of)(&cell->w_ih, bundle), total);
    if (FN(has_new_gate)(kind)) {
        const T *bias = (const T *)cell->bias_hn + bundle.panel * FRNN_PANEL;
        FRNN_UNROLL
        for (int i = 0; i < panels * PARTS; i++) {
            V *gate = total + (i / PARTS * gates + 2) * PARTS + i % PARTS;
            new_x[i] = *gate;
            *gate = v_load(bias + i * VL);
        }
    }
    WN(lone_product)(vectors, cell->w_hh.columns, context->h_prev, WN(weights_of)(&cell->w_hh, bundle), total);
    FRNN_UNROLL
    for (int is_h = !FN(has_first_half)(kind); is_h < 2; is_h++)
        FRNN_UNROLL
        for (int i = 0; i < panels * PARTS; i++) {
            V gate[4], *of = total + i / PARTS * gates * PARTS + i % PARTS;
            FRNN_UNROLL
            for (int g = 0; g < gates; g++)
                gate[g] = of[g * PARTS];
            if (FN(has_new_gate)(kind))
                gate[3] = new_x[i];
            if (first.left <= i * VL)
                continue;
            const FN(units) units = {first.h_prev + i * VL, first.h + i * VL,
                                     kind == FRNN_LSTM ? first.c + i * VL : NULL, first.left - i * VL};
            if (is_h)
                GN(finish_h)(kind, gate, units);
            else
                GN(begin_h)(kind, gate, units);
            if (FN(has_new_gate)(kind))
                of[2 * PARTS] = gate[2];
        }
}
#endif

/* ---------------------------------------------------------------- any number of rows */

/* acc (n, width) = bias + x W_ih^T. */
static inline void WN(project_bundle)(const frnn_cell *cell, frnn_bundle bundle, ptrdiff_t n, WN(operand) x, T *acc,
                                      int is_far)
{
    WN(product)(n, cell->w_ih.columns, x, WN(weights_of)(&cell->w_ih, bundle), bundle.width,
                (const T *)cell->bias + bundle.offset, 0, acc, is_far);
}

/* What x gives the n gate of a GRU goes to new_x (n, panels, 16), and bias_hn takes its place. */
static inline void WN(part_new_gate)(const frnn_cell *cell, frnn_bundle bundle, ptrdiff_t n, T *acc, T *new_x)
{
    const T *bias = (const T *)cell->bias_hn + bundle.panel * FRNN_PANEL;
    for (ptrdiff_t m = 0; m < n; m++, acc += bundle.width)
        for (ptrdiff_t i = 0; i < bundle.panels; i++, new_x += FRNN_PANEL)
            for (ptrdiff_t j = 0; j < FRNN_PANEL; j += VL) {
                T *gate = acc + (3 * i + 2) * FRNN_PANEL + j;
                v_store(new_x + j, v_load(gate));
                v_store(gate, v_load(bias + i * FRNN_PANEL + j));
            }
}

/* The VL units of all rows from `unit` on, `left` of which exist. */
static FRNN_INLINE void WN(finish_rows)(const frnn_kind kind, const int gates, const ptrdiff_t left,
                                        const WN(context) *context, frnn_bundle bundle, const ptrdiff_t unit,
                                        T *acc, const T *new_x)
{
    const ptrdiff_t n = context->step->n;
    FRNN_UNROLL
    for (int is_h = !FN(has_first_half)(kind); is_h < 2; is_h++)
        for (ptrdiff_t m = 0; m < n; m++) {
            FN(units) units = WN(units_at)(context, m, unit);
            V gate[4];
            units.left = left;
            FRNN_UNROLL
            for (int g = 0; g < gates; g++)
                gate[g] = v_load(acc + m * bundle.width + g * FRNN_PANEL);
            if (FN(has_new_gate)(kind))
                gate[3] = v_load(new_x + m * bundle.panels * FRNN_PANEL);
            if (is_h)
                GN(finish_h)(kind, gate, units);
            else
                GN(begin_h)(kind, gate, units);
            if (FN(has_new_gate)(kind) && !is_h)
                v_store(acc + m * bundle.width + 2 * FRNN_PANEL, gate[2]);
        }
}

/* A bundle for any number of rows. */
static FRNN_INLINE void WN(rows_bundle)(const frnn_kind kind, const int gates, const WN(context) *context,
                                        frnn_bundle bundle)
{
    const frnn_cell *cell = context->cell;
    const frnn_step *step = context->step;
    const ptrdiff_t n = step->n, H = cell->hidden_size;
    T *acc = (T *)step->gates + bundle.offset * step->rows + step->row * bundle.width;
    T *new_x = context->scratch;
    if (step->x != NULL)
        WN(project_bundle)(cell, bundle, n, context->x, acc, context->is_far);
    if (FN(has_new_gate)(kind))
        WN(part_new_gate)(cell, bundle, n, acc, new_x);
    WN(product)(n, cell->w_hh.columns, context->h_prev, WN(weights_of)(&cell->w_hh, bundle), bundle.width, acc,
                bundle.width, acc, context->is_far);
    for (ptrdiff_t i = 0; i < bundle.panels; i++)
        for (ptrdiff_t j = 0; j < FRNN_PANEL && (bundle.panel + i) * FRNN_PANEL + j < H; j += VL) {
            const ptrdiff_t unit = (bundle.panel + i) * FRNN_PANEL + j;
            T *gates_of = acc + i * gates * FRNN_PANEL + j;
            const T *new_of = FN(has_new_gate)(kind) ? new_x + i * FRNN_PANEL + j : NULL;
            if (H - unit >= VL)
                WN(finish_rows)(kind, gates, VL, context, bundle, unit, gates_of, new_of);
            else
                WN(finish_rows)(kind, gates, H - unit, context, bundle, unit, gates_of, new_of);
        }
}

/* ---------------------------------------------------------------- a step */

/* A bundle of at most `most` panels, a constant, for a lone row: in registers where they hold its sums. */
static FRNN_INLINE void WN(row_bundle)(const frnn_kind kind, const int gates, const int most,
                                       const WN(context) *context, frnn_bundle bundle)
{
#if FRNN_HAS_LONE
    const int held = FRNN_SUMS * VL / FRNN_PANEL / gates, limit = held < most ? held : most;
    if (limit >= 1 && bundle.panels == 1)
        WN(lone_bundle)(kind, gates, 1, context, bundle);
    else if (limit >= 2 && bundle.panels == 2)
        WN(lone_bundle)(kind, gates, 2, context, bundle);
    else if (limit >= 3 && bundle.panels == 3)
        WN(lone_bundle)(kind, gates, 3, context, bundle);
    else if (limit >= 4 && bundle.panels == 4)
        WN(lone_bundle)(kind, gates, 4, context, bundle);
    else
#else
    (void)most;
#endif
        WN(rows_bundle)(kind, gates, context, bundle);
}

/* A step without the projection of h. */
static FRNN_INLINE void WN(step_of)(const frnn_kind kind, const int gates, const int most, const WN(context) *context)
{
    const frnn_step *step = context->step;
    for (ptrdiff_t i = step->first; i < step->last; i++) {
        const ptrdiff_t index = step->is_odd ? step->first + step->last - 1 - i : i;
        const frnn_bundle bundle = FN(bundle_at)(gates, context->cell->hidden_size, index);
        if (step->n == 1)
            WN(row_bundle)(kind, gates, most, context, bundle);
        else
            WN(rows_bundle)(kind, gates, context, bundle);
    }
}

/* out (n, left) = bias + x W^T for at most DENSE_ROWS rows and a bundle of a matrix. */
static void WN(dense_bundle)(const frnn_matrix *matrix, frnn_bundle bundle, ptrdiff_t left, ptrdiff_t n,
                             WN(operand) rows, const T *bias, T *out, ptrdiff_t ldo, int is_far)
{
    T acc[WN(DENSE_ROWS) * FRNN_DENSE_WIDTH], room[WN(DENSE_ROWS) * WN(APART)];
    WN(lay_apart_in)(room, n, &rows);
    WN(product)(n, matrix->columns, rows, WN(weights_of)(matrix, bundle), bundle.width, bias, 0, acc, is_far);
    for (ptrdiff_t m = 0; m < n; m++)
        memcpy(out + m * ldo, acc + m * bundle.width, left * sizeof(T));
}

/* Each bundle of weights meets as many rows as stay near, so that far weights are read rarely. */
static void WN(dense)(const frnn_matrix *matrix, ptrdiff_t n, const void *x, ptrdiff_t ldx, const void *bias, void *out,
                      ptrdiff_t ldo, void *scratch)
{
    const T zeros[FRNN_DENSE_WIDTH] = {0};
    const ptrdiff_t outputs = matrix->rows;
    const int is_far = n > FRNN_FEW && matrix->columns * outputs * (ptrdiff_t)sizeof(W) > FRNN_NEAR;
    const ptrdiff_t most = WN(most_rows)(matrix->columns, n, ldx, is_far);
    for (ptrdiff_t begin = 0; begin < n; begin += most) {
        const ptrdiff_t end = n - begin < most ? n : begin + most;
        const WN(operand) all = WN(arranged)(matrix->columns, end - begin, (const T *)x + begin * ldx, ldx, scratch);
        for (ptrdiff_t first = 0; first < outputs; first += FRNN_DENSE_WIDTH) {
            const frnn_bundle bundle = frnn_bundle_of(outputs, 1, FRNN_DENSE_BUNDLE, first / FRNN_DENSE_WIDTH);
            const ptrdiff_t left = outputs - first < FRNN_DENSE_WIDTH ? outputs - first : FRNN_DENSE_WIDTH;
            const T *from = bias == NULL ? zeros : (const T *)bias + first;
            for (ptrdiff_t m = begin, rows; m < end; m += rows) {
                rows = frnn_equal_part(end - m, WN(DENSE_ROWS));
                WN(dense_bundle)(matrix, bundle, left, rows, WN(from_row)(all, m - begin), from,
                                 (T *)out + m * ldo + first, ldo, is_far);
            }
        }
    }
}

/* ---------------------------------------------------------------- what drivers call */

static void WN(project)(const frnn_cell *cell, ptrdiff_t first, ptrdiff_t last, ptrdiff_t n, const void *x,
                        ptrdiff_t ldx, void *gates, void *scratch)
{
    const int is_far = WN(is_far)(cell, n, cell->input_size);
    T *free = scratch;
    WN(operand) rows = WN(as_they_lie)(x, ldx);
    WN(arrange)(cell, n, cell->input_size, 0, &rows, &free);
    for (ptrdiff_t index = first; index < last; index++) {
        const frnn_bundle bundle = FN(bundle_at)(cell->gates, cell->hidden_size, index);
        WN(project_bundle)(cell, bundle, n, rows, (T *)gates + bundle.offset * n, is_far);
    }
}

static void WN(step)(const frnn_cell *cell, const frnn_step *step)
{
    const ptrdiff_t n = step->n, H = cell->hidden_size, I = cell->input_size, P = cell->output_size;
    WN(context) context = {cell, step, step->h_next, step->ld_next, WN(as_they_lie)(step->x, step->ldx),
                           WN(as_they_lie)(step->h_prev, step->ld_prev), step->scratch,
                           WN(is_far)(cell, n, P + (step->x == NULL ? 0 : I))};
    if (step->x != NULL)
        WN(arrange)(cell, n, I, 0, &context.x, &context.scratch);
    WN(arrange)(cell, n, P, FN(is_bounded)(cell), &context.h_prev, &context.scratch);
    if (cell->w_hr.data != NULL) {
        context.h = context.scratch;
        context.ldh = FN(apart)(H);
    }
    switch (cell->kind) {
    case FRNN_LSTM: WN(step_of)(FRNN_LSTM, FRNN_GATES_OF(FRNN_LSTM), 2, &context); break;
    case FRNN_GRU: WN(step_of)(FRNN_GRU, FRNN_GATES_OF(FRNN_GRU), 2, &context); break;
    case FRNN_RNN_TANH: WN(step_of)(FRNN_RNN_TANH, FRNN_GATES_OF(FRNN_RNN_TANH), 4, &context); break;
    default: WN(step_of)(FRNN_RNN_RELU, FRNN_GATES_OF(FRNN_RNN_RELU), 4, &context); break;
    }
    if (cell->w_hr.data != NULL)
        cell->w_hr.products->dense(&cell->w_hr, n, context.h, context.ldh, NULL, step->h_next, step->ld_next,
                                   context.scratch + n * context.ldh);
}

static size_t WN(project_bytes)(const frnn_cell *cell, ptrdiff_t n)
{
    return (size_t)WN(room)(cell, n, cell->input_size) * sizeof(T);
}

static size_t WN(step_bytes)(const frnn_cell *cell, ptrdiff_t n)
{
    ptrdiff_t room = WN(room)(cell, n, cell->input_size) + WN(room)(cell, n, cell->output_size);
    if (FN(has_new_gate)(cell->kind))
        room += n * FN(part_units)(cell);
    if (cell->w_hr.data == NULL)
        return (size_t)room * sizeof(T);
    room += n * FN(apart)(cell->hidden_size);
    return (size_t)room * sizeof(T) + cell->w_hr.products->dense_bytes(&cell->w_hr, n);
}

static size_t WN(dense_bytes)(const frnn_matrix *matrix, ptrdiff_t n)
{
    return WN(arranged_bytes)(matrix->columns, n);
}
