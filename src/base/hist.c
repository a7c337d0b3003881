#include "hist.h"

/* The middle of a bucket. */
static uint64_t value_of(uint32_t index)
{
    uint32_t shift;

    if (index < 8) {
        return index;
    }
    shift = (index >> IOK_HIST_BITS) - 1;
    return ((UINT64_C(8) + (index & 7u)) << shift) + ((UINT64_C(1) << shift) >> 1);
}

/* Of one histogram, or of two together. */
static void read(const struct iok_hist *hist, const struct iok_hist *more, struct iok_phase *out)
{
    uint64_t counts[IOK_HIST_BUCKETS];
    uint64_t seen = 0, max = more == NULL ? 0 : iok_count_get(&more->max);

    *out = (struct iok_phase){.max_ns = iok_count_get(&hist->max)};
    out->max_ns = out->max_ns > max ? out->max_ns : max;
    for (uint32_t i = 0; i < IOK_HIST_BUCKETS; i++) {
        counts[i] = iok_count_get(&hist->buckets[i]) + (more == NULL ? 0 : iok_count_get(&more->buckets[i]));
        out->count += counts[i];
    }
    for (uint32_t i = 0; i < IOK_HIST_BUCKETS && out->count != 0; i++) {
        uint64_t before = seen;

        seen += counts[i];
        if (before * 2 < out->count && seen * 2 >= out->count) {
            out->p50_ns = value_of(i);
        }
        if (before * 100 < out->count * 99 && seen * 100 >= out->count * 99) {
            out->p99_ns = value_of(i);
        }
    }
    /* The middle of the largest value's bucket may lie above it. */
    out->p50_ns = out->p50_ns < out->max_ns ? out->p50_ns : out->max_ns;
    out->p99_ns = out->p99_ns < out->max_ns ? out->p99_ns : out->max_ns;
}

void iok_hist_read(const struct iok_hist *hist, struct iok_phase *out)
{
    read(hist, NULL, out);
}

void iok_hist_shared_read(const struct iok_hist_shared *hist, struct iok_phase *out)
{
    read(&hist->own, &hist->others, out);
}
