/* Code of other libraries that uses the tiles of AMX, for test_tiles.py: in a thread, and in handlers of signals. */
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <immintrin.h>

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} config;

static config config_of(int rows)
{
    config wanted = {0};
    if (rows == 0)
        return wanted;
    wanted.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        wanted.bytes[tile] = 32;
        wanted.rows[tile] = (uint8_t)rows;
    }
    return wanted;
}

/* 0 is the system's permission. */
int permit(void)
{
    return (int)syscall(SYS_arch_prctl, 0x1023, 18);
}

/* Tiles of this many rows; 0: none. */
__attribute__((target("amx-tile"))) void configure(int rows)
{
    const config wanted = config_of(rows);
    __asm__ volatile("" : : : "memory");
    if (rows == 0)
        _tile_release();
    else
        _tile_loadconfig(&wanted);
}

/* Whether the thread's tiles are as `configure` left them. */
__attribute__((target("amx-tile"))) int is_configured(int rows)
{
    const config wanted = config_of(rows);
    config found;
    _tile_storeconfig(&found);
    __asm__ volatile("" : : : "memory");
    return memcmp(&found, &wanted, sizeof found) == 0;
}

static volatile int handled;

/* A handler with tiles of its own, which are gone when it returns. */
__attribute__((target("amx-tile"))) static void use_tiles(int number)
{
    static const uint8_t from[16 * 32];
    (void)number;
    configure(1 + handled % 16);
    _tile_loadd(3, from, 32);
    if (handled % 2)
        configure(0);
    handled++;
}

/* Call it every this many microseconds; 0: no longer. */
void interrupt(int microseconds)
{
    const struct sigaction action = {.sa_handler = use_tiles, .sa_flags = SA_RESTART};
    const struct itimerval every = {{0, microseconds}, {0, microseconds}};
    if (microseconds)
        sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
}

int times_handled(void)
{
    return handled;
}
