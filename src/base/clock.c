#include "clock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

bool iok_clock_is_trusted(void)
{
    static const char tsc[] = "tsc\n";
    char name[sizeof tsc] = "";
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return false;
    }
    n = read(fd, name, sizeof name);
    (void)close(fd);
    return iok_clock_ticks() != 0 && n == (ssize_t)(sizeof tsc - 1) && memcmp(name, tsc, sizeof tsc - 1) == 0;
}

/* Two measurements that agree make a rate: one alone may have met a machine that slept. */
static void measure(struct iok_clock *clock)
{
    uint64_t passed = clock->ns - clock->far_ns, ticks = clock->ticks - clock->far_ticks, last = clock->measured, off;

    if (clock->far_ns != 0 && ticks != 0) {
        clock->measured = (uint64_t)((double)passed / (double)ticks * 4294967296.0);
        off = clock->measured > last ? clock->measured - last : last - clock->measured;
        clock->rate = off <= clock->measured / 512 ? clock->measured - clock->measured / 256 : 0;
    }
    clock->far_ns = clock->ns;
    clock->far_ticks = clock->ticks;
}

void iok_clock_looked(struct iok_clock *clock, uint64_t before, uint64_t ns, uint64_t after)
{
    if (!clock->trusted || after - before >= IOK_CLOCK_STRETCH_TICKS) {
        return; /* the thread was set aside meanwhile: nobody knows when in between it looked */
    }
    clock->ticks = after;
    clock->ns = ns;
    if (ns - clock->far_ns >= IOK_CLOCK_MEASURE_NS) {
        measure(clock);
    }
}
