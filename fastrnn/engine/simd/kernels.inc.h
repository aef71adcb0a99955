/* The formulas, once, in the words of vec.h. kernels.c includes this file for every pair of dtype and
 * instruction set, with FN(name) giving each function its full name: frnn_f32_step__avx2.
 *
 * A panel is 16 units with all their gates, a block a few panels, so many that a lone row has enough sums
 * to hide the latency of the fused multiply-add. The weights of a block lie as (K, panels, G, 16), in chunks
 * of K, and a chunk strip by strip of a few columns. So products read memory as it lies, from the first byte
 * to the last, or as a few streams. A block's gates lie as (n, panels, G, 16), the rows of a batch together, so
 * that its units are finished while they are in the cache. `width` is panels * G * 16.
 *
 * Every output is a sum in one order, however many rows go together: bias, then the products with x,
 * then those with h, each in chunks that are summed one after the other from 0 and then added. So a row's
 * bits never depend on its batch (but for the sign of a NaN), and the rounding error of a long sum stays that of its
 * chunks.
 */

#include "functions.inc.h"

/* ---------------------------------------------------------------- products */

/* The vectors of a strip of a block of so many: as many as a tile is wide. All strips of a block are equal. */
#if FRNN_REGISTERS == 32
#define FRNN_STRIP(vectors) ((vectors) % 6 == 0 ? 6 : (vectors) < 4 ? (vectors) : 4)
#else
#define FRNN_STRIP(vectors) ((void)(vectors), 2)
#endif
/* The vectors that a lone row sums up in one pass: several, to hide the latency of a multiply-add, but of few
 * strips, each of which is a stream of memory for the processor to follow. A pass is cut in strips as its block
 * is: FRNN_STRIP(FRNN_PASS(vectors)) == FRNN_STRIP(vectors). */
#define FRNN_PASS(vectors)                                                                       \
    ((vectors) % 12 == 0 && FRNN_STRIP(vectors) == 6 ? 12                                        \
     : (vectors) % 8 == 0                            ? 8                                         \
     : (vectors) % 6 == 0                            ? 6                                         \
                                                     : (vectors))
/* The columns of a strip of a block of so many. */
static ptrdiff_t FN(strip_columns)(ptrdiff_t width)
{
    return FRNN_STRIP(width / VL) * VL;
}

/* Where vector v of a chunk of K rows lies. */
#define FRNN_PLACE(v, strip, K) ((v) / (strip) * (strip) * VL * (K) + (v) % (strip) * VL)

/* What a tile adds up: `rows` times `vectors` sums, at most 12 of 16 registers or 24 of 32. */
typedef struct FN(sums) {
    V of[FRNN_TILE_ROWS][6];
} FN(sums);

/* Rows that products read: (n, K) with ld elements from row to row; or interleaved, so that a tile reads memory as
 * it lies: chunk by chunk, tile by tile, k by k, the numbers of a tile's rows side by side. */
typedef struct FN(operand) {
    const T *at;
    ptrdiff_t ld;
    int is_interleaved;
} FN(operand);

/* The products of one k. Meanwhile, if its weights are far, a cache line of the next strip comes nearer. */
static FRNN_INLINE void FN(multiply)(const int rows, const int vectors, const int is_far, const int is_interleaved,
                                     ptrdiff_t k, const T *a, ptrdiff_t lda, const T *w, uintptr_t next,
                                     FN(sums) *sums)
{
    V column[6];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        column[v] = v_load(w + v * VL);
    if (is_far)
        FRNN_PREFETCH((const void *)(next + (uintptr_t)k * FRNN_LINE));
    FRNN_UNROLL
    for (int m = 0; m < rows; m++) {
        V factor = v_set(is_interleaved ? a[k * rows + m] : a[m * lda + k]);
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sums->of[m][v] = v_fma(factor, column[v], sums->of[m][v]);
    }
}

/* acc (rows, vectors) = from (rows, vectors) + a (rows, K) times a strip, K one chunk at most. Rows, vectors and
 * what is asked are constants, so that the sums are registers. */
