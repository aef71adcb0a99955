/* Every kernel on pieces of memory that are exactly as large as the contract says (backend.h), for the address
 * sanitizer to watch. The argument is the name of an instruction set: products that a plainer one has too are left to
 * that. What is computed, other tests look at.
 *
 * With the name of a piece of memory as well, and the number of a table, those pieces of its products lack their last
 * byte, which the sanitizer has to find. */
#include "simd/targets.h"
#include "simd/tiles.h"

#if defined(FRNN_AMX)
/* The sanitizer does not see what tiles read and write: every byte of theirs is read here before. */
FRNN_TARGET("amx-tile")
static void watch_tile(int tile, const void *from, ptrdiff_t stride)
{
    const int rows = tile < 6 ? frnn_tile_rows : 16;
    for (int m = 0; m < rows; m++)
        for (int i = 0; i < 64; i++)
            (void)((const volatile char *)from)[m * stride + i];
}

#define CASES(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define LOAD(TILE) case TILE: _tile_loadd(TILE, at, stride); break;
#define STORE(TILE) case TILE: _tile_stored(TILE, at, stride); break;

static void load_watched(int tile, const void *at, ptrdiff_t stride)
{
    watch_tile(tile, at, stride);
    switch (tile) { CASES(LOAD) }
}

static void store_watched(int tile, void *at, ptrdiff_t stride)
{
    watch_tile(tile, at, stride);
    switch (tile) { CASES(STORE) }
}
FRNN_END_TARGET

#undef _tile_loadd
#undef _tile_stored
#define _tile_loadd load_watched
#define _tile_stored store_watched
#endif

/* Functions stay functions: a tenth of the time to compile, and they read and write the same. */
#undef FRNN_INLINE
#define FRNN_INLINE inline
#undef FRNN_UNROLL
#define FRNN_UNROLL

#include "simd/kernels.c"

#include <stdio.h>
#include <stdlib.h>

static const ptrdiff_t SIZES[] = {1, 15, 17, 33, 65, 256, 300}, ROWS[] = {1, 2, 7, 13}, ROWS_OF_TILES[] = {1, 2, 31, 35};
#define EACH(i, of) (size_t i = 0; i < sizeof(of) / sizeof *(of); i++)

static long cases;
static const char *short_piece = "none";

/* A copy of its own, so that nothing can be read past its end. */
static void *apart(const char *name, const void *part, ptrdiff_t bytes)
{
    const ptrdiff_t there = bytes - (strcmp(name, short_piece) == 0);
    return part == NULL ? NULL : memcpy(malloc(there), part, there);
}

/* This many numbers, all of them 0.01. */
static void *numbers(const char *name, frnn_arithmetic arithmetic, ptrdiff_t count)
{
    const ptrdiff_t bytes = count * frnn_arithmetic_bytes(arithmetic);
    void *whole = malloc(bytes), *piece;
    for (ptrdiff_t i = 0; i < count; i++)
        if (arithmetic == FRNN_F32)
            ((float *)whole)[i] = 0.01f;
        else
            ((double *)whole)[i] = 0.01;
    piece = apart(name, whole, bytes);
    free(whole);
    return piece;
}

static frnn_matrix pack_matrix(const frnn_products *products, ptrdiff_t units, ptrdiff_t gates, ptrdiff_t columns)
{
    frnn_matrix matrix = {.products = products, .rows = gates * units, .columns = columns, .gates = gates};
    const frnn_arithmetic arithmetic = products->backend->arithmetic;
    void *rows = numbers("", arithmetic, gates * units * columns);
    const frnn_source source = {rows, arithmetic == FRNN_F32 ? FRNN_STORED_F32 : FRNN_STORED_F64, NULL};
    const size_t size = products->pack(&matrix, &source, NULL);
    void *memory = aligned_alloc(FRNN_LINE, size);
    if (products->pack(&matrix, &source, memory) != size || matrix.data != memory)
        abort();
    /* Narrow weights lie in tiles of 16 groups. */
    const ptrdiff_t block = products->format.group_k == 1 ? 1 : 16 * products->format.group_k;
    const ptrdiff_t outputs = frnn_panels(units) * FRNN_PANEL * gates, whole = (columns + block - 1) / block * block;
    matrix.data = apart("weights", memory, outputs * whole * frnn_format_bytes(products->format));
    matrix.scales = apart("scales", matrix.scales, outputs * sizeof(float));
    matrix.sums = apart("sums", matrix.sums, outputs * sizeof(int32_t));
    free(rows), free(memory);
    return matrix;
}

