/* The simd backend: isa.inc.h included once for every instruction set, between target pragmas. So no build flag is
 * needed, and the rest of the file stays at the compiler's baseline.
 *
 *   targets.h        what is needed of the compiler and the processor
 *   vectors.h        the words in which every formula is written
 *   functions.inc.h  exponentials, sigmoid, tanh
 *   row_functions.inc.h       what layers without products do
 *   gates.inc.h      the formulas of the cells
 *   layout.inc.h     how gates, biases and states lie
 *   arithmetic.inc.h these five for one arithmetic, and its table
 *   products.inc.h   sums of products; operands.inc.h: the rows that they read; packing.inc.h: the weights
 *   cells.inc.h      bundles and steps: products, then gates
 *   storage.inc.h    these four for one storage of weights, and its table
 *   bundles.h        panels and bundles; tuning.h: the constants that were found by trying
 */
#if defined(__GNUC__) && !defined(__clang__)
/* The products of a loop read memory in the order in which they are written here. Out of order they take up to 1.4
 * times as long, since the processor no longer sees one stream to prefetch. */
#pragma GCC optimize("no-schedule-insns2")
#elif defined(__clang__)
/* Clang says where it does not unroll a loop. The code is right either way. */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

#include "backend.h"

#include "bundles.h"
#include "narrow_numbers.h"
#include "targets.h"
#include "tiles.h"
#include "tuning.h"

#define FRNN_JOIN_PRODUCTS(isa) frnn_products__##isa
#define FRNN_PRODUCTS(isa) FRNN_JOIN_PRODUCTS(isa)
/* All products of a level: those of weights in the type of the arithmetic are an instruction set's. */
#define FRNN_LIST_PRODUCTS(level, isa, of_bfloat16, of_int8)          \
    static const frnn_products *const FRNN_PRODUCTS(level)[] = { \
        &FRNN_NAME(f32, products, isa),                          \
        &FRNN_NAME(f64, products, isa),                          \
        &FRNN_NAME(bf16, products, of_bfloat16),                 \
        &FRNN_NAME(s8, products, of_int8),                       \
        &FRNN_NAME(bf16x2, products, of_bfloat16),               \
        &FRNN_NAME(bf16x3, products, of_bfloat16),               \
        NULL,                                                    \
    };

/* ---------------------------------------------------------------- what all share */

/* For the time of a call, on this thread. Denormals are 0, since they make decaying states many times slower. Numbers
 * are rounded to the nearest and nothing traps, whatever the caller, or whoever started a worker, has set. */
static uint64_t frnn_enter(void)
{
#if defined(FRNN_X86)
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x9FC0); /* flush to zero, denormals are zero, all exceptions masked */
    return before;
#elif defined(FRNN_ARM)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)1 << 24)); /* flush to zero */
    return before;
#else
    return 0;
#endif
}