static FRNN_INLINE void FN(tile)(const int rows, const int vectors, const int is_far, const int is_interleaved,
                                 ptrdiff_t K, const T *a, ptrdiff_t lda, const T *w, ptrdiff_t width,
                                 const T *from, ptrdiff_t ldfrom, T *acc, uintptr_t next)
{
    FN(sums) sums;
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sums.of[m][v] = v_set(0);
    FRNN_UNROLL_4
    for (ptrdiff_t k = 0; k < K; k++, w += vectors * VL)
        FN(multiply)(rows, vectors, is_far, is_interleaved, k, a, lda, w, next, &sums);
    FRNN_UNROLL
    for (int m = 0; m < rows; m++)
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(acc + m * width + v * VL, v_add(v_load(from + m * ldfrom + v * VL), sums.of[m][v]));
}

#define FRNN_TILE(R) FN(tile)(R, vectors, is_far, is_interleaved, K, a, lda, w, width, from, ldfrom, acc, next)

/* The rows of the next tile, of the rows that are left: tiles as few as hold them, of equal height (8 = 4 + 4),
 * `most` rows at most, 4 or 6. */
static inline ptrdiff_t FN(tile_rows)(ptrdiff_t left, ptrdiff_t most)
{
    const ptrdiff_t tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

/* A strip for n > 1 rows, tile by tile. Each fetches a part of the next strip, if that is far; those behind the last
 * part fetch what is there already. */
static FRNN_INLINE void FN(tiles)(const int vectors, const int most, const int is_far, const int is_interleaved,
                                  ptrdiff_t n, ptrdiff_t K, const T *a, ptrdiff_t lda, const T *w, ptrdiff_t width,
                                  const T *from, ptrdiff_t ldfrom, T *acc)
{
    /* Addresses, which nothing is read from: behind the last strip they may be beyond the weights. */
    const uintptr_t size = (uintptr_t)(K * vectors * VL) * sizeof(T), fetched = (uintptr_t)K * FRNN_LINE;
    const uintptr_t here = (uintptr_t)w, end = here + 2 * size;
    uintptr_t next = here + size;
    for (ptrdiff_t left = n, rows; left > 0; left -= rows) {
        rows = FN(tile_rows)(left, most);
        switch (rows) {
        case 2: FRNN_TILE(2); break;
        case 3: FRNN_TILE(3); break;
        case 4: FRNN_TILE(4); break;
        case 5: FRNN_TILE(most > 4 ? 5 : 4); break;
        default: FRNN_TILE(most > 4 ? 6 : 4); break;
        }
        a += rows * (is_interleaved ? K : lda);
        from += rows * ldfrom;
        acc += rows * width;
        next = end - next > fetched ? next + fetched : here;
    }
}

#undef FRNN_TILE

/* One chunk of a block for n > 1 rows. A strip stays near while all rows pass over it. */
static FRNN_INLINE void FN(rows_chunk)(const int is_far, const int is_interleaved, ptrdiff_t n, ptrdiff_t K,
                                       const T *a, ptrdiff_t lda, const T *w, ptrdiff_t width, const T *from,
                                       ptrdiff_t ldfrom, T *acc)
{
#define FRNN_TILES(N, MOST) FN(tiles)(N, MOST, is_far, is_interleaved, n, K, a, lda, w, width, from, ldfrom, acc)
    const ptrdiff_t strip = FN(strip_columns)(width);
    for (ptrdiff_t first = 0; first < width; first += strip) {
#if FRNN_REGISTERS == 32
        switch (strip / VL) {
        case 6: FRNN_TILES(6, 4); break;
        case 4: FRNN_TILES(4, 6); break;
        case 3: FRNN_TILES(3, 6); break;
        case 2: FRNN_TILES(2, 6); break;
        default: FRNN_TILES(1, 6); break;
        }
#else
        FRNN_TILES(2, 6);
#endif
        w += strip * K;
        from += strip;
        acc += strip;
    }
#undef FRNN_TILES
}

/* total += a (K) times so many vectors of columns, in strips of so many, for a lone row; K one chunk at most. */
static FRNN_INLINE void FN(lone_pass)(const int vectors, const int strip, ptrdiff_t K, const T *a, const T *w,
                                      V *total)
{
    V sum[12];
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[v] = v_set(0);
    for (ptrdiff_t k = 0; k < K; k++, w += strip * VL) {
        V column[12];
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            column[v] = v_load(w + FRNN_PLACE(v, strip, K));
        V factor = v_set(a[k]);
        FRNN_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[v] = v_fma(factor, column[v], sum[v]);
    }
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        total[v] = v_add(total[v], sum[v]);
}

/* total += a (K) W for a lone row, in registers. */
static FRNN_INLINE void FN(lone_product)(const int vectors, ptrdiff_t K, const T *a, const T *w, V *total)
{
    const int pass = FRNN_PASS(vectors);
    const ptrdiff_t chunk = FRNN_CHUNK_OF(K, FRNN_CHUNK);
    for (ptrdiff_t begin = 0, rows; begin < K; begin += rows) {
        rows = K - begin < chunk ? K - begin : chunk;
        FRNN_UNROLL
        for (int first = 0; first < vectors; first += pass, w += rows * pass * VL)
            FN(lone_pass)(pass, FRNN_STRIP(vectors), rows, a + begin, w, total + first);
    }
}

/* One chunk of a block for a lone row, in memory. */
static FRNN_INLINE void FN(row_chunk)(ptrdiff_t K, const T *a, const T *w, ptrdiff_t width, const T *from, T *acc)
{
#define FRNN_LONE(N) FN(lone_pass)(N, FRNN_STRIP(N), K, a, w, total)
    const ptrdiff_t pass = FRNN_PASS(width / VL);
    for (ptrdiff_t first = 0; first < width; first += pass * VL) {
        V total[12];
        for (ptrdiff_t v = 0; v < pass; v++)
            total[v] = v_load(from + first + v * VL);
        switch (pass) {
        case 12: FRNN_LONE(12); break;
        case 8: FRNN_LONE(8); break;
        case 6: FRNN_LONE(6); break;
        case 4: FRNN_LONE(4); break;
        case 3: FRNN_LONE(3); break;
        case 2: FRNN_LONE(2); break;
        default: FRNN_LONE(1); break;
        }
        for (ptrdiff_t v = 0; v < pass; v++)
            v_store(acc + first + v * VL, total[v]);
        w += pass * VL * K;
    }
#undef FRNN_LONE
}

static FRNN_INLINE void FN(chunks)(const int is_far, const int is_interleaved, ptrdiff_t n, ptrdiff_t K_all,
                                   const T *a, ptrdiff_t lda, const T *w, ptrdiff_t width, const T *from,
                                   ptrdiff_t ldfrom, T *acc)
{
    const ptrdiff_t chunk = FRNN_CHUNK_OF(K_all, FRNN_CHUNK);
    for (ptrdiff_t k = 0; k < K_all; k += chunk) {
        const ptrdiff_t K = K_all - k < chunk ? K_all - k : chunk;
        if (n == 1)
            FN(row_chunk)(K, a + k, w + k * width, width, from, acc);
        else
            FN(rows_chunk)(is_far, is_interleaved, n, K, a + (is_interleaved ? k * n : k), lda, w + k * width,
                           width, from, ldfrom, acc);
        from = acc;
        ldfrom = width;
    }
}

/* acc (n, width) = from (n, width) + a (n, K) W for a block W (K, width); ldfrom is 0 where all rows begin
 * with the same. is_far: the weights are asked for early. */
static void FN(product)(ptrdiff_t n, ptrdiff_t K, FN(operand) a, const T *w, ptrdiff_t width, const T *from,
                        ptrdiff_t ldfrom, T *acc, int is_far)
{
#define FRNN_CHUNKS(IS_FAR, IS_INTERLEAVED)                                                      \
    FN(chunks)(IS_FAR, IS_INTERLEAVED, n, K, a.at, a.ld, w, width, from, ldfrom, acc)
#if FRNN_INTERLEAVED
    if (a.is_interleaved && is_far)
        FRNN_CHUNKS(1, 1);
    else if (a.is_interleaved)
        FRNN_CHUNKS(0, 1);
    else
#endif
    if (is_far)
        FRNN_CHUNKS(1, 0);
    else
        FRNN_CHUNKS(0, 0);
#undef FRNN_CHUNKS
}

/* ---------------------------------------------------------------- blocks */

typedef struct FN(block) {
    ptrdiff_t panel;  /* the first one */
    ptrdiff_t panels;
    ptrdiff_t offset; /* columns of all blocks before: weights of K rows begin at offset * K */
    ptrdiff_t width;
} FN(block);

/* How many panels lie together. A lone row needs several sums at once to hide the latency of a multiply-add, and
 * where vectors are long, an RNN's or a Linear layer's panel has one of them, a GRU's three, an LSTM's four. More
 * than four pay for an LSTM only while its weights fit the first-level cache, since the cache behind it gives no
 * more: a step of 32 units (Zen 4, avx512) takes 0.91 of the time with two panels, one of 64 units 1.1. */
static ptrdiff_t FN(block_panels)(frnn_kind kind, ptrdiff_t hidden_size)
{
    switch (kind) {
    case FRNN_LSTM: return VL == FRNN_PANEL && hidden_size <= 2 * FRNN_PANEL ? 2 : 1;
    case FRNN_GRU: return 2;
    default: return FRNN_DENSE_BLOCK;
    }
}

static inline FN(block) FN(block_at)(const frnn_cell *cell, ptrdiff_t index)
{
    FN(block) block;
    const ptrdiff_t left = (cell->hidden_size + FRNN_PANEL - 1) / FRNN_PANEL - index * cell->block;
    block.panel = index * cell->block;
    block.panels = left < cell->block ? left : cell->block;
    block.offset = block.panel * cell->gates * FRNN_PANEL;
    block.width = block.panels * cell->gates * FRNN_PANEL;
    return block;
}

/* Whether n rows' pass over weights of so many columns asks for them early. */
static inline int FN(is_far)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns)
{
    return VL > 1 && n > FRNN_FEW && columns * cell->hidden_size * cell->gates * (ptrdiff_t)sizeof(T) > FRNN_NEAR;
}

