/* The kernels of arrays of one instruction set, for both arithmetics. array_kernels.c defines FRNN_ISA and includes this
 * file.
 *
 *   FN(name)       what an arithmetic has: frnn_f32_map__avx2
 *   FRNN_TYPE      the type of its numbers in an array; FRNN_NUMBER, the member of frnn_number
 */
#define FRNN_NUMBER real

#define FN(name) FRNN_NAME(f32, name, FRNN_ISA)
#define FRNN_IS_F64 0
#define FRNN_TYPE FRNN_TYPE_FLOAT32
#define FRNN_ARITHMETIC "float32"
#include "array_arithmetic.inc.h"
#undef FRNN_ARITHMETIC
#undef FRNN_TYPE
#undef FRNN_IS_F64
#undef FN

#define FN(name) FRNN_NAME(f64, name, FRNN_ISA)
#define FRNN_IS_F64 1
#define FRNN_TYPE FRNN_TYPE_FLOAT64
#define FRNN_ARITHMETIC "float64"
#include "array_arithmetic.inc.h"
#undef FRNN_ARITHMETIC
#undef FRNN_TYPE
#undef FRNN_IS_F64
#undef FN

#undef FRNN_NUMBER

static const frnn_array_kernels *const FRNN_ARRAY_TABLES(FRNN_ISA)[] = {
    &FRNN_NAME(f32, array_table, FRNN_ISA),
    &FRNN_NAME(f64, array_table, FRNN_ISA),
    NULL,
};

#undef FRNN_ISA
#undef FRNN_REGISTERS
