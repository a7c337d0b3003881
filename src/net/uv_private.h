/* uv_private.h - what the files of the real driver share with each other, and nobody else includes.
 *
 *     uv.c       the loop, turns, deferred work, the end        sock.c  one non-blocking socket, watched
 *     link.c     a connection, plain or TLS                     tls.c   bytes in, bytes out: no socket
 *     connect.c  the race of addresses before it (RFC 8305)     dns.c   look-ups
 *     door.c     a listening socket, and the links it brings
 *
 * Invariants of all of them:
 * - Nothing belongs to a thread: whoever runs the turn owns everything for that long.
 * - No event is called from inside a function that the core calls. What such a function finds out (an attempt that
 *   fails at once, a broken connection, an answer from the hosts file) becomes work, which a later turn does.
 * - A closed object is only moved to the list of the dead. The end of a turn frees them, so callers up the stack may
 *   look at their state after any event. libuv's handles are freed by their own close callbacks. */
#ifndef IOK_NET_UV_PRIVATE_H
#define IOK_NET_UV_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "../base/list.h"
#include "../base/mem.h"
#include "uv.h"

/* ---- the driver -------------------------------------------------------------------------------------------------- */

/* Two TLS records (RFC 8446 5.2: 16 KiB and 256 bytes each) less their overhead; more gains little, as a record is
 * decrypted at a time. */
#define IOK_UV_SCRATCH_BYTES 32768u

/* Something that a later turn does. While work is queued no turn blocks. */
struct iok_work {
    struct iok_node node;
    void (*run)(struct iok_work *work);
};

struct iok_uv {
    struct iok_net base; /* first */
    uv_loop_t loop;
    uv_poll_t wake;
    void (*woken)(void *arg);
    void *woken_arg;
    uv_timer_t deadline;
    uint64_t deadline_ms;    /* what the timer is set to, in the loop's time; 0: not running */
    struct iok_list links;   /* alive */
    struct iok_list queries; /* alive */
    struct iok_list doors;   /* alive */
    struct iok_list dead;    /* links to free at the end of the turn */
    struct iok_list work;
    uint32_t objects;                      /* links and queries not freed yet */
    uint64_t random;                       /* state of the generator */
    char *dns_servers;                     /* of the environment; NULL: as the system says */
    bool running;                          /* inside uv_run */
    bool unflushed;                        /* a watcher changed, and libuv has not told epoll yet */
    bool forgotten;                        /* after fork: the peers must not hear of the end */
    bool stuck;                            /* forgotten, and libuv's part could not be closed */
    int outer_fd, outer_timer_fd;          /* see iok_uv_backend_fd */
    bool outer_armed;                      /* that timer is set */
    uint8_t scratch[IOK_UV_SCRATCH_BYTES]; /* for the moment: TLS bytes just read */
};

/* Queues work once, however often it is asked for. */
void iok_work_add(struct iok_uv *net, struct iok_work *work);

/* ---- sock.c ------------------------------------------------------------------------------------------------------ */

/* A socket, connecting or connected. Alive from connect to close. */
struct iok_sock {
    uv_poll_t poll;
    struct iok_uv *net;
    int fd;
    int watched;  /* UV_READABLE, UV_WRITABLE or both; 0: nothing */
    bool keep_fd; /* it is somebody else's */
    /* Events of watched are ready. failed: an error is pending, and reading and writing will say which; the watch has
     * ended and must be set anew. */
    void (*ready)(void *owner, int events, bool failed);
    void *owner;
};

/* Starts to connect, and watches for UV_WRITABLE, which comes when it is connected or failed. 0 or -errno. */
int iok_sock_connect(struct iok_uv *net, const struct iok_address *address,
                     void (*ready)(void *owner, int events, bool failed), void *owner, struct iok_sock **out);
/* Of TCP, those that are only for the better: a kernel without one of them still connects. On Linux what is accepted has
 * those of the listening socket. */
void iok_sock_set_options(int fd);
/* Watches a descriptor that is connected, or listens: for nothing at first. It becomes the sock's, but of keep_fd: then
 * closing the sock leaves it open. 0 or -errno, and then it is still the caller's. */