/* acc (n, width) = bias + x W_ih^T. */
static inline void FN(project_block)(const frnn_cell *cell, FN(block) block, ptrdiff_t n, FN(operand) x, T *acc,
                                     int is_far)
{
    FN(product)(n, cell->input_size, x, (const T *)cell->w_ih + block.offset * cell->input_size, block.width,
                (const T *)cell->bias + block.offset, 0, acc, is_far);
}

/* What a step knows of its cell. */
typedef struct FN(layer) {
    const frnn_cell *cell;
    const frnn_step *step;
    T *h;          /* (n, H): before the projection */
    ptrdiff_t ldh;
    FN(operand) x, h_prev;
    T *scratch;    /* the rest of the step's */
    int is_far;
} FN(layer);

/* Where the state of VL units of one row lies, `left` of which exist. */
typedef struct FN(units) {
    const T *h_prev;
    T *h, *c; /* c: an LSTM's, else NULL */
    ptrdiff_t left;
} FN(units);

static FRNN_INLINE FN(units) FN(units_at)(const FN(layer) *layer, ptrdiff_t m, ptrdiff_t unit)
{
    const frnn_step *step = layer->step;
    const ptrdiff_t place = step->c_order == NULL ? m : step->c_order[m];
    const FN(units) units = {(const T *)step->h_prev + m * step->ld_prev + unit, layer->h + m * layer->ldh + unit,
                             step->c == NULL ? NULL : (T *)step->c + place * step->ldc + unit,
                             layer->cell->hidden_size - unit};
    return units;
}

