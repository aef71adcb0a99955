/* One storage of weights for one arithmetic and one instruction set: its products, the cells over them, its table.
 * isa.inc.h defines WN, W, w_load, w_store, w_one, FRNN_FORMAT and FRNN_RATES; they are undefined again here.
 */
#include "products.inc.h"
#include "operands.inc.h"
#include "packing.inc.h"
#include "cells.inc.h"

static const frnn_products WN(products) = {
    .backend = &FN(backend),
    .format = FRNN_FORMAT,
    .rates = FRNN_RATES,
    .pack = WN(pack),
    .project = WN(project),
    .step = WN(step),
    .dense = WN(dense),
    .project_bytes = WN(project_bytes),
    .step_bytes = WN(step_bytes),
};

#undef FRNN_STRIP
#undef FRNN_PASS
#undef FRNN_PLACE
#undef WN
#undef W
#undef w_load
#undef w_store
#undef w_one
#undef FRNN_FORMAT
#undef FRNN_RATES
