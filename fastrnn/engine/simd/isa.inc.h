/* One instruction set: gates and functions once for each arithmetic, products and cells once for each storage of
 * weights. kernels.c defines FRNN_ISA and the constants of tuning.h and includes this file.
 *
 *   FN(name)         what an arithmetic has: frnn_f32_tanh_of__avx2
 *   WN(name)         what a storage has: frnn_f32_product__avx2
 *   W                the type in which weights are stored
 *   w_load(p)        a vector of VL of them, in the arithmetic; any alignment
 *   w_store(p, a)    the reverse, for packing
 *   FRNN_RATES       multiply-adds, near and far bytes of weights per nanosecond (backend.h)
 */

/* ---------------------------------------------------------------- float32 */

#define FN(name) FRNN_NAME(f32, name, FRNN_ISA)
#define FRNN_IS_F64 0
#include "vectors.h"
#include "functions.inc.h"
#include "row_functions.inc.h"
#include "gates.inc.h"

#define WN(name) FRNN_NAME(f32, name, FRNN_ISA)
#define W float
#define w_load(p) v_load(p)
#define w_store(p, a) v_store(p, a)
#define FRNN_ARITHMETIC FRNN_F32
#define FRNN_FORMAT {FRNN_STORED_F32, 1}
#define FRNN_RATES 70, 140, 100
#include "storage.inc.h"

#undef FRNN_IS_F64
#undef FN

/* ---------------------------------------------------------------- float64 */

#define FN(name) FRNN_NAME(f64, name, FRNN_ISA)
#define FRNN_IS_F64 1
#include "vectors.h"
#include "functions.inc.h"
#include "row_functions.inc.h"
#include "gates.inc.h"

#define WN(name) FRNN_NAME(f64, name, FRNN_ISA)
#define W double
#define w_load(p) v_load(p)
#define w_store(p, a) v_store(p, a)
#define FRNN_ARITHMETIC FRNN_F64
#define FRNN_FORMAT {FRNN_STORED_F64, 1}
#define FRNN_RATES 35, 140, 100
#include "storage.inc.h"

#undef FRNN_IS_F64
#undef FN

/* ---------------------------------------------------------------- */

static const frnn_backend *const FRNN_TABLES(FRNN_ISA)[] = {
    &FRNN_NAME(f32, table, FRNN_ISA),
    &FRNN_NAME(f64, table, FRNN_ISA),
    NULL,
};

#undef FRNN_ISA
#undef FRNN_REGISTERS
#undef FRNN_SEGMENT
#undef FRNN_LOCALITY
#undef FRNN_INTERLEAVED