/* What comes before h: an LSTM's c; in a GRU's gate[2], which is what h gives its n gate, the argument of that
 * gate's tanh, with what x gives it in gate[3]. All units have that before any has its h, so that many short
 * chains of operations run at a time, rather than a few long ones: GRU 128->128, 100x32 takes 0.98 of the time (Zen 4,
 * `python -m bench` in builds in turns; avx2 0.97). */
static FRNN_INLINE void FN(begin_h)(const frnn_kind kind, V *gate, FN(units) units)
{
    if (kind == FRNN_LSTM) {
        const V c = v_fma(FN(sigmoid_of)(gate[1]), FN(load_part)(units.c, units.left),
                          FN(sigmoid_tanh)(gate[0], gate[2]));
        FN(store_part)(units.c, c, units.left);
    } else {
        gate[2] = v_add(gate[3], v_mul(FN(sigmoid_of)(gate[0]), gate[2]));
    }
}

/* h, when all that comes before it is there. */
static FRNN_INLINE void FN(finish_h)(const frnn_kind kind, const V *gate, FN(units) units)
{
    V h;
    if (kind == FRNN_LSTM) {
        h = FN(sigmoid_tanh)(gate[3], FN(load_part)(units.c, units.left));
    } else if (kind == FRNN_GRU) {
        const V z = FN(sigmoid_of)(gate[1]), fresh = FN(tanh_of)(gate[2]);
        h = v_fma(z, v_sub(FN(load_part)(units.h_prev, units.left), fresh), fresh);
    } else if (kind == FRNN_RNN_TANH) {
        h = FN(tanh_of)(gate[0]);
    } else {
        h = v_max(v_set(0), gate[0]);
    }
    FN(store_part)(units.h, h, units.left);
}

