/* Weights in the type of the arithmetic. */
#define FRNN_HAS_LONE 1
#include "products.inc.h"
#include "operands.inc.h"
#include "packing.inc.h"
