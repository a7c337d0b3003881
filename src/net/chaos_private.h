/* chaos_private.h - what chaos.c and chaos_options.c share. */
#ifndef IOK_NET_CHAOS_PRIVATE_H
#define IOK_NET_CHAOS_PRIVATE_H

#include "chaos.h"

#define CHANCE_ONE 1000000u /* probabilities are counted in millionths */
#define NS_PER_MS 1000000u
#define HOUR_NS (UINT64_C(3600000) * NS_PER_MS)

struct iok_chaos_options {
    uint64_t seed;
    uint64_t partial, refuse, connect_fail, resolve_fail; /* in millionths */
    uint64_t stall, delay, connect_delay, resolve_delay;  /* ns */
    uint64_t pieces, reset_after, reset_sent, reset_received;
};

/* 0, or IOK_EOPTION with *err. */
int iok_chaos_parse(struct iok_chaos_options *options, const char *text, struct iok_error *err);

#endif
