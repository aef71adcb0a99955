/* The constants that were found by trying. docs/tuning.md has what was tried, on which machines, and the figures.
 *
 * Five more belong to an instruction set; kernels.c sets them:
 *
 *   FRNN_REGISTERS    its vector registers
 *   FRNN_SEGMENT      rows of K of a segment. What tiles read stays near, and sums begin and end rarely: LSTM 256,
 *                     100x8 takes 0.90 of the time with 256 instead of 128 (avx2).
 *   FRNN_LOCALITY     the cache that far weights are fetched into, as compilers number them: 3 the first level, 2 the
 *                     second. The first has no room for strips of long vectors: LSTM 1024, 10x64 takes 0.96 of the
 *                     time with 2 instead of 3 (avx512).
 *   FRNN_INTERLEAVED  rows are interleaved where a cell has at least this many strips and more than FRNN_FEW rows
 *                     share them; 0: never. A tile then reads one stream, not one for each row: LSTM 256->512, 100x128
 *                     takes 0.93 of the time (avx2); avx512 gains nothing.
 *   FRNN_PRODUCTS_PER_NS
 *                     multiply-adds of float32 in a ns, for plans, where half or double is near enough (backend.h).
 *                     avx2 and avx512: 55 and 57 on Zen 4, avx512 125 on Zen 5. baseline: LSTM 64, 20x8 takes 3.7
 *                     instructions for each, of which a core makes about 15 in a ns. NEON, not measured: two to four
 *                     units of four lanes at 2.5 to 3.2 GHz make 20 to 51.
 */
#ifndef FRNN_TUNING_H
#define FRNN_TUNING_H

#define FRNN_TILE_ROWS 6
/* The vectors of sums of a lone row that registers hold; the others are for weights, factors and formulas. */
#define FRNN_SUMS (FRNN_REGISTERS / 4 * 3)

/* Rows of x and h whose distance is a multiple of FRNN_CROWD bytes are crowded: they are copied to where they lie
 * FRNN_APART bytes further apart, once for all the weights. A projection of 96 rows of 1024: 111 instead of
 * 46 GFLOP/s (avx2), 115 instead of 98 (avx512). */
#define FRNN_CROWD 2048
#define FRNN_APART 320

/* Weights of more bytes than FRNN_NEAR are fetched ahead where more than FRNN_FEW rows share them: steps of LSTM 1024
 * with 64 rows take 0.96 of the time (avx512). A few rows are through with a strip before the next one can come, and
 * the processor's own prefetching does better: with one row, 1.3 times the time. */
#define FRNN_NEAR (1 << 20)
#define FRNN_FEW 8

/* The rows of float32 that a Linear layer or a convolution computes together. */
#define FRNN_DENSE_ROWS 48

/* A segment of a sum of K: a short sum is cut in short ones, so that their additions overlap. */
#define FRNN_SEGMENT_OF(K) ((K) > 16 ? FRNN_SEGMENT : 8)

#endif
