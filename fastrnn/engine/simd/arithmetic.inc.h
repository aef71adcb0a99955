/* One arithmetic for one instruction set: what all storages of weights share, and its table. isa.inc.h defines FN,
 * FRNN_IS_F64 and FRNN_ARITHMETIC.
 */
#include "vectors.h"
#include "functions.inc.h"
#include "row_functions.inc.h"
#include "units.inc.h"
#define GN(name) FN(name)
#include "gates.inc.h"
#undef GN
#include "layout.inc.h"

static const frnn_backend FN(backend) = {
    .arithmetic = FRNN_ARITHMETIC,
    .gate_width = frnn_gate_width,
    .part_units = FN(part_units),
    .pack_biases = FN(pack_biases),
    .apart = FN(rows_apart),
    .rows = FN(rows),
    .enter = frnn_enter,
    .leave = frnn_leave,
};