/* A cell whose weights and biases each have a piece of their own. */
static frnn_cell pack_apart(const frnn_products *products, frnn_kind kind, ptrdiff_t I, ptrdiff_t H, ptrdiff_t P)
{
    const frnn_arithmetic arithmetic = products->backend->arithmetic;
    const ptrdiff_t gates = FRNN_GATES_OF(kind), units = frnn_panels(H) * FRNN_PANEL;
    const ptrdiff_t item = frnn_arithmetic_bytes(arithmetic);
    frnn_cell cell = {.kind = kind, .arithmetic = arithmetic, .input_size = I, .hidden_size = H, .output_size = P,
                      .gates = gates};
    void *bias = numbers("", arithmetic, gates * H), *bias_hn = kind == FRNN_GRU ? numbers("", arithmetic, H) : NULL;
    const size_t size = products->backend->pack_biases(&cell, bias, bias_hn, NULL);
    void *memory = aligned_alloc(FRNN_LINE, size);
    if (products->backend->pack_biases(&cell, bias, bias_hn, memory) != size)
        abort();
    cell.bias = apart("bias", cell.bias, units * gates * item);
    cell.bias_hn = apart("bias", cell.bias_hn, units * item);
    free(bias), free(bias_hn), free(memory);
    cell.w_ih = pack_matrix(products, H, gates, I);
    if (kind != FRNN_DENSE)
        cell.w_hh = pack_matrix(products, H, gates, P);
    if (P != H)
        cell.w_hr = pack_matrix(products, P, 1, H);
    return cell;
}

static void free_matrix(const frnn_matrix *matrix)
{
    free((void *)matrix->data), free((void *)matrix->scales), free((void *)matrix->sums);
}

static void free_cell(const frnn_cell *cell)
{
    free_matrix(&cell->w_ih), free_matrix(&cell->w_hh), free_matrix(&cell->w_hr);
    free((void *)cell->bias), free((void *)cell->bias_hn);
}

/* A distance of rows of this many columns: as they are, or so that they crowd. */
static ptrdiff_t distance(ptrdiff_t columns, int is_crowd)
{
    return is_crowd ? (columns + 511) / 512 * 512 : columns;
}

/* One step, with its inputs or after its projection, of all parts or of the last. */
static void make_step(const frnn_products *products, const frnn_cell *cell, ptrdiff_t n, int is_crowd, int is_projected,
                      int is_part)
{
    const ptrdiff_t ldx = distance(cell->input_size, is_crowd), ldh = distance(cell->output_size, is_crowd);
    const ptrdiff_t units = products->backend->part_units(cell), last = (cell->hidden_size + units - 1) / units;
    const ptrdiff_t first = is_part && cell->w_hr.data == NULL ? last - 1 : 0;
    void *x = numbers("x", cell->arithmetic, (n - 1) * ldx + cell->input_size);
    void *h_prev = numbers("h", cell->arithmetic, (n - 1) * ldh + cell->output_size);
    void *h_next = numbers("next h", cell->arithmetic, (n - 1) * ldh + cell->output_size);
    const ptrdiff_t ldc = cell->hidden_size + is_crowd;
    void *c = cell->kind == FRNN_LSTM ? numbers("c", cell->arithmetic, (n - 1) * ldc + cell->hidden_size) : NULL;
    ptrdiff_t *order = malloc(n * sizeof *order);
    for (ptrdiff_t m = 0; m < n; m++)
        order[m] = n - 1 - m;
    void *gates = numbers("gates", cell->arithmetic, n * products->backend->gate_width(cell));
    void *project_scratch = malloc(products->project_bytes(cell, n)), *scratch = malloc(products->step_bytes(cell, n));
    if (is_projected)
        products->project(cell, first, last, n, x, ldx, gates, project_scratch);
    const frnn_step step = {n, is_projected ? NULL : x, ldx, gates, n, 0, h_prev, ldh, h_next, ldh, c, ldc,
                            is_crowd ? order : NULL, scratch, first, last, (int)(n % 2)};
    products->step(cell, &step);
    cases++;
    free(x), free(h_prev), free(h_next), free(c), free(order), free(gates);
    free(project_scratch), free(scratch);
}