int iok_sock_open(struct iok_uv *net, int fd, bool keep_fd, void (*ready)(void *owner, int events, bool failed),
                  void *owner, struct iok_sock **out);
/* After UV_WRITABLE: 0 connected, -EINPROGRESS not yet, else -errno of the failure. */
int iok_sock_connected(const struct iok_sock *sock, const struct iok_address *address);
/* Hands it to another owner. */
void iok_sock_pass(struct iok_sock *sock, void (*ready)(void *owner, int events, bool failed), void *owner);
void iok_sock_watch(struct iok_sock *sock, int events);
/* Bytes taken, 0 when none can be taken now, or -errno. Raises no signal. */
ptrdiff_t iok_sock_send(const struct iok_sock *sock, const struct iovec *vec, int n);
/* Bytes read, 0 at the end, -EAGAIN when there is nothing, or -errno. */
ptrdiff_t iok_sock_recv(const struct iok_sock *sock, uint8_t *at, size_t n);
/* The pending error: 0 or -errno. Asking clears it. */
int iok_sock_error(const struct iok_sock *sock);
/* No more bytes will be sent. */
void iok_sock_shut(const struct iok_sock *sock);
/* The descriptor closes at once. */
void iok_sock_close(struct iok_sock *sock);

#define IOK_REASON_MAX 64u
/* "connection refused" for -ECONNREFUSED. Returns at. */
const char *iok_sock_reason(int error, char at[IOK_REASON_MAX]);

/* ---- connect.c --------------------------------------------------------------------------------------------------- */

struct iok_race;

/* NULL when out of memory. Ends with iok_link_won (perhaps in a later turn) or iok_link_lost (perhaps at once), unless
 * it is closed before; it needs to be closed in every case. */
struct iok_race *iok_race_new(struct iok_uv *net, struct iok_link *link, const struct iok_target *target);
void iok_race_start(struct iok_race *race);
void iok_race_close(struct iok_race *race);

/* ---- link.c ------------------------------------------------------------------------------------------------------ */

/* The race has a winner: sock is the link's now. */
void iok_link_won(struct iok_link *link, struct iok_sock *sock, const struct iok_address *address);
void iok_link_lost(struct iok_link *link, const struct iok_error *err);

/* A link of a connection that was accepted; NULL when out of memory, and then fd is still the caller's. It is nobody's
 * until it is adopted, and closed by iok_link_begin if it was not. */
struct iok_link *iok_link_accepted(struct iok_uv *net, int fd, const struct iok_address *address, struct iok_tls *tls);
void iok_link_begin(struct iok_link *link);
void iok_link_adopt(struct iok_link *link, const struct iok_link_events *events, void *owner);
void iok_link_shut(struct iok_link *link);

struct iok_link *iok_link_open(struct iok_net *net, const struct iok_target *target,
                               const struct iok_link_events *events, void *owner, struct iok_error *err);
ptrdiff_t iok_link_send(struct iok_link *link, const struct iovec *vec, int n);
void iok_link_want_read(struct iok_link *link, bool on);
size_t iok_link_binding(struct iok_link *link, uint8_t at[IOK_BINDING_BYTES_MAX]);
void iok_link_close(struct iok_link *link);
/* End of a turn: frees the closed ones. */
void iok_links_reap(struct iok_uv *net);
/* Closes all. */
void iok_links_close(struct iok_uv *net);

/* ---- door.c ------------------------------------------------------------------------------------------------------ */

int iok_door_bind(const struct iok_bind *what, struct iok_address *bound, struct iok_error *err);
void iok_door_unbind(int fd, const char *path);
struct iok_door *iok_door_open(struct iok_net *net, int fd, struct iok_tls *tls, const struct iok_door_events *events,
                               void *owner, struct iok_error *err);
void iok_door_want(struct iok_door *door, bool on);
void iok_door_secure(struct iok_door *door, struct iok_tls *tls);
void iok_door_close(struct iok_door *door);
void iok_doors_close(struct iok_uv *net);

#endif
