/* clock.h - the time between two looks at the clock, by the processor's counter.
 *
 * A look at the system's monotonic clock costs some 25 ns, and a program that makes a million calls a second looks twice
 * for each. The counter costs 10, so shortly after a look the time is that look's, and what the counter says on top.
 *
 * Not a clock of its own: a stretch is 2^15 ticks at most (about 12 microseconds), and the rate is measured again and again
 * between looks. A reading is never ahead of the system's clock, and behind it by 1/256 of the stretch, and the length
 * of a look. Where the counter cannot be trusted, each reading is a look. One thread at a time uses it. */
#ifndef IOK_BASE_CLOCK_H
#define IOK_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define IOK_CLOCK_STRETCH_TICKS 32768u
#define IOK_CLOCK_MEASURE_NS 10000000u /* the rate is measured over so long a time at least */

struct iok_clock {
    bool trusted;               /* iok_clock_is_trusted */
    uint64_t rate;              /* ns a tick, times 2^32, and a little less; 0: not known */
    uint64_t ticks, ns;         /* of the last look */
    uint64_t measured;          /* the rate as it was measured last */
    uint64_t far_ticks, far_ns; /* since when it is measured now */
};

/* Whether the system itself reckons by the counter, so that it is even and the same on all processors. */
bool iok_clock_is_trusted(void);

static inline uint64_t iok_clock_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
}

/* The time at ticks; 0: look. */
static inline uint64_t iok_clock_at(const struct iok_clock *clock, uint64_t ticks)
{
    uint64_t passed = ticks - clock->ticks;

    return clock->rate != 0 && passed < IOK_CLOCK_STRETCH_TICKS ? clock->ns + (passed * clock->rate >> 32) : 0;
}

/* A look gave ns; before and after are the ticks around it. */
void iok_clock_looked(struct iok_clock *clock, uint64_t before, uint64_t ns, uint64_t after);

#endif
