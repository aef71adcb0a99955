/* Every kernel on pieces of memory that are exactly as large as the contract says (backend.h), for the address
 * sanitizer to watch. The argument is the name of an instruction set. What is computed, other tests look at. */
#include "simd/kernels.c"

#include <stdio.h>
#include <stdlib.h>

static const ptrdiff_t SIZES[] = {1, 15, 17, 33, 65, 256, 300}, ROWS[] = {1, 2, 7, 13};
#define EACH(i, of) (size_t i = 0; i < sizeof(of) / sizeof *(of); i++)

static long cases;

/* This many numbers, all of them 0.01. */
static void *numbers(frnn_arithmetic arithmetic, ptrdiff_t count)
{
    void *piece = malloc(count * frnn_arithmetic_bytes(arithmetic));
    for (ptrdiff_t i = 0; i < count; i++)
        if (arithmetic == FRNN_F32)
            ((float *)piece)[i] = 0.01f;
        else
            ((double *)piece)[i] = 0.01;
    return piece;
}

/* A piece of its own for a part of packed memory, so that nothing can be read past its end. */
static const void *apart(const void *part, ptrdiff_t bytes)
{
    return part == NULL ? NULL : memcpy(malloc(bytes), part, bytes);
}

/* A cell whose weights and biases each have a piece of their own. */
static frnn_cell pack_apart(const frnn_backend *table, frnn_kind kind, ptrdiff_t I, ptrdiff_t H, ptrdiff_t P)
{
    const frnn_arithmetic arithmetic = table->arithmetic;
    const ptrdiff_t gates = FRNN_GATES_OF(kind), units = frnn_panels(H) * FRNN_PANEL;
    const ptrdiff_t item = frnn_arithmetic_bytes(arithmetic), weight = frnn_format_bytes(table->format);
    const frnn_weights weights = {
        numbers(arithmetic, gates * H * I), kind == FRNN_DENSE ? NULL : numbers(arithmetic, gates * H * P),
        P == H ? NULL : numbers(arithmetic, P * H), numbers(arithmetic, gates * H),
        kind == FRNN_GRU ? numbers(arithmetic, H) : NULL,
    };
    frnn_cell cell = {.kind = kind, .arithmetic = arithmetic, .input_size = I, .hidden_size = H, .output_size = P,
                      .gates = gates};
    const size_t size = table->pack(&cell, &weights, NULL);
    void *memory = aligned_alloc(FRNN_LINE, size);
    if (table->pack(&cell, &weights, memory) != size)
        abort();
    cell.w_ih.data = apart(cell.w_ih.data, units * gates * I * weight);
    cell.w_hh.data = apart(cell.w_hh.data, units * gates * P * weight);
    cell.w_hr.data = apart(cell.w_hr.data, frnn_panels(P) * FRNN_PANEL * H * weight);
    cell.bias = apart(cell.bias, units * gates * item);
    cell.bias_hn = apart(cell.bias_hn, units * item);
    free((void *)weights.w_ih), free((void *)weights.w_hh), free((void *)weights.w_hr);
    free((void *)weights.bias), free((void *)weights.bias_hn), free(memory);
    return cell;
}

static void free_cell(const frnn_cell *cell)
{
    free((void *)cell->w_ih.data), free((void *)cell->w_hh.data), free((void *)cell->w_hr.data);
    free((void *)cell->bias), free((void *)cell->bias_hn);
}

/* A distance of rows of this many columns: as they are, or so that they crowd. */
static ptrdiff_t distance(ptrdiff_t columns, int is_crowd)
{
    return is_crowd ? (columns + 511) / 512 * 512 : columns;
}