/* Whether anything comes before h. */
static FRNN_INLINE int FN(has_more)(const frnn_kind kind)
{
    return kind == FRNN_LSTM || kind == FRNN_GRU;
}

/* A block of `panels` panels for a lone row, from its inputs or gates to its new state in registers. */
static FRNN_INLINE void FN(lone_block)(const frnn_kind kind, const int gates, const int panels,
                                       const FN(layer) *layer, FN(block) block)
{
    enum { PARTS = FRNN_PANEL / VL };
    const frnn_cell *cell = layer->cell;
    const frnn_step *step = layer->step;
    const FN(units) first = FN(units_at)(layer, 0, block.panel * FRNN_PANEL);
    const int vectors = panels * gates * PARTS;
    V total[FRNN_SUMS], new_x[FRNN_SUMS];
    const T *from = (const T *)cell->bias + block.offset;
    if (step->x == NULL)
        from = (const T *)step->gates + block.offset * step->rows + step->row * block.width;
    FRNN_UNROLL
    for (int v = 0; v < vectors; v++)
        total[v] = v_load(from + v * VL);
    if (step->x != NULL)
        FN(lone_product)(vectors, cell->input_size, step->x,
                         (const T *)cell->w_ih + block.offset * cell->input_size, total);
    if (kind == FRNN_GRU) {
        const T *bias = (const T *)cell->bias_hn + block.panel * FRNN_PANEL;
        FRNN_UNROLL
        for (int i = 0; i < panels * PARTS; i++) {
            V *gate = total + (i / PARTS * gates + 2) * PARTS + i % PARTS;
            new_x[i] = *gate;
            *gate = v_load(bias + i * VL);
        }
    }
    FN(lone_product)(vectors, cell->output_size, step->h_prev,
                     (const T *)cell->w_hh + block.offset * cell->output_size, total);
    FRNN_UNROLL
    for (int is_h = !FN(has_more)(kind); is_h < 2; is_h++)
        FRNN_UNROLL
        for (int i = 0; i < panels * PARTS; i++) {
            V gate[4], *of = total + i / PARTS * gates * PARTS + i % PARTS;
            FRNN_UNROLL
            for (int g = 0; g < gates; g++)
                gate[g] = of[g * PARTS];
            if (kind == FRNN_GRU)
                gate[3] = new_x[i];
            if (first.left <= i * VL)
                continue;
            const FN(units) units = {first.h_prev + i * VL, first.h + i * VL,
                                     kind == FRNN_LSTM ? first.c + i * VL : NULL, first.left - i * VL};
            if (is_h)
                FN(finish_h)(kind, gate, units);
            else
                FN(begin_h)(kind, gate, units);
            if (kind == FRNN_GRU)
                of[2 * PARTS] = gate[2];
        }
}

/* A GRU's n gate of x goes to new_x (n, panels, 16), since the reset gate does not multiply it. */
static inline void FN(part_new_gate)(const frnn_cell *cell, FN(block) block, ptrdiff_t n, T *acc, T *new_x)
{
    const T *bias = (const T *)cell->bias_hn + block.panel * FRNN_PANEL;
    for (ptrdiff_t m = 0; m < n; m++, acc += block.width)
        for (ptrdiff_t i = 0; i < block.panels; i++, new_x += FRNN_PANEL)
            for (ptrdiff_t j = 0; j < FRNN_PANEL; j += VL) {
                T *gate = acc + (3 * i + 2) * FRNN_PANEL + j;
                v_store(new_x + j, v_load(gate));
                v_store(gate, v_load(bias + i * FRNN_PANEL + j));
            }
}