static void frnn_leave(uint64_t before)
{
#if defined(FRNN_AMX)
    if (frnn_tile_rows != 0)
        frnn_release_tiles();
#endif
#if defined(FRNN_X86)
    _mm_setcsr((unsigned)before);
#elif defined(FRNN_ARM)
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

/* ---------------------------------------------------------------- one block for each instruction set */

#define FRNN_ISA baseline
#define FRNN_REGISTERS 16
#define FRNN_SEGMENT 128
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 0
#define FRNN_PRODUCTS_PER_NS 4
#include "isa.inc.h"

#if defined(FRNN_X86)

FRNN_TARGET("avx2,fma")
#define FRNN_ISA_AVX2
#define FRNN_ISA avx2
#define FRNN_REGISTERS 16
#define FRNN_SEGMENT 256
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 48
#define FRNN_PRODUCTS_PER_NS 70
#include "isa.inc.h"
#undef FRNN_ISA_AVX2
FRNN_END_TARGET

FRNN_TARGET("avx2,fma,avxvnni")
#define FRNN_ISA_AVX2
#define FRNN_ISA avx2
#define FRNN_REGISTERS 16
#define FRNN_LEVEL avx2_vnni
#define FRNN_TILES 0
#define FRNN_VNNI 1
#define FRNN_OWN_BFLOAT16 0
#define FRNN_OWN_GATES 0
#define FRNN_S8_PER_NS 200
#include "narrow_storages.inc.h"
FRNN_LIST_PRODUCTS(avx2_vnni, avx2, avx2, avx2_vnni)
#undef FRNN_REGISTERS
#undef FRNN_ISA
#undef FRNN_ISA_AVX2
FRNN_END_TARGET

FRNN_TARGET("avx512f,avx512bw,avx512dq,avx512vl")
#define FRNN_ISA_AVX512
#define FRNN_ISA avx512
#define FRNN_REGISTERS 32
#define FRNN_SEGMENT 256
#define FRNN_LOCALITY 2
#define FRNN_INTERLEAVED 0
#define FRNN_PRODUCTS_PER_NS 70
#include "isa.inc.h"
#undef FRNN_ISA_AVX512
FRNN_END_TARGET

FRNN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#define FRNN_ISA_AVX512
#define FRNN_ISA avx512
#define FRNN_REGISTERS 32
#define FRNN_LEVEL avx512_vnni
#define FRNN_TILES 0
#define FRNN_VNNI 1
#define FRNN_OWN_BFLOAT16 0
#define FRNN_OWN_GATES 0
#define FRNN_S8_PER_NS 300
#include "narrow_storages.inc.h"
FRNN_LIST_PRODUCTS(avx512_vnni, avx512, avx512, avx512_vnni)
#undef FRNN_REGISTERS
#undef FRNN_ISA
#undef FRNN_ISA_AVX512
FRNN_END_TARGET

#if defined(FRNN_AMX)
FRNN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16,amx-int8")
#define FRNN_ISA_AVX512
#define FRNN_ISA avx512
#define FRNN_REGISTERS 32
#define FRNN_LEVEL amx
#define FRNN_TILES 1
#define FRNN_VNNI 1
#define FRNN_OWN_BFLOAT16 1
#define FRNN_OWN_GATES 0
#define FRNN_BF16_PER_NS 1000
#define FRNN_S8_PER_NS 1500
#include "narrow_storages.inc.h"
FRNN_LIST_PRODUCTS(amx, avx512, amx, amx)
#undef FRNN_REGISTERS
#undef FRNN_ISA
#undef FRNN_ISA_AVX512
FRNN_END_TARGET
#endif

#elif defined(FRNN_ARM)

#define FRNN_ISA_NEON
#define FRNN_ISA neon
#define FRNN_REGISTERS 32
#define FRNN_SEGMENT 128
#define FRNN_LOCALITY 3
#define FRNN_INTERLEAVED 0
#define FRNN_PRODUCTS_PER_NS 35
#include "isa.inc.h"
#undef FRNN_ISA_NEON

#endif

#define FRNN_ENTRY(isa, test) {#isa, test, NULL, FRNN_PRODUCTS(isa)}

/* From the plainest to the widest. */
const frnn_isa frnn_isas[] = {
    FRNN_ENTRY(baseline, frnn_always),
#if defined(FRNN_X86)
    FRNN_ENTRY(avx2, frnn_has_avx2),
    FRNN_ENTRY(avx2_vnni, frnn_has_avx2_vnni),
    FRNN_ENTRY(avx512, frnn_has_avx512),
    FRNN_ENTRY(avx512_vnni, frnn_has_avx512_vnni),
#if defined(FRNN_AMX)
    {"amx", frnn_has_amx, frnn_may_use_amx, FRNN_PRODUCTS(amx)},
#endif
#elif defined(FRNN_ARM)
    FRNN_ENTRY(neon, frnn_always),
#endif
    {0},
};