/* One step, with its inputs or after its projection, of all parts or of the last. */
static void make_step(const frnn_backend *table, const frnn_cell *cell, ptrdiff_t n, int is_crowd, int is_projected,
                      int is_part)
{
    const ptrdiff_t ldx = distance(cell->input_size, is_crowd), ldh = distance(cell->output_size, is_crowd);
    const ptrdiff_t units = table->part_units(cell), last = (cell->hidden_size + units - 1) / units;
    const ptrdiff_t first = is_part && cell->w_hr.data == NULL ? last - 1 : 0;
    void *x = numbers(cell->arithmetic, (n - 1) * ldx + cell->input_size);
    void *h_prev = numbers(cell->arithmetic, (n - 1) * ldh + cell->output_size);
    void *h_next = numbers(cell->arithmetic, (n - 1) * ldh + cell->output_size);
    const ptrdiff_t ldc = cell->hidden_size + is_crowd;
    void *c = cell->kind == FRNN_LSTM ? numbers(cell->arithmetic, (n - 1) * ldc + cell->hidden_size) : NULL;
    ptrdiff_t *order = malloc(n * sizeof *order);
    for (ptrdiff_t m = 0; m < n; m++)
        order[m] = n - 1 - m;
    void *gates = numbers(cell->arithmetic, n * table->gate_width(cell));
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

static void make_steps(const frnn_backend *table, frnn_kind kind, ptrdiff_t I, ptrdiff_t H, ptrdiff_t P)
{
    const frnn_cell cell = pack_apart(table, kind, I, H, P);
    for (ptrdiff_t n = 2; n < 20; n++)
        if (table->project_bytes(&cell, n) < table->project_bytes(&cell, n - 1)
            || table->step_bytes(&cell, n) < table->step_bytes(&cell, n - 1))
            abort(); /* the drivers make steps of fewer rows in the same scratch */
    for EACH (i, ROWS)
        for (int variant = 0; variant < 8; variant++)
            make_step(table, &cell, ROWS[i], variant % 2, variant / 2 % 2, variant / 4);
    free_cell(&cell);
}

static void project_alone(const frnn_backend *table, ptrdiff_t I, ptrdiff_t H, ptrdiff_t n)
{
    const frnn_cell cell = pack_apart(table, FRNN_DENSE, I, H, H);
    void *x = numbers(table->arithmetic, n * I), *out = numbers(table->arithmetic, n * H);
    table->dense(&cell, n, x, I, out, H);
    cases++;
    free_cell(&cell), free(x), free(out);
}

static void make_rows(const frnn_backend *table, frnn_row_kind kind, ptrdiff_t features, ptrdiff_t n)
{
    const frnn_arithmetic type = table->arithmetic;
    const int is_norm = kind == FRNN_LAYER_NORM;
    void *weight = is_norm ? numbers(type, features) : NULL, *bias = is_norm ? numbers(type, features) : NULL;
    void *x = numbers(type, n * features), *y = numbers(type, n * features);
    const frnn_rows rows = {kind, features, weight, bias, 1e-5};
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
    for (const frnn_backend *const *next = isa->tables; *next != NULL; next++) {
        const frnn_backend *table = *next;
        for EACH (i, SIZES)
            for EACH (j, SIZES) {
                const ptrdiff_t I = SIZES[i], H = SIZES[j];
                for (int kind = FRNN_RNN_TANH; kind <= FRNN_LSTM; kind++)
                    make_steps(table, (frnn_kind)kind, I, H, H);
                if (H > 1)
                    make_steps(table, FRNN_LSTM, I, H, H / 2);
                for EACH (m, ROWS)
                    project_alone(table, I, H, ROWS[m]);
            }
        make_steps(table, FRNN_LSTM, 17, 272, 272); /* far: more than the second-level cache */
        for EACH (i, SIZES)
            for EACH (m, ROWS)
                for (int kind = FRNN_RELU; kind <= FRNN_LAYER_NORM; kind++)
                    make_rows(table, (frnn_row_kind)kind, SIZES[i], ROWS[m]);
    }
    printf("%ld cases\n", cases);
    return 0;
}