/* The VL units of all rows from `unit` on, `left` of which exist. */
static FRNN_INLINE void FN(finish_rows)(const frnn_kind kind, const int gates, const ptrdiff_t left,
                                        const FN(layer) *layer, FN(block) block, const ptrdiff_t unit,
                                        T *acc, const T *new_x)
{
    const ptrdiff_t n = layer->step->n;
    FRNN_UNROLL
    for (int is_h = !FN(has_more)(kind); is_h < 2; is_h++)
        for (ptrdiff_t m = 0; m < n; m++) {
            FN(units) units = FN(units_at)(layer, m, unit);
            V gate[4];
            units.left = left;
            FRNN_UNROLL
            for (int g = 0; g < gates; g++)
                gate[g] = v_load(acc + m * block.width + g * FRNN_PANEL);
            if (kind == FRNN_GRU)
                gate[3] = v_load(new_x + m * block.panels * FRNN_PANEL);
            if (is_h)
                FN(finish_h)(kind, gate, units);
            else
                FN(begin_h)(kind, gate, units);
            if (kind == FRNN_GRU && !is_h)
                v_store(acc + m * block.width + 2 * FRNN_PANEL, gate[2]);
        }
}

/* A block for any number of rows. */
static FRNN_INLINE void FN(rows_block)(const frnn_kind kind, const int gates, const FN(layer) *layer,
                                       FN(block) block)
{
    const frnn_cell *cell = layer->cell;
    const frnn_step *step = layer->step;
    const ptrdiff_t n = step->n, H = cell->hidden_size, K = cell->output_size;
    T *acc = (T *)step->gates + block.offset * step->rows + step->row * block.width;
    T *new_x = layer->scratch;
    if (step->x != NULL)
        FN(project_block)(cell, block, n, layer->x, acc, layer->is_far);
    if (kind == FRNN_GRU)
        FN(part_new_gate)(cell, block, n, acc, new_x);
    FN(product)(n, K, layer->h_prev, (const T *)cell->w_hh + block.offset * K, block.width, acc, block.width, acc,
                layer->is_far);
    for (ptrdiff_t i = 0; i < block.panels; i++)
        for (ptrdiff_t j = 0; j < FRNN_PANEL && (block.panel + i) * FRNN_PANEL + j < H; j += VL) {
            const ptrdiff_t unit = (block.panel + i) * FRNN_PANEL + j;
            T *gates_of = acc + i * gates * FRNN_PANEL + j;
            const T *new_of = kind == FRNN_GRU ? new_x + i * FRNN_PANEL + j : NULL;
            if (H - unit >= VL)
                FN(finish_rows)(kind, gates, VL, layer, block, unit, gates_of, new_of);
            else
                FN(finish_rows)(kind, gates, H - unit, layer, block, unit, gates_of, new_of);
        }
}

/* A block of `most` panels at most, a constant, for a lone row: in registers where they hold its sums. */
static FRNN_INLINE void FN(row_block)(const frnn_kind kind, const int gates, const int most,
                                      const FN(layer) *layer, FN(block) block)
{
    const int held = FRNN_SUMS * VL / FRNN_PANEL / gates, limit = held < most ? held : most;
    if (limit >= 1 && block.panels == 1)
        FN(lone_block)(kind, gates, 1, layer, block);
    else if (limit >= 2 && block.panels == 2)
        FN(lone_block)(kind, gates, 2, layer, block);
    else if (limit >= 3 && block.panels == 3)
        FN(lone_block)(kind, gates, 3, layer, block);
    else if (limit >= 4 && block.panels == 4)
        FN(lone_block)(kind, gates, 4, layer, block);
    else
        FN(rows_block)(kind, gates, layer, block);
}

/* A step without its projection. */
static FRNN_INLINE void FN(step_of)(const frnn_kind kind, const int gates, const int most,
                                    const FN(layer) *layer)
{
    const frnn_step *step = layer->step;
    for (ptrdiff_t i = step->first; i < step->last; i++) {
        const FN(block) block = FN(block_at)(layer->cell, step->is_odd ? step->first + step->last - 1 - i : i);
        if (step->n == 1)
            FN(row_block)(kind, gates, most, layer, block);
        else
            FN(rows_block)(kind, gates, layer, block);
    }
}

/* ---------------------------------------------------------------- the operations of a backend */

/* Whether rows so far apart share so few sets of the first-level cache that more than a tile's are never there
 * together. */
static inline int FN(is_crowd)(ptrdiff_t ld)
{
    return ld * (ptrdiff_t)sizeof(T) % FRNN_CROWD == 0;
}

static inline int FN(is_crowded)(ptrdiff_t n, ptrdiff_t ld)
{
    return n > FRNN_TILE_ROWS && FN(is_crowd)(ld);
}

/* The distance of rows of so many columns that are not crowded. */
static inline ptrdiff_t FN(apart)(ptrdiff_t columns)
{
    return FN(is_crowd)(columns) ? columns + FRNN_APART / (ptrdiff_t)sizeof(T) : columns;
}

