/* uv.h - the real driver: libuv for the loop, own non-blocking sockets on its pollers, OpenSSL and c-ares. */
#ifndef IOK_NET_UV_H
#define IOK_NET_UV_H

#include "net.h"

/* A driver with a loop of its own; NULL with *err. wake_fd is watched: when it polls readable woken(arg) runs (which
 * reads it). seed 0: from the system. */
struct iok_net *iok_uv_new(int wake_fd, void (*woken)(void *arg), void *arg, uint64_t seed, struct iok_error *err);
/* Closes every link and query without events, then frees. */
void iok_uv_free(struct iok_net *net);
/* One turn of the loop: waits for an event until deadline_ns (monotonic; 0: does not wait; UINT64_MAX: for ever),
 * and runs what is ready. Returns at the latest just after the deadline; earlier returns are allowed. */
void iok_uv_turn(struct iok_net *net, uint64_t deadline_ns);
/* Polls readable when a turn would find something to do. Ask anew before each poll: only that takes account of what
 * was asked for since the last turn. */
int iok_uv_backend_fd(struct iok_net *net);
/* Links and queries alive, those being closed included. */
uint32_t iok_uv_objects(const struct iok_net *net);
/* In the child after fork: closes the child's copies of all descriptors, without a word to any peer and without
 * touching what the parent watches with. Calls neither OpenSSL nor any event. The parent must have forked between two
 * turns, or while a turn slept. All that can be done with the driver then is to free its memory, at any later time, by
 * iok_uv_free_forgotten. */
void iok_uv_forget(struct iok_net *net);
void iok_uv_free_forgotten(struct iok_net *net);

#endif