static void make_steps(const frnn_products *products, const ptrdiff_t *rows, frnn_kind kind, ptrdiff_t I, ptrdiff_t H,
                       ptrdiff_t P)
{
    const frnn_cell cell = pack_apart(products, kind, I, H, P);
    for (ptrdiff_t n = 2; n < 40; n++)
        if (products->project_bytes(&cell, n) < products->project_bytes(&cell, n - 1)
            || products->step_bytes(&cell, n) < products->step_bytes(&cell, n - 1))
            abort(); /* the drivers make steps of fewer rows in the same scratch */
    for EACH (i, ROWS)
        for (int variant = 0; variant < 8; variant++)
            make_step(products, &cell, rows[i], variant % 2, variant / 2 % 2, variant / 4);
    free_cell(&cell);
}

static void project_alone(const frnn_products *products, ptrdiff_t I, ptrdiff_t H, ptrdiff_t n)
{
    const frnn_cell cell = pack_apart(products, FRNN_DENSE, I, H, H);
    void *x = numbers("x", cell.arithmetic, n * I), *out = numbers("out", cell.arithmetic, n * H);
    void *scratch = malloc(products->dense_bytes(&cell.w_ih, n));
    products->dense(&cell.w_ih, n, x, I, cell.bias, out, H, scratch);
    cases++;
    free_cell(&cell), free(x), free(out), free(scratch);
}

static void make_rows(const frnn_backend *table, frnn_row_kind kind, ptrdiff_t features, ptrdiff_t n)
{
    const frnn_arithmetic type = table->arithmetic;
    const int is_norm = kind == FRNN_LAYER_NORM;
    void *weight = is_norm ? numbers("", type, features) : NULL, *bias = is_norm ? numbers("", type, features) : NULL;
    void *x = numbers("", type, n * features), *y = numbers("", type, n * features);
    const frnn_rows rows = {kind, features, weight, bias, 1e-5};
    table->rows(&rows, n, x, y);
    cases++;
    free(weight), free(bias), free(x), free(y);
}

/* All cells of these sizes, and layers without gates. */
static void make_all(const frnn_products *products, const ptrdiff_t *rows, ptrdiff_t I, ptrdiff_t H)
{
    for (int kind = FRNN_RNN_TANH; kind <= FRNN_LSTM; kind++)
        make_steps(products, rows, (frnn_kind)kind, I, H, H);
    if (H > 1)
        make_steps(products, rows, FRNN_LSTM, I, H, H / 2);
    for EACH (m, ROWS)
        project_alone(products, I, H, rows[m]);
    project_alone(products, I, H, 67); /* more than are summed up at once */
}

/* Whether an instruction set before this one has the same products. */
static int are_of_another(const frnn_isa *isa, const frnn_products *products)
{
    for (const frnn_isa *other = frnn_isas; other != isa; other++)
        for (const frnn_products *const *next = other->products; *next != NULL; next++)
            if (*next == products)
                return 1;
    return 0;
}

int main(int count, char **names)
{
    const frnn_isa *isa = frnn_isas;
    while (count > 1 && isa->name != NULL && strcmp(isa->name, names[1]) != 0)
        isa++;
    if (isa->name == NULL || !isa->is_there() || (isa->may_be_used != NULL && !isa->may_be_used()))
        return 2;
    const ptrdiff_t *rows = strcmp(isa->name, "amx") == 0 ? ROWS_OF_TILES : ROWS;
    int tables = 0;
    const char *piece = count > 3 ? names[2] : "none";
    const int table = count > 3 ? atoi(names[3]) : 0;
    for (const frnn_products *const *next = isa->products; *next != NULL; next++) {
        const frnn_products *products = *next;
        if (are_of_another(isa, products))
            continue;
        short_piece = tables == table ? piece : "none";
        tables++;
        for EACH (i, SIZES)
            for EACH (j, SIZES) /* the products of wide cells take most of the time, and those of x are the same */
                if (SIZES[j] < 256 || SIZES[i] == (SIZES[j] == 256 ? 17 : 300))
                    make_all(products, rows, SIZES[i], SIZES[j]);
        make_steps(products, rows, FRNN_LSTM, 17, 272, 272); /* far: more than the second-level cache */
        for EACH (i, SIZES)
            for EACH (m, ROWS)
                for (int kind = FRNN_RELU; kind <= FRNN_LAYER_NORM; kind++)
                    make_rows(products->backend, (frnn_row_kind)kind, SIZES[i], ROWS[m]);
    }
    printf("%ld cases of %d products\n", cases, tables);
    return 0;
}
