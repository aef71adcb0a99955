/* One storage of weights for one arithmetic and one instruction set: its products, the cells over them, its table.
 * isa.inc.h defines WN, W, w_load, w_store, FRNN_ARITHMETIC, FRNN_FORMAT and FRNN_RATES; they are undefined again here.
 */
#include "products.inc.h"
#include "operands.inc.h"
#include "packing.inc.h"
#include "cells.inc.h"

static const frnn_backend WN(table) = {
    FRNN_ARITHMETIC, FRNN_FORMAT, FRNN_RATES,
    .pack = WN(pack),
    .project = WN(project),
    .step = WN(step),
    .dense = WN(dense),
    .part_units = frnn_part_units,
    .apart = WN(rows_apart),
    .gate_width = frnn_gate_width,
    .project_bytes = WN(project_bytes),
    .step_bytes = WN(step_bytes),
    .rows = FN(rows),
    .enter = frnn_enter,
    .leave = frnn_leave,
};

#undef FRNN_STRIP
#undef FRNN_PASS
#undef FRNN_PLACE
#undef WN
#undef W
#undef w_load
#undef w_store
#undef FRNN_ARITHMETIC
#undef FRNN_FORMAT
#undef FRNN_RATES
