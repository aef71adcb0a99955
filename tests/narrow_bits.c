/* What narrow products compute, for other_processors.py to compare: float32 numbers on the standard output. The
 * arguments are the name of an instruction set, and "sums" (of layers whose bits are the same with all of them) or
 * "steps" (of cells whose gates may differ in their last bits). */
#include "simd/kernels.c"

#include <stdio.h>
#include <stdlib.h>

static const ptrdiff_t COLUMNS[] = {1, 5, 31, 32, 33, 64, 65, 100, 130, 300};
static const ptrdiff_t UNITS[] = {1, 15, 16, 17, 40, 64, 70, 130};
static const ptrdiff_t ROWS[] = {1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33};
#define EACH(i, of) (size_t i = 0; i < sizeof(of) / sizeof *(of); i++)

static uint32_t seed = 1;

static uint32_t random_bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
    return seed;
}

/* From -size to size. */
static float *numbers(ptrdiff_t count, float size)
{
    float *piece = malloc(count * sizeof *piece);
    for (ptrdiff_t i = 0; i < count; i++)
        piece[i] = ((int32_t)(random_bits() >> 8) - (1 << 23)) * (size / (1 << 23));
    return piece;
}

/* Rows of all magnitudes: zeros, denormal and huge ones; with `no_numbers` also NaN and infinities. */
static float *rows_of_all_sizes(ptrdiff_t n, ptrdiff_t columns, int no_numbers)
{
    float *rows = numbers(n * columns, 1);
    for (ptrdiff_t m = 0; m < n; m++) {
        const float size = m % 3 == 0 ? 1 : m % 7 == 1 ? 0 : ldexpf(1, (int)(random_bits() % 250) - 140);
        for (ptrdiff_t k = 0; k < columns; k++)
            rows[m * columns + k] *= size;
        if (no_numbers && m % 5 == 4)
            rows[m * columns + random_bits() % columns] = m % 2 ? NAN : INFINITY;
    }
    return rows;
}

static frnn_matrix pack(const frnn_products *products, ptrdiff_t rows, ptrdiff_t gates, ptrdiff_t columns, float *source)
{
    frnn_matrix matrix = {.products = products, .rows = rows, .columns = columns, .gates = gates};
    const frnn_source from = {source, FRNN_STORED_F32, NULL};
    products->pack(&matrix, &from, aligned_alloc(FRNN_LINE, products->pack(&matrix, &from, NULL)));
    free(source);
    return matrix;
}

static void pack_biases(const frnn_products *products, frnn_cell *cell)
{
    float *bias = numbers(cell->gates * cell->hidden_size, 0.5f), *bias_hn = numbers(cell->hidden_size, 0.5f);
    const frnn_backend *backend = products->backend;
    const void *hn = cell->kind == FRNN_GRU ? bias_hn : NULL;
    backend->pack_biases(cell, bias, hn, aligned_alloc(FRNN_LINE, backend->pack_biases(cell, bias, hn, NULL)));
    free(bias), free(bias_hn);
}

static void put(ptrdiff_t count, const float *results)
{
    if (fwrite(results, sizeof *results, count, stdout) != (size_t)count)
        abort();
}

static void make_sums(const frnn_products *products, ptrdiff_t columns, ptrdiff_t units, ptrdiff_t n)
{
    frnn_cell cell = {.kind = FRNN_DENSE, .input_size = columns, .hidden_size = units, .output_size = units, .gates = 1};
    pack_biases(products, &cell);
    const frnn_matrix matrix = pack(products, units, 1, columns, rows_of_all_sizes(units, columns, 0));
    float *x = rows_of_all_sizes(n, columns, 1), *out = numbers(n * units, 1);
    void *scratch = malloc(products->dense_bytes(&matrix, n));
    const uint64_t before = products->backend->enter();
    products->dense(&matrix, n, x, columns, cell.bias, out, units, scratch);
    products->backend->leave(before);
    put(n * units, out);
    free(x), free(out), free(scratch), free((void *)matrix.data), free((void *)cell.bias);
}

/* Three steps, with their inputs or after their projection. */
static void make_steps(const frnn_products *products, frnn_kind kind, ptrdiff_t I, ptrdiff_t H, ptrdiff_t n)
{
    const ptrdiff_t G = FRNN_GATES_OF(kind);
    frnn_cell cell = {.kind = kind, .input_size = I, .hidden_size = H, .output_size = H, .gates = G};
    const float size = 1 / sqrtf((float)H);
    pack_biases(products, &cell);
    cell.w_ih = pack(products, G * H, G, I, numbers(G * H * I, size));
    cell.w_hh = pack(products, G * H, G, H, numbers(G * H * H, size));
    float *h[2] = {numbers(n * H, 1), numbers(n * H, 1)}, *c = numbers(n * H, 1);
    float *gates = numbers(n * products->backend->gate_width(&cell), 1);
    void *project_scratch = malloc(products->project_bytes(&cell, n)), *scratch = malloc(products->step_bytes(&cell, n));
    const ptrdiff_t part = products->backend->part_units(&cell), last = (H + part - 1) / part;
    for (int t = 0; t < 3; t++) {
        float *x = numbers(n * I, 1);
        const uint64_t before = products->backend->enter();
        if (t == 1)
            products->project(&cell, 0, last, n, x, I, gates, project_scratch);
        const frnn_step step = {n, t == 1 ? NULL : x, I, gates, n, 0, h[t % 2], H, h[1 - t % 2], H,
                                kind == FRNN_LSTM ? c : NULL, H, NULL, scratch, 0, last, t % 2};
        products->step(&cell, &step);
        products->backend->leave(before);
        put(n * H, h[1 - t % 2]);
        free(x);
    }
    if (kind == FRNN_LSTM)
        put(n * H, c);
    free((void *)cell.bias), free((void *)cell.w_ih.data), free((void *)cell.w_hh.data), free(h[0]), free(h[1]), free(c);
    free(gates), free(project_scratch), free(scratch);
}

int main(int count, char **words)
{
    const frnn_isa *isa = frnn_isas;
    while (count == 3 && isa->name != NULL && strcmp(isa->name, words[1]) != 0)
        isa++;
    if (isa->name == NULL || count != 3 || !isa->is_there() || (isa->may_be_used != NULL && !isa->may_be_used()))
        return 2;
    const int are_sums = strcmp(words[2], "sums") == 0;
    for (const frnn_products *const *next = isa->products; *next != NULL; next++) {
        const frnn_storage storage = (*next)->format.storage;
        if (storage == FRNN_STORED_F32 || storage == FRNN_STORED_F64)
            continue;
        for EACH (i, COLUMNS)
            for EACH (j, UNITS)
                for EACH (m, ROWS) {
                    if (are_sums) {
                        make_sums(*next, COLUMNS[i], UNITS[j], ROWS[m]);
                        make_steps(*next, FRNN_RNN_RELU, COLUMNS[i], UNITS[j], ROWS[m]);
                    } else if (i % 3 == 0) {
                        make_steps(*next, FRNN_RNN_TANH, COLUMNS[i], UNITS[j], ROWS[m]);
                        make_steps(*next, FRNN_GRU, COLUMNS[i], UNITS[j], ROWS[m]);
                        make_steps(*next, FRNN_LSTM, COLUMNS[i], UNITS[j], ROWS[m]);
                    }
                }
    }
    return 0;
}
