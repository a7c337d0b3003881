/* hist.h - a log-linear histogram of nanoseconds: 8 buckets to each power of two, so percentiles are within 7%. */
#ifndef IOK_BASE_HIST_H
#define IOK_BASE_HIST_H

#include <iokernel.h>

#include "count.h"

#define IOK_HIST_BITS 3u      /* 2^3 buckets a power of two: half of 1/8 is 6.25% */
#define IOK_HIST_BUCKETS 304u /* exact to 7 ns, then up to 2^40 ns = 18 minutes; longer goes to the last */

struct iok_hist {
    struct iok_count buckets[IOK_HIST_BUCKETS];
    struct iok_count max;
};

static inline uint32_t iok_hist_index(uint64_t ns)
{
    uint32_t top, index;

    if (ns < 8) {
        return (uint32_t)ns;
    }
    top = 63u - (uint32_t)__builtin_clzll(ns);
    index = ((top - IOK_HIST_BITS + 1) << IOK_HIST_BITS) + (uint32_t)((ns >> (top - IOK_HIST_BITS)) & 7u);
    return index < IOK_HIST_BUCKETS ? index : IOK_HIST_BUCKETS - 1;
}

/* One writer. */
static inline void iok_hist_add(struct iok_hist *hist, uint64_t ns)
{
    iok_count_own_add(&hist->buckets[iok_hist_index(ns)], 1);
    if (ns > iok_count_get(&hist->max)) {
        iok_count_set(&hist->max, ns);
    }
}

/* Many writers. The first that comes has counters of its own, as a bus lock waits for all that was written before it. */
struct iok_hist_shared {
    struct iok_count first; /* who that is */
    struct iok_hist own, others;
};

/* writer: the address of what the writing thread owns. */
static inline void iok_hist_shared_add(struct iok_hist_shared *hist, const void *writer, uint64_t ns)
{
    struct iok_hist *others = &hist->others;

    if (iok_count_claim(&hist->first, (uintptr_t)writer)) {
        iok_hist_add(&hist->own, ns);
        return;
    }
    iok_count_add(&others->buckets[iok_hist_index(ns)], 1);
    if (ns > iok_count_get(&others->max)) {
        iok_count_set(&others->max, ns); /* a lost race shows the second largest */
    }
}

/* Any thread. */
void iok_hist_read(const struct iok_hist *hist, struct iok_phase *out);
void iok_hist_shared_read(const struct iok_hist_shared *hist, struct iok_phase *out);

#endif
