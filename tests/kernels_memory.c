/* Every kernel on blocks of memory that are exactly as large as the contract says (kernels.h), for the address
 * sanitizer to watch: one instruction set's name is the argument. What is computed, other tests look at. */
#include "simd/kernels.c"

#include <stdio.h>
#include <stdlib.h>

static const ptrdiff_t SIZES[] = {1, 15, 17, 33, 65, 256, 300}, ROWS[] = {1, 2, 7, 13};
#define EACH(i, of) (size_t i = 0; i < sizeof(of) / sizeof *(of); i++)

static long cases;

/* So many numbers of a dtype, all of them 0.01. */
static void *numbers(frnn_dtype dtype, ptrdiff_t count)
{
    void *block = malloc(count * (dtype == FRNN_F32 ? sizeof(float) : sizeof(double)));
    for (ptrdiff_t i = 0; i < count; i++)
        if (dtype == FRNN_F32)
            ((float *)block)[i] = 0.01f;
        else
            ((double *)block)[i] = 0.01;
    return block;
}

/* A distance of rows of so many columns: as they are, or so that they crowd. */
static ptrdiff_t distance(ptrdiff_t columns, int is_crowd)
{
    return is_crowd ? (columns + 511) / 512 * 512 : columns;
}

/* One step, with its inputs or behind its projection, of all parts or of the last. */
static void make_step(const frnn_backend *table, const frnn_cell *cell, ptrdiff_t n, int is_crowd, int is_projected,
                      int is_part)
{
    const ptrdiff_t ldx = distance(cell->input_size, is_crowd), ldh = distance(cell->output_size, is_crowd);
    const ptrdiff_t units = table->part_units(cell), last = (cell->hidden_size + units - 1) / units;
    const ptrdiff_t first = is_part && cell->w_hr == NULL ? last - 1 : 0;
    void *x = numbers(cell->dtype, (n - 1) * ldx + cell->input_size);
    void *h_prev = numbers(cell->dtype, (n - 1) * ldh + cell->output_size);
    void *h_next = numbers(cell->dtype, (n - 1) * ldh + cell->output_size);
    const ptrdiff_t ldc = cell->hidden_size + is_crowd;
    void *c = cell->kind == FRNN_LSTM ? numbers(cell->dtype, (n - 1) * ldc + cell->hidden_size) : NULL;
    ptrdiff_t *order = malloc(n * sizeof *order);
    for (ptrdiff_t m = 0; m < n; m++)
        order[m] = n - 1 - m;
    void *gates = numbers(cell->dtype, n * table->gate_width(cell));
    void *project_scratch = malloc(table->project_bytes(cell, n)), *scratch = malloc(table->step_bytes(cell, n));
    if (is_projected)
        table->project(cell, first, last, n, x, ldx, gates, project_scratch);
    const frnn_step step = {n, is_projected ? NULL : x, ldx, gates, n, 0, h_prev, ldh, h_next, ldh, c, ldc,
                            is_crowd ? order : NULL, scratch, first, last, (int)(n % 2)};
    table->step(cell, &step);
    cases++;
    free(x), free(h_prev), free(h_next), free(c), free(order), free(gates);
    free(project_scratch), free(scratch);
}

static void make_steps(const frnn_backend *table, frnn_dtype dtype, frnn_kind kind, ptrdiff_t I, ptrdiff_t H,
                       ptrdiff_t P)
{
    const ptrdiff_t gates = kind == FRNN_LSTM ? 4 : kind == FRNN_GRU ? 3 : 1;
    const ptrdiff_t units = (H + FRNN_PANEL - 1) / FRNN_PANEL * FRNN_PANEL;
    const ptrdiff_t outputs = (P + FRNN_PANEL - 1) / FRNN_PANEL * FRNN_PANEL;
    const frnn_cell cell = {
        kind, dtype, I, H, P, gates, table->block(kind, H), numbers(dtype, units * gates * I),
        numbers(dtype, units * gates * P), P == H ? NULL : numbers(dtype, outputs * H),
        numbers(dtype, units * gates), kind == FRNN_GRU ? numbers(dtype, units) : NULL,
    };
    for (ptrdiff_t n = 2; n < 20; n++)
        if (table->project_bytes(&cell, n) < table->project_bytes(&cell, n - 1)
            || table->step_bytes(&cell, n) < table->step_bytes(&cell, n - 1))
            abort(); /* the drivers make steps of fewer rows in the same scratch */
    for EACH (i, ROWS)
        for (int variant = 0; variant < 8; variant++)
            make_step(table, &cell, ROWS[i], variant % 2, variant / 2 % 2, variant / 4);
    free((void *)cell.w_ih), free((void *)cell.w_hh), free((void *)cell.w_hr);
    free((void *)cell.bias), free((void *)cell.bias_hn);
}

static void project_alone(const frnn_backend *table, frnn_dtype dtype, ptrdiff_t I, ptrdiff_t H, ptrdiff_t n)
{
    const ptrdiff_t outputs = (H + FRNN_PANEL - 1) / FRNN_PANEL * FRNN_PANEL;
    void *x = numbers(dtype, n * I), *out = numbers(dtype, n * H);
    const frnn_cell cell = {
        FRNN_DENSE, dtype, I, H, H, 1, FRNN_DENSE_BLOCK, numbers(dtype, outputs * I), NULL, NULL,
        numbers(dtype, outputs), NULL,
    };
    table->dense(&cell, n, x, I, out, H);
    cases++;
    free((void *)cell.w_ih), free((void *)cell.bias), free(x), free(out);
}

static void make_rows(const frnn_backend *table, frnn_dtype dtype, frnn_row_kind kind, ptrdiff_t features,
                      ptrdiff_t n)
{
    const int is_norm = kind == FRNN_LAYER_NORM;
    void *weight = is_norm ? numbers(dtype, features) : NULL, *bias = is_norm ? numbers(dtype, features) : NULL;
    void *x = numbers(dtype, n * features), *y = numbers(dtype, n * features);
    const frnn_rows rows = {kind, dtype, features, weight, bias, 1e-5};
    table->rows(&rows, n, x, y);
    cases++;
    free(weight), free(bias), free(x), free(y);
}

int main(int count, char **names)
{
    const frnn_isa *isa = frnn_isas;
    while (count > 1 && isa->name != NULL && strcmp(isa->name, names[1]) != 0)
        isa++;
    if (isa->name == NULL || !isa->is_there())
        return 2;
    for (int type = FRNN_F32; type <= FRNN_F64; type++) {
        const frnn_dtype dtype = (frnn_dtype)type;
        const frnn_backend *table = isa->tables[dtype];
        for EACH (i, SIZES)
            for EACH (j, SIZES) {
                const ptrdiff_t I = SIZES[i], H = SIZES[j];
                for (int kind = FRNN_RNN_TANH; kind <= FRNN_LSTM; kind++)
                    make_steps(table, dtype, (frnn_kind)kind, I, H, H);
                if (H > 1)
                    make_steps(table, dtype, FRNN_LSTM, I, H, H / 2);
                for EACH (m, ROWS)
                    project_alone(table, dtype, I, H, ROWS[m]);
            }
        make_steps(table, dtype, FRNN_LSTM, 17, 272, 272); /* far: more than the second-level cache */
        for EACH (i, SIZES)
            for EACH (m, ROWS)
                for (int kind = FRNN_RELU; kind <= FRNN_LAYER_NORM; kind++)
                    make_rows(table, dtype, (frnn_row_kind)kind, SIZES[i], ROWS[m]);
    }
    printf("%ld cases\n", cases);
    return 0;
}
