/* The kernels of arrays of one instruction set and arithmetic, and their table. */
#include "vectors.h"
#include "functions.inc.h"
#include "array_vectors.inc.h"
#include "array_functions.inc.h"
#include "map_operations.inc.h"
#include "map.inc.h"
#include "fetch.inc.h"
#include "reduce.inc.h"
#include "windows.inc.h"
#include "matmul.inc.h"

static const frnn_array_kernels FN(array_table) = {
    .arithmetic = FRNN_ARITHMETIC,
    .map = FN(map),
    .map_whole = frnn_i64_map__whole,
    .reduce = FN(reduce),
    .reduce_whole = frnn_i64_reduce__whole,
    .depthwise = FN(depthwise),
    .pool = FN(pool),
    .gather_rows = FN(gather_rows),
    .matmul = FN(matmul),
    .gather = frnn_gather_rows_by_number,
};
