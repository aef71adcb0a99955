/* One instruction set: its arithmetics, and under each its storages of weights. kernels.c defines FRNN_ISA, the
 * constants of tuning.h and FRNN_PRODUCTS_PER_NS, and includes this file.
 *
 *   FN(name)         what an arithmetic has: frnn_f32_tanh_of__avx2
 *   WN(name)         what a storage has: frnn_f32_product__avx2
 *   W                the type in which weights are stored
 *   w_load(p)        a vector of VL of them, in the arithmetic; any alignment
 *   w_store(p, a)    the reverse, for packing
 *   w_one(p)         one of them, in the arithmetic
 *   FRNN_FORMAT      what it is, and
 *   FRNN_RATES       how fast it is: frnn_format and frnn_rates of backend.h
 */

/* ---------------------------------------------------------------- float32 */

#define FN(name) FRNN_NAME(f32, name, FRNN_ISA)
#define FRNN_IS_F64 0
#define FRNN_ARITHMETIC FRNN_F32
#include "arithmetic.inc.h"

#define WN(name) FRNN_NAME(f32, name, FRNN_ISA)
#define W float
#define w_load(p) v_load(p)
#define w_store(p, a) v_store(p, a)
#define w_one(p) (*(p))
#define FRNN_FORMAT {FRNN_STORED_F32, 1}
#define FRNN_RATES {FRNN_PRODUCTS_PER_NS, FRNN_PRODUCTS_PER_NS, 140, 100}
#define GN(name) FN(name)
#define FRNN_STORAGE_FILE "wide.inc.h"
#include "storage.inc.h"
#undef GN

#undef FN
#undef FRNN_IS_F64
#undef FRNN_ARITHMETIC

/* ---------------------------------------------------------------- float64 */

#define FN(name) FRNN_NAME(f64, name, FRNN_ISA)
#define FRNN_IS_F64 1
#define FRNN_ARITHMETIC FRNN_F64
#include "arithmetic.inc.h"

#define WN(name) FRNN_NAME(f64, name, FRNN_ISA)
#define W double
#define w_load(p) v_load(p)
#define w_store(p, a) v_store(p, a)
#define w_one(p) (*(p))
#define FRNN_FORMAT {FRNN_STORED_F64, 1}
/* Vectors hold half as many. `dense` keeps the figure of float32 until another one is measured. */
#define FRNN_RATES {VL > 1 ? FRNN_PRODUCTS_PER_NS / 2.0 : FRNN_PRODUCTS_PER_NS, FRNN_PRODUCTS_PER_NS, 140, 100}
#define GN(name) FN(name)
#define FRNN_STORAGE_FILE "wide.inc.h"
#include "storage.inc.h"
#undef GN

#undef FN
#undef FRNN_IS_F64
#undef FRNN_ARITHMETIC

/* ---------------------------------------------------------------- narrow weights of float32 */

#define FRNN_LEVEL FRNN_ISA
#define FRNN_TILES 0
#define FRNN_VNNI 0
#define FRNN_OWN_BFLOAT16 1
#define FRNN_OWN_GATES 1
#define FRNN_BF16_PER_NS FRNN_PRODUCTS_PER_NS
#define FRNN_S8_PER_NS FRNN_PRODUCTS_PER_NS
#include "narrow_storages.inc.h"

/* ---------------------------------------------------------------- */

FRNN_LIST_PRODUCTS(FRNN_ISA, FRNN_ISA, FRNN_ISA, FRNN_ISA)

#undef FRNN_ISA
#undef FRNN_REGISTERS
#undef FRNN_SEGMENT
#undef FRNN_LOCALITY
#undef FRNN_INTERLEAVED
#undef FRNN_PRODUCTS_PER_NS
