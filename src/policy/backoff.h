/* backoff.h - how long to wait before the next attempt to connect: doubling, capped, with jitter. */
#ifndef IOK_POLICY_BACKOFF_H
#define IOK_POLICY_BACKOFF_H

#include <stdint.h>

#define IOK_BACKOFF_FIRST_NS UINT64_C(10000000) /* 10 ms: a restarted server is met again at once */
#define IOK_BACKOFF_CAP_NS UINT64_C(2000000000) /* 2 s: also how late a recovery is noticed at the worst */

struct iok_backoff {
    uint32_t failures; /* in a row */
};

/* One more failure: the delay, between half and the whole of the doubled step. */
static inline uint64_t iok_backoff_next(struct iok_backoff *backoff, uint64_t random)
{
    uint64_t step = IOK_BACKOFF_CAP_NS;

    if (backoff->failures < 8) { /* 10 ms * 2^8 > 2 s */
        step = IOK_BACKOFF_FIRST_NS << backoff->failures;
        step = step < IOK_BACKOFF_CAP_NS ? step : IOK_BACKOFF_CAP_NS;
        backoff->failures++;
    }
    return step / 2 + random % (step / 2);
}

static inline void iok_backoff_reset(struct iok_backoff *backoff)
{
    backoff->failures = 0;
}

#endif
