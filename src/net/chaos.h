/* chaos.h - a driver that wraps another one and hurts what passes through, by chance and by a seed. For tests only.
 *
 * Chosen by a text of options, `seed=7,partial=0.3,reset_after=1000`; what is not named does not happen:
 *
 *     seed=N              repeats the same choices for the same events; else one from the driver below
 *     partial=P           a send accepts only some of its bytes; P is a probability from 0 to 1
 *     refuse=P            a send accepts nothing
 *     stall=TIME          until such a send may go on: a random time up to this (default 1ms)
 *     pieces=N            arrived bytes are delivered in pieces of 1 to N bytes, some of them a turn later
 *     delay=TIME          arrived bytes wait for a random time up to this
 *     reset_after=N       each connection is reset after a random number of bytes, 1 to N, sent and received together
 *     reset_sent=N        each connection is reset when exactly N bytes were sent
 *     reset_received=N    ... when exactly N bytes were delivered
 *     connect_fail=P      an attempt to connect fails
 *     connect_delay=TIME  it takes longer by a random time up to this
 *     resolve_fail=P      a look-up fails
 *     resolve_delay=TIME  it takes longer
 *
 * TIME is written as in URLs: 250ms, 2s. Names of faults stand in errors after "chaos:". */
#ifndef IOK_NET_CHAOS_H
#define IOK_NET_CHAOS_H

#include "net.h"

/* What was done so far. */
struct iok_chaos_counts {
    uint64_t partial, refused, pieces, delayed, resets, connects, resolves;
};

/* A driver on top of under, which must outlive it. NULL with *err: IOK_EOPTION names what is wrong with the options. */
struct iok_net *iok_chaos_new(struct iok_net *under, const char *options, struct iok_error *err);
/* Frees what is its own, without a word to the driver below, which closes its own links and queries; so it is also
 * what the child does after fork. */
void iok_chaos_free(struct iok_net *net);
/* Does what is due; call it before each turn of the driver below. Until when that turn may wait: 0 for not at all,
 * because events were told, or UINT64_MAX. */
uint64_t iok_chaos_run(struct iok_net *net);
void iok_chaos_counts(const struct iok_net *net, struct iok_chaos_counts *out);

#endif
