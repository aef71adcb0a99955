/* One storage of weights for one arithmetic and one instruction set: its products, the cells over them, its table.
 * isa.inc.h defines WN, W, FRNN_FORMAT and FRNN_RATES, and FRNN_STORAGE_FILE, which gives cells.inc.h what
 * products.inc.h lists; for "wide.inc.h" also w_load, w_store and w_one. All are undefined again here.
 */
#include FRNN_STORAGE_FILE
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
    .dense_bytes = WN(dense_bytes),
};

#undef FRNN_STRIP
#undef FRNN_PASS
#undef FRNN_PLACE
#undef WN
#undef W
#undef w_load
#undef w_store
#undef w_one
#undef FRNN_HAS_LONE
#undef FRNN_PARTS
#undef FRNN_STORAGE_FILE
#undef FRNN_FORMAT
#undef FRNN_RATES
