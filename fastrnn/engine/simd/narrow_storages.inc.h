/* The narrow storages of float32 for one level: an instruction set, or one and what some of its processors add.
 *
 *   FRNN_LEVEL                 its name
 *   FRNN_TILES, FRNN_VNNI      whether it has them (tiles.h, int8.inc.h)
 *   FRNN_BF16_PER_NS           multiply-adds of bfloat16 in a ns, where it has its own; FRNN_S8_PER_NS: of int8
 *   FRNN_OWN_BFLOAT16          0: bfloat16 is that of the instruction set
 *   FRNN_OWN_GATES             0: so are the gates
 */
#define FN(name) FRNN_NAME(f32, name, FRNN_ISA)
#undef FRNN_IS_F64
#define FRNN_IS_F64 0
#include "vectors.h"

#define GN(name) FRNN_NAME(coarse, name, FRNN_ISA)
#if FRNN_OWN_GATES
#include "coarse_functions.inc.h"
#include "gates.inc.h"
#endif

#if FRNN_OWN_BFLOAT16
#define WN(name) FRNN_NAME(bf16, name, FRNN_LEVEL)
#define W uint16_t
#define FRNN_PARTS 1
#define FRNN_FORMAT {FRNN_STORED_BF16, 2}
#define FRNN_RATES {FRNN_BF16_PER_NS, FRNN_BF16_PER_NS, 110, 60}
#define FRNN_STORAGE_FILE "bfloat16.inc.h"
#include "storage.inc.h"
#endif

#define WN(name) FRNN_NAME(s8, name, FRNN_LEVEL)
#define W int8_t
#define FRNN_FORMAT {FRNN_STORED_S8, 4}
#define FRNN_RATES {FRNN_S8_PER_NS, FRNN_S8_PER_NS, 110, 60}
#define FRNN_STORAGE_FILE "int8.inc.h"
#include "storage.inc.h"

/* The next ones err so little that their gates are float32's. */
#undef GN
#define GN(name) FN(name)
#if FRNN_OWN_BFLOAT16
#define WN(name) FRNN_NAME(bf16x2, name, FRNN_LEVEL)
#define W uint16_t
#define FRNN_PARTS 2
#define FRNN_FORMAT {FRNN_STORED_BF16X2, 2}
#define FRNN_RATES {FRNN_BF16_PER_NS / 3.0, FRNN_BF16_PER_NS / 3.0, 110, 60}
#define FRNN_STORAGE_FILE "bfloat16.inc.h"
#include "storage.inc.h"

#define WN(name) FRNN_NAME(bf16x3, name, FRNN_LEVEL)
#define W uint16_t
#define FRNN_PARTS 3
#define FRNN_FORMAT {FRNN_STORED_BF16X3, 2}
#define FRNN_RATES {FRNN_BF16_PER_NS / 6.0, FRNN_BF16_PER_NS / 6.0, 110, 60}
#define FRNN_STORAGE_FILE "bfloat16.inc.h"
#include "storage.inc.h"
#endif

#undef FN
#undef GN
#undef FRNN_IS_F64
#undef FRNN_LEVEL
#undef FRNN_TILES
#undef FRNN_VNNI
#undef FRNN_BF16_PER_NS
#undef FRNN_S8_PER_NS
#undef FRNN_OWN_BFLOAT16
#undef FRNN_OWN_GATES