static ptrdiff_t FN(rows_apart)(ptrdiff_t n, ptrdiff_t columns)
{
    return FN(is_crowded)(n, columns) ? FN(apart)(columns) : columns;
}

/* Whether n rows are interleaved for a cell's products: where it has strips enough to pay for that. */
static inline int FN(is_interleaved)(const frnn_cell *cell, ptrdiff_t n)
{
    return FRNN_INTERLEAVED && n > FRNN_FEW && frnn_panel_gates(cell) >= FRNN_INTERLEAVED * FRNN_STRIP(0) * VL;
}

/* Room for n rows, or for fewer, to be arranged: interleaved, or apart, if they may be crowded, by themselves or
 * beside the other direction's. A narrow view of crowded rows stays as it is. */
static ptrdiff_t FN(room)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns)
{
    return FN(is_interleaved)(cell, n) || FN(is_crowded)(n, 2 * columns) ? n * FN(apart)(columns) : 0;
}

static FRNN_INLINE void FN(interleave_tile)(const int rows, ptrdiff_t K, const T *a, ptrdiff_t lda, T *to)
{
    for (ptrdiff_t k = 0; k < K; k++, to += rows)
        FRNN_UNROLL
        for (int m = 0; m < rows; m++)
            to[m] = a[m * lda + k];
}

#if FRNN_INTERLEAVED && FRNN_REGISTERS == 32
#error "tiles six vectors wide are four rows high: interleaving has to know that"
#endif

static void FN(interleave)(ptrdiff_t n, ptrdiff_t K_all, const T *a, ptrdiff_t lda, T *to)
{
    const ptrdiff_t chunk = FRNN_CHUNK_OF(K_all, FRNN_CHUNK);
    for (ptrdiff_t k = 0; k < K_all; k += chunk) {
        const ptrdiff_t K = K_all - k < chunk ? K_all - k : chunk;
        const T *from = a + k;
        for (ptrdiff_t left = n, rows; left > 0; left -= rows, from += rows * lda, to += rows * K) {
            rows = FN(tile_rows)(left, FRNN_TILE_ROWS);
            switch (rows) {
            case 2: FN(interleave_tile)(2, K, from, lda, to); break;
            case 3: FN(interleave_tile)(3, K, from, lda, to); break;
            case 4: FN(interleave_tile)(4, K, from, lda, to); break;
            case 5: FN(interleave_tile)(5, K, from, lda, to); break;
            default: FN(interleave_tile)(6, K, from, lda, to); break;
            }
        }
    }
}

/* n rows as the products of a cell read them best; the scratch goes on behind what that took. */
static FN(operand) FN(arrange)(const frnn_cell *cell, ptrdiff_t n, ptrdiff_t columns, const T *a, ptrdiff_t ld,
                            T **scratch)
{
    FN(operand) rows = {a, ld, 0};
    const ptrdiff_t room = FN(room)(cell, n, columns), apart = FN(apart)(columns);
    T *copy = *scratch;
    if (FN(is_interleaved)(cell, n)) {
        FN(interleave)(n, columns, a, ld, copy);
        rows.is_interleaved = 1;
    } else if (room != 0 && FN(is_crowded)(n, ld)) {
        for (ptrdiff_t m = 0; m < n; m++)
            memcpy(copy + m * apart, a + m * ld, columns * sizeof(T));
        rows.ld = apart;
    } else {
        return rows;
    }
    rows.at = copy;
    *scratch += room;
    return rows;
}

static void FN(project)(const frnn_cell *cell, ptrdiff_t first, ptrdiff_t last, ptrdiff_t n, const void *x,
                        ptrdiff_t ldx, void *gates, void *scratch)
{
    const int is_far = FN(is_far)(cell, n, cell->input_size);
    T *free = scratch;
    const FN(operand) rows = FN(arrange)(cell, n, cell->input_size, x, ldx, &free);
    for (ptrdiff_t index = first; index < last; index++) {
        const FN(block) block = FN(block_at)(cell, index);
        FN(project_block)(cell, block, n, rows, (T *)gates + block.offset * n, is_far);
    }
}

