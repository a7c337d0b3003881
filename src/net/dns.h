/* dns.h - look-ups of names through c-ares, for the real driver. */
#ifndef IOK_NET_DNS_H
#define IOK_NET_DNS_H

#include "uv_private.h"

/* Names a DNS server to ask instead of the system's: "127.0.0.1:5353", several with commas. For tests and special
 * set-ups; read once, when the driver is made. The hosts file still comes first. */
#define IOK_DNS_ENVIRONMENT "IOKERNEL_DNS"

/* The slots resolve and cancel of struct iok_net_ops. */
struct iok_query *iok_query_new(struct iok_net *net, const char *host, uint16_t port, iok_resolved_fn *done,
                                void *owner, struct iok_error *err);
void iok_query_cancel(struct iok_query *query);
/* Cancels all. */
void iok_queries_cancel(struct iok_uv *net);

#endif
