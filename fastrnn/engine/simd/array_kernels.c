/* Kernels of arrays: array_isa.inc.h included once for every instruction set, between target pragmas, and what is the
 * same for all of them.
 *
 *   targets.h                what is needed of the compiler
 *   array_arithmetic.inc.h   the parts of one arithmetic
 *   array_vectors.inc.h      words beside those of vectors.h
 *   array_functions.inc.h    exponentials, logarithms, erf, activations
 *   map_operations.inc.h     the operations of maps; map.inc.h: maps
 *   reduce.inc.h             sums and the like
 *   windows.inc.h            depthwise convolutions, pools, the rows of a convolution as a product
 *   matmul.inc.h             products of two arrays
 *   integer_operations.inc.h, integer_reduce.inc.h    the same for whole numbers
 */
#include "array_kernels.h"
#include "targets.h"

#define FRNN_JOIN_ARRAY_TABLES(isa) frnn_array_tables__##isa
#define FRNN_ARRAY_TABLES(isa) FRNN_JOIN_ARRAY_TABLES(isa)

static inline uint32_t frnn_bits_f32(float a)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}

static inline float frnn_of_bits_f32(uint32_t bits)
{
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline uint64_t frnn_bits_f64(double a)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}

static inline double frnn_of_bits_f64(uint64_t bits)
{
    double a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

/* ---------------------------------------------------------------- whole numbers, and bytes */

#define FN(name) FRNN_NAME(i64, name, whole)
#define T int64_t
#define VL 1
#define FRNN_TYPE FRNN_TYPE_INT64
#define FRNN_NUMBER whole
#include "integer_operations.inc.h"
#include "map.inc.h"
#include "fetch.inc.h"
#include "integer_reduce.inc.h"
#undef FRNN_NUMBER
#undef FRNN_TYPE
#undef FN

static inline int64_t frnn_index_at(frnn_type type, const char *at)
{
    int64_t whole;
    int32_t narrow;
    if (type == FRNN_TYPE_INT32) {
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    }
    memcpy(&whole, at, sizeof whole);
    return whole;
}

/* The widths that elements and small rows have are constants, so that they are moves. */
static inline void frnn_copy(char *to, const char *from, ptrdiff_t bytes)
{
    if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, (size_t)bytes);
}

static void frnn_gather_rows_by_number(const frnn_gather *what, const char *table, const char *index, char *out)
{
    for (ptrdiff_t i = 0; i < what->outer; i++)
        for (ptrdiff_t j = 0; j < what->count; j++)
            for (ptrdiff_t k = 0; k < what->inner; k++) {
                const char *at = index + i * what->index_outer + j * what->index_axis + k * what->index_inner;
                int64_t row = frnn_index_at(what->index_type, at);
                row = row < 0 ? row + what->size : row;
                row = row < 0 ? 0 : row >= what->size ? what->size - 1 : row;
                frnn_copy(out + i * what->out_outer + j * what->out_axis + k * what->out_inner,
                          table + i * what->table_outer + row * what->table_axis + k * what->table_inner,
                          what->bytes);
            }
}

/* ---------------------------------------------------------------- one block for each instruction set */

#define FRNN_ISA baseline
#define FRNN_REGISTERS 16
#include "array_isa.inc.h"

#if defined(FRNN_X86)

FRNN_TARGET("avx2,fma")
#define FRNN_ISA_AVX2
#define FRNN_ISA avx2
#define FRNN_REGISTERS 16
#include "array_isa.inc.h"
#undef FRNN_ISA_AVX2
FRNN_END_TARGET

FRNN_TARGET("avx512f,avx512bw,avx512dq,avx512vl")
#define FRNN_ISA_AVX512
#define FRNN_ISA avx512
#define FRNN_REGISTERS 32
#include "array_isa.inc.h"
#undef FRNN_ISA_AVX512
FRNN_END_TARGET

#elif defined(FRNN_ARM)

#define FRNN_ISA_NEON
#define FRNN_ISA neon
#define FRNN_REGISTERS 32
#include "array_isa.inc.h"
#undef FRNN_ISA_NEON

#endif

/* ---------------------------------------------------------------- the tables */

#define FRNN_ENTRY(isa, test) {#isa, test, FRNN_ARRAY_TABLES(isa)}

const frnn_array_isa frnn_array_isas[] = {
    FRNN_ENTRY(baseline, frnn_always),
#if defined(FRNN_X86)
    FRNN_ENTRY(avx2, frnn_has_avx2),
    FRNN_ENTRY(avx512, frnn_has_avx512),
#elif defined(FRNN_ARM)
    FRNN_ENTRY(neon, frnn_always),
#endif
    {0},
};

#define FRNN_MAP_NAME(name) #name,
const char *const frnn_map_names[] = {FRNN_MAP_OPERATIONS(FRNN_MAP_NAME) NULL};
const char *const frnn_integer_names[] = {FRNN_INTEGER_OPERATIONS(FRNN_MAP_NAME) NULL};