/* There is no scratch to lay crowded rows apart: fewer go together, as many as a tile has. */
static void FN(dense_rows)(ptrdiff_t n, ptrdiff_t K, ptrdiff_t outputs, const T *x, ptrdiff_t ldx,
                           const T *w, const T *bias, T *out, ptrdiff_t ldo)
{
    enum { MOST = 4 * FRNN_TILE_ROWS, WIDTH = FRNN_DENSE_BLOCK * FRNN_PANEL };
    const ptrdiff_t most = FN(is_crowded)(n, ldx) ? FRNN_TILE_ROWS : MOST;
    const T zeros[WIDTH] = {0};
    T acc[MOST * WIDTH];
    for (ptrdiff_t m = 0, rows; m < n; m += rows) {
        rows = n - m < most ? n - m : most;
        for (ptrdiff_t first = 0; first < outputs; first += WIDTH) {
            const ptrdiff_t left = outputs - first < WIDTH ? outputs - first : WIDTH;
            const ptrdiff_t width = (left + FRNN_PANEL - 1) / FRNN_PANEL * FRNN_PANEL;
            const FN(operand) a = {x + m * ldx, ldx, 0};
            FN(product)(rows, K, a, w + first * K, width, bias == NULL ? zeros : bias + first, 0, acc, 0);
            for (ptrdiff_t i = 0; i < rows; i++)
                memcpy(out + (m + i) * ldo + first, acc + i * width, left * sizeof(T));
        }
    }
}

static void FN(dense)(const frnn_cell *cell, ptrdiff_t n, const void *x, ptrdiff_t ldx, void *out,
                      ptrdiff_t ldo)
{
    FN(dense_rows)(n, cell->input_size, cell->hidden_size, x, ldx, cell->w_ih, cell->bias, out, ldo);
}

static void FN(step)(const frnn_cell *cell, const frnn_step *step)
{
    const ptrdiff_t n = step->n, H = cell->hidden_size, I = cell->input_size, P = cell->output_size;
    FN(layer) layer = {cell, step, step->h_next, step->ld_next, {step->x, step->ldx, 0},
                       {step->h_prev, step->ld_prev, 0}, step->scratch,
                       FN(is_far)(cell, n, P + (step->x == NULL ? 0 : I))};
    if (n > 1) {
        if (step->x != NULL)
            layer.x = FN(arrange)(cell, n, I, step->x, step->ldx, &layer.scratch);
        layer.h_prev = FN(arrange)(cell, n, P, step->h_prev, step->ld_prev, &layer.scratch);
    }
    if (cell->w_hr != NULL) {
        layer.h = layer.scratch;
        layer.ldh = FN(apart)(H);
    }
    switch (cell->kind) {
    case FRNN_LSTM: FN(step_of)(FRNN_LSTM, 4, 2, &layer); break;
    case FRNN_GRU: FN(step_of)(FRNN_GRU, 3, 2, &layer); break;
    case FRNN_RNN_TANH: FN(step_of)(FRNN_RNN_TANH, 1, 4, &layer); break;
    default: FN(step_of)(FRNN_RNN_RELU, 1, 4, &layer); break;
    }
    if (cell->w_hr != NULL)
        FN(dense_rows)(n, H, P, layer.h, layer.ldh, cell->w_hr, NULL, step->h_next, step->ld_next);
}

static size_t FN(project_bytes)(const frnn_cell *cell, ptrdiff_t n)
{
    return (size_t)FN(room)(cell, n, cell->input_size) * sizeof(T);
}

static size_t FN(step_bytes)(const frnn_cell *cell, ptrdiff_t n)
{
    ptrdiff_t room = FN(room)(cell, n, cell->input_size) + FN(room)(cell, n, cell->output_size);
    if (cell->kind == FRNN_GRU)
        room += n * cell->block * FRNN_PANEL;
    if (cell->w_hr != NULL)
        room += n * FN(apart)(cell->hidden_size);
    return (size_t)room * sizeof(T);
}

static const frnn_backend FN(table) = {
    FN(block_panels), FN(strip_columns), FRNN_CHUNK, FN(project), FN(step), FN(dense), frnn_part_units,
    FN(rows_apart), frnn_panel_gates, FN(project_bytes), FN(step_bytes), FN(rows),
    NULL, NULL, frnn_enter, frnn_leave,
};

#undef FRNN_STRIP
#undef FRNN_PASS
#undef FRNN_PLACE
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
#undef v_fnms
#undef v_to_exponent
#undef v_abs
#undef v_copysign
#undef FN
