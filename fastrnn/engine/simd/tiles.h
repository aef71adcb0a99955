/* The tiles of AMX: whether there are any, the permission to use them, and their configuration.
 *
 * The configuration belongs to a thread, and is lost in the child of a fork. It is loaded by the first product of a
 * thread's share of a call, again where the height of tiles changes, and released at the end of the share
 * (frnn_leave). Other code of the thread finds the configuration that it had. What its tiles held is lost, as the
 * calling convention has it.
 */
#ifndef FRNN_TILES_H
#define FRNN_TILES_H

#include "targets.h"

#if defined(FRNN_X86) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 14 : __GNUC__ >= 12)
#define FRNN_AMX 1
#include <sys/syscall.h>
#include <unistd.h>

/* Linux: arch/x86/include/uapi/asm/prctl.h, and Documentation/arch/x86/xstate.rst. */
#define FRNN_ARCH_REQ_XCOMP_PERM 0x1023
#define FRNN_XFEATURE_XTILEDATA 18

/* Bits of CPUID: leaf 7, and its subleaf 1. */
enum {
    FRNN_CPUID_AMX = 1 << 22 | 1 << 24 | 1 << 25, /* EDX: AMX-BF16, AMX-TILE, AMX-INT8 */
    FRNN_CPUID_AVX512_BF16 = 1 << 5               /* EAX of subleaf 1 */
};

static int frnn_has_amx(void)
{
    unsigned a, b, c, d, a1, b1, c1, d1;
    if (!frnn_has_avx512_vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1))
        return 0;
    return (d & FRNN_CPUID_AMX) == FRNN_CPUID_AMX && (a1 & FRNN_CPUID_AVX512_BF16) != 0;
}

/* Ask Linux for this process and its children. It refuses where a thread has a small alternate stack for signals. */
static int frnn_may_use_amx(void)
{
    return syscall(SYS_arch_prctl, FRNN_ARCH_REQ_XCOMP_PERM, FRNN_XFEATURE_XTILEDATA) == 0;
}

/* Memory is written before here, and read after: GCC's intrinsics of tiles do not say what they do with it. */
#define FRNN_WRITTEN() __asm__ volatile("" : : : "memory")

typedef struct frnn_tile_config {
    uint8_t palette, start, reserved[14]; /* palette 0: there is none */
    uint16_t bytes[16];
    uint8_t rows[16];
} frnn_tile_config;

/* The rows of the thread's tiles of rows and sums; 0: they are not configured. */
static __thread int frnn_tile_rows;
/* What other code had configured. */
static __thread frnn_tile_config frnn_tiles_before;

FRNN_TARGET("amx-tile")
static FRNN_OUTLINE void frnn_configure_tiles(int rows)
{
    frnn_tile_config config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {0}};
    if (frnn_tile_rows == 0)
        _tile_storeconfig(&frnn_tiles_before);
    for (int tile = 0; tile < 8; tile++)
        config.rows[tile] = tile < 6 ? (uint8_t)rows : 16; /* 4 sums, 2 of rows, 2 of weights */
    FRNN_WRITTEN();
    _tile_loadconfig(&config);
    frnn_tile_rows = rows;
}

static FRNN_OUTLINE void frnn_release_tiles(void)
{
    FRNN_WRITTEN();
    if (frnn_tiles_before.palette != 0)
        _tile_loadconfig(&frnn_tiles_before);
    else
        _tile_release();
    frnn_tile_rows = 0;
}
FRNN_END_TARGET

static FRNN_INLINE void frnn_need_tiles(int rows)
{
    if (frnn_tile_rows != rows)
        frnn_configure_tiles(rows);
}
#endif

#endif
