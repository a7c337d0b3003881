/* iokernel.h - the public C API of the I/O kernel.
 *
 * One thread, the kernel, does all network I/O of a process. The program talks to it by messages only:
 * it builds a call, submits it on a port, and picks the call up again when it has ended.
 *
 *     struct iok_error err;
 *     struct iok_kernel *k = iok_kernel_new(NULL, &err);
 *     struct iok_port *p = iok_port_new(k, &err);
 *     struct iok_service *s = iok_service_new(p, "redis://127.0.0.1:6379", &err);
 *     struct iok_call *c = iok_call_new(p, s, &err);
 *     iok_call_text(c, "PING", 4);
 *     iok_submit(c);
 *     iok_wait_call(c, -1);
 *     ... iok_call_outcome(c), iok_call_reply(c, &n) ...
 *     iok_call_free(c);
 *
 * Thread rules: a port, and every call, lease and stream made on it, belongs to the one thread that uses it (the
 * owner: the thread that made it, see iok_port_adopt). Services and kernels may be used from any thread. Functions
 * never block unless their comment says so. No function may be called from a signal handler.
 *
 * fork() is a non-event. The parent goes on. In the child kernels, services, and the ports of the forking thread work as
 * before, on a thread and connections of the child's own, which are made at the first use. Calls that were under way
 * end there as IOK_MAYBE_EXECUTED with IOK_EFORKED, since the parent may run them; so does every call on a lease that had
 * a connection, as IOK_NEVER_SENT. Ports of other threads return IOK_EFORKED; they can be freed. In the child of a fork by
 * a signal handler that interrupted one of these functions, as ever with threads, only exec and _exit are safe.
 *
 * Errors: 0 is success, a positive value an expected outcome, a negative value one of enum iok_errno. */
#ifndef IOKERNEL_H
#define IOKERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IOK_VERSION_MAJOR 0
#define IOK_VERSION_MINOR 1
#define IOK_VERSION_PATCH 0
#define IOK_API __attribute__((visibility("default")))

/* ---- errors ------------------------------------------------------------------------------------------------- */

/* name, value, what it means. Values are stable. */
#define IOK_ERRORS(X)                                                                                                  \
    X(IOK_ENOMEM, -1, "out of memory")                                                                                 \
    X(IOK_EINVAL, -2, "invalid argument")                                                                              \
    X(IOK_EURL, -3, "bad service URL")                                                                                 \
    X(IOK_EOPTION, -4, "unknown or bad option")                                                                        \
    X(IOK_ETYPE, -5, "value of a type that the protocol cannot carry")                                                 \
    X(IOK_ELIMIT, -6, "over a size or nesting limit")                                                                  \
    X(IOK_EOVERLOAD, -7, "too many calls")                                                                             \
    X(IOK_ECLOSED, -8, "closed")                                                                                       \
    X(IOK_ETHREAD, -9, "used from a thread that does not own it")                                                      \
    X(IOK_EFORKED, -10, "belongs to the parent process")                                                               \
    X(IOK_ECANCELLED, -11, "cancelled")                                                                                \
    X(IOK_ETIMEOUT, -12, "deadline passed")                                                                            \
    X(IOK_ERESOLVE, -13, "name does not resolve")                                                                      \
    X(IOK_EREFUSED, -14, "connection refused")                                                                         \
    X(IOK_ECONNECT, -15, "cannot connect")                                                                             \
    X(IOK_ETLS, -16, "TLS failure")                                                                                    \
    X(IOK_EAUTH, -17, "sign-in refused")                                                                               \
    X(IOK_EPROTO, -18, "the peer broke the protocol")                                                                  \
    X(IOK_ERESET, -19, "connection lost")                                                                              \
    X(IOK_EUNSAFE, -20, "command is not safe on this connection")                                                      \
    X(IOK_ESTATE, -21, "not possible in this state")                                                                   \
    X(IOK_ESYSTEM, -22, "system call failed")                                                                          \
    X(IOK_EINTR, -23, "interrupted by a signal")

enum iok_errno {
#define IOK_ERRNO_(name, value, text) name = value,
    IOK_ERRORS(IOK_ERRNO_)
#undef IOK_ERRNO_
};

/* A failure and its birthplace. text is a whole sentence fragment for people, without secrets or argument values. */
struct iok_error {
    int code;         /* enum iok_errno */
    int line;         /* where in iokernel's source it arose */
    const char *file; /* static */
    char text[240];
};

/* "IOK_EURL" for IOK_EURL; "unknown" for any other number. Static. */
IOK_API const char *iok_errno_name(int code);
/* The third column of the list above. Static. */
IOK_API const char *iok_errno_text(int code);
/* "0.1.0", of the library that is running. Static. */
IOK_API const char *iok_version(void);

/* How a call ended: the same four for every protocol. */
enum iok_outcome {
    IOK_PENDING = 0,    /* not ended yet */
    IOK_DONE,           /* there is a reply (which may be an error that the server reports) */
    IOK_NEVER_SENT,     /* the server cannot have run it */
    IOK_MAYBE_EXECUTED, /* it was sent and no reply came: the server may have run it, or may still */
    IOK_REJECTED,       /* the server says that it did not run it; the reply says why */
};
/* "done", "never-sent", "maybe-executed", "rejected", "pending". Static. */
IOK_API const char *iok_outcome_name(enum iok_outcome outcome);

/* ---- tapes -------------------------------------------------------------------------------------------------- */

enum iok_type {
    IOK_NULL = 1,
    IOK_BOOL,      /* i is 0 or 1 */
    IOK_I64,       /* i */
    IOK_F64,       /* f */
    IOK_BYTES,     /* p, len: octets */
    IOK_TEXT,      /* p, len: text; UTF-8 unless the peer lies */
    IOK_DECIMAL,   /* p, len: a number too large or too exact for i64 and f64, in ASCII digits */
    IOK_TIMESTAMP, /* i: microseconds since 1970-01-01 00:00 UTC */
    IOK_ARRAY,     /* len elements follow, each a whole value */
    IOK_MAP,       /* len pairs follow: key, value */
    IOK_SET,       /* len elements follow */
    IOK_PUSH,      /* len elements follow: an out-of-band message of a stream */
    IOK_ATTR,      /* len pairs follow, then the value that they describe */
    IOK_ERROR,     /* p, len: an error that the server reports, as it words it */
    IOK_DROPPED,   /* i: so many messages of a stream were dropped here, as the program was slow (slow_consumer=drop) */
};

/* Subtypes that mean the same in every protocol: what kind of value a token of that type is. */
enum iok_kind {
    IOK_KIND_LOCAL = 0xff00, /* TIMESTAMP: of a calendar and clock without a zone */
    IOK_KIND_DATE = 0xff01,  /* TIMESTAMP: a day, at its midnight */
    IOK_KIND_TIME = 0xff02,  /* TIMESTAMP: time of day, microseconds since midnight */
    IOK_KIND_UUID = 0xff03,  /* BYTES: 16 of them */
    IOK_KIND_EXACT = 0xff04, /* DECIMAL: of a type with decimal places, even where it has none; or NaN, Infinity */
    /* Integers in what follows are big-endian, of two's complement. */
    IOK_KIND_TIMETZ = 0xff05,     /* BYTES, 12: microseconds since midnight (8), seconds east of UTC (4) */
    IOK_KIND_INTERVAL = 0xff06,   /* BYTES, 16: microseconds (8), days (4), months (4) */
    IOK_KIND_INET = 0xff07,       /* BYTES, 4 or 16: an IP address; 5 or 17: then the length of its network's prefix */
    IOK_KIND_NETWORK = 0xff08,    /* BYTES, 5 or 17: an IP network and the length of its prefix */
    IOK_KIND_RANGE = 0xff09,      /* ARRAY, 3: lower bound, upper bound, null if there is none; then the text "[)",
                                     "[]", "(]", "()" or "empty" */
    IOK_KIND_MULTIRANGE = 0xff0a, /* ARRAY of ranges */
};

/* One token. A tape is an array of tokens in pre-order: a container's children follow it. 16 bytes. */
struct iok_token {
    uint8_t type;     /* enum iok_type */
    uint8_t flags;    /* 0; of arguments: enum iok_token_flags, set by the builder */
    uint16_t subtype; /* enum iok_kind, or protocol-specific: see the protocol's page. 0 if none */
    uint32_t len;     /* bytes, elements or pairs */
    union {
        int64_t i;
        double f;
        const uint8_t *p;
    };
};

/* ---- kernel ------------------------------------------------------------------------------------------------- */

struct iok_kernel;

/* How the hand-off between a waiting thread and the kernel thread works; see docs/performance.md. */
enum iok_handoff {
    IOK_HANDOFF_AUTO = 0, /* LEAD, spinning, when all calls under way are the waiter's and at most 256; else WAKE */
    IOK_HANDOFF_WAKE,     /* descriptors only */
    IOK_HANDOFF_SPIN,     /* spin before sleeping */
    IOK_HANDOFF_LEAD,     /* the waiter runs the loop; no spinning */
};

struct iok_options {
    const char *name;         /* of the thread, at most 15 bytes; NULL for "iokernel" */
    uint32_t port_calls_max;  /* calls alive per port, and half as many leases; 0 for 16384 */
    uint64_t port_bytes_max;  /* bytes of these calls' arguments; 0 for 1 GiB */
    enum iok_handoff handoff; /* 0 for AUTO */
    uint64_t seed;            /* of the jitter; 0 for one from the system */
    const char *chaos;        /* for tests: faults on purpose, such as "seed=7,partial=0.3,reset_after=1000"; NULL or
                                 "" for none. src/net/chaos.h lists the options; a wrong one is IOK_EOPTION */
};

/* Starts the kernel thread. options may be NULL. Returns NULL with *err filled in. The thread blocks all signals. */
IOK_API struct iok_kernel *iok_kernel_new(const struct iok_options *options, struct iok_error *err);
/* Stops the thread: ends every call, closes every connection, then frees. Blocks until the thread is gone (it needs
 * nothing of the program, so milliseconds). Ports stay valid for picking up and freeing until iok_port_free. */
IOK_API void iok_kernel_free(struct iok_kernel *kernel);

/* Counters since the start. Any thread. */
struct iok_kernel_stats {
    uint64_t rounds;         /* turns of the loop */
    uint64_t wakeups;        /* times that the kernel was woken from sleep by a port */
    uint64_t polls_blocking; /* times that it went to sleep in poll */
    uint64_t leads;          /* times that a waiting thread ran the loop instead */
    uint64_t port_wakeups;   /* times that the kernel woke a port */
    uint64_t calls;          /* calls taken */
    uint64_t bytes_in, bytes_out;
    uint64_t objects;      /* live connections, and leases of the kernel's own: 0 after all is closed */
    uint64_t buffer_bytes; /* held in buffers */
};
IOK_API void iok_kernel_stats(struct iok_kernel *kernel, struct iok_kernel_stats *out);

/* ---- port --------------------------------------------------------------------------------------------------- */

struct iok_port;

IOK_API struct iok_port *iok_port_new(struct iok_kernel *kernel, struct iok_error *err);
/* Makes the calling thread the owner; the old owner must not use the port any more. */
IOK_API void iok_port_adopt(struct iok_port *port);
/* Cancels what is in flight, frees the port's calls, leases and streams. May block for as long as the kernel thread
 * needs to let go (milliseconds). */
IOK_API void iok_port_free(struct iok_port *port);
/* A descriptor that polls readable when iok_poll has something, from the first call of this function on. Belongs to the
 * port, and has the same number in a child of fork(), where poll and epoll have to be told of it anew. Drain between
 * iok_drain_begin and iok_drain_end. -1 only in a child that has no descriptor left. */
IOK_API int iok_port_fd(struct iok_port *port);
/* Nobody looks at the descriptor until the next iok_port_fd, so nothing is spent on it. */
IOK_API void iok_port_unwatch(struct iok_port *port);
/* Tells a sleeping kernel about submitted calls. iok_submit does so by itself, except within a burst. */
IOK_API void iok_flush(struct iok_port *port);
/* Begins a burst: until iok_drain_end the kernel is told of the first submission and of every 256th only, so that many
 * calls share a packet. It looks by itself after a millisecond, should the program compute in the midst of a burst. */
IOK_API void iok_drain_begin(struct iok_port *port);
/* Ends it: flushes; consumes the descriptor's readiness, or leaves it readable when completions remain. */
IOK_API void iok_drain_end(struct iok_port *port);
/* The next call with news: it has ended (iok_call_outcome is not IOK_PENDING), or its stream has messages. NULL if
 * there is none. A call that ended is returned once; the caller then reads and frees it. */
IOK_API struct iok_call *iok_poll(struct iok_port *port);
/* Blocks until iok_poll would return something or timeout_ms passed (-1: for ever). 0, IOK_ETIMEOUT, or IOK_EINTR
 * as soon as the thread handled a signal. */
IOK_API int iok_wait(struct iok_port *port, int64_t timeout_ms);
/* Live calls of the port, those included that are not submitted or wait for room. */
IOK_API uint32_t iok_port_calls(const struct iok_port *port);

/* ---- service ------------------------------------------------------------------------------------------------ */

struct iok_service;

/* What the program asks for, by URL; see docs/urls.md. Returns at once; the kernel resolves the name, connects and
 * stays connected. NULL with *err (IOK_EURL, IOK_EOPTION, ...) when the URL cannot be right. */
IOK_API struct iok_service *iok_service_new(struct iok_port *port, const char *url, struct iok_error *err);
/* Another service of the same URL, with connections of its own, for calls that only read: to standbys where there are
 * any, else to any host (of PostgreSQL: target_session_attrs=prefer-standby). NULL with IOK_ESTATE where the protocol
 * has no standbys. Closed and dropped like any other. */
IOK_API struct iok_service *iok_service_replica(struct iok_port *port, const struct iok_service *service,
                                                struct iok_error *err);
/* No new calls; queued ones end as NEVER_SENT, those in flight as MAYBE_EXECUTED, all with IOK_ECLOSED. Asynchronous,
 * idempotent, any port. */
IOK_API void iok_service_close(struct iok_service *service, struct iok_port *port);
/* Drops the program's reference; the first iok_service_new counts as one. Call iok_service_close before. */
IOK_API void iok_service_unref(struct iok_service *service);
IOK_API void iok_service_ref(struct iok_service *service);
/* The URL without password: safe to show. Lives as long as the service. */
IOK_API const char *iok_service_name(const struct iok_service *service);
/* The protocol's name, such as "redis". Static. */
IOK_API const char *iok_service_protocol(const struct iok_service *service);
/* Its timeout=: what a binding does with several calls may keep to it, too. */
IOK_API uint64_t iok_service_timeout_ms(const struct iok_service *service);
/* Its max_reply=, in bytes: what a binding makes of replies may keep to it, too. */
IOK_API uint64_t iok_service_max_reply(const struct iok_service *service);

/* Latency by phase. p50 and p99 in nanoseconds, within 7%. */
struct iok_phase {
    uint64_t count;
    uint64_t p50_ns, p99_ns, max_ns;
};
struct iok_service_stats {
    uint64_t calls;      /* taken by the kernel */
    uint64_t ended[5];   /* by enum iok_outcome */
    uint64_t retries;    /* repeated by the kernel itself */
    uint64_t cancelled;  /* tombstones: replies that were or will be swallowed */
    uint64_t overloaded; /* refused at a bound, by the kernel or by a port */
    uint64_t dropped;    /* messages of streams dropped, as the program was slow (slow_consumer=drop) */
    uint64_t connects;   /* connections that became ready */
    uint64_t connect_failures;
    uint64_t disconnects; /* ready connections lost */
    uint64_t pings;
    uint64_t bytes_in, bytes_out;
    uint32_t connections;      /* ready now, leased ones included */
    uint32_t leased;           /* of these, leased */
    uint32_t queued, inflight; /* calls now: waiting for a connection or a lease; sent and not answered */
    struct iok_phase submit;   /* submitted -> taken by the kernel */
    struct iok_phase queue;    /* taken -> handed to the operating system */
    struct iok_phase service;  /* handed over -> complete reply: the network's and the server's own time */
    struct iok_phase pickup;   /* complete -> picked up by the program */
    struct iok_phase total;    /* submitted -> picked up */
    char last_failure[240];    /* why the last connection failed or was lost; "" if none ever did */
};
/* Any thread; figures are at most a loop round old and each is whole. */
IOK_API void iok_service_stats(struct iok_service *service, struct iok_service_stats *out);

/* ---- calls -------------------------------------------------------------------------------------------------- */

struct iok_call;
struct iok_lease;

/* A new call with an empty tape. NULL: IOK_ENOMEM, IOK_ETHREAD, IOK_EFORKED. */
IOK_API struct iok_call *iok_call_new(struct iok_port *port, struct iok_service *service, struct iok_error *err);

/* Append one argument. The first failure sticks and iok_submit returns it. */
IOK_API void iok_call_null(struct iok_call *call);
IOK_API void iok_call_bool(struct iok_call *call, bool value);
IOK_API void iok_call_i64(struct iok_call *call, int64_t value);
IOK_API void iok_call_f64(struct iok_call *call, double value);
IOK_API void iok_call_bytes(struct iok_call *call, const void *p, size_t len);     /* copied */
IOK_API void iok_call_text(struct iok_call *call, const char *p, size_t len);      /* copied */
IOK_API void iok_call_static(struct iok_call *call, const char *text, size_t len); /* must live for ever; not copied */
/* Not copied: release(arg) is called once, on the port's thread, when the call is freed. Worth it from about 16 KiB. */
IOK_API void iok_call_ref(struct iok_call *call, const void *p, size_t len, void (*release)(void *arg), void *arg);
/* The same as text. */
IOK_API void iok_call_text_ref(struct iok_call *call, const char *p, size_t len, void (*release)(void *arg), void *arg);
IOK_API void iok_call_array(struct iok_call *call, uint32_t elements);
IOK_API void iok_call_map(struct iok_call *call, uint32_t pairs);
IOK_API void iok_call_push(struct iok_call *call, uint32_t elements); /* a message out of band, of WebSocket */

/* Deadline from submission in milliseconds, of which more than 2^31 - 1 (24 days) are taken for that many; 0 means the
 * service's timeout=, -1 none. */
IOK_API void iok_call_timeout(struct iok_call *call, int64_t timeout_ms);
/* The call may be repeated when its connection is lost, beyond what the codec knows to be safe. */
IOK_API void iok_call_repeatable(struct iok_call *call, bool repeatable);
/* A call without arguments that ends as DONE when the service is usable, or at its deadline with the reason. */
IOK_API void iok_call_ready(struct iok_call *call);
/* Runs on this lease's connection. */
IOK_API void iok_call_lease(struct iok_call *call, struct iok_lease *lease);
/* For the program's own use. */
IOK_API void iok_call_set_user(struct iok_call *call, void *user);
IOK_API void *iok_call_user(const struct iok_call *call);

/* Hands the call to the kernel: 0, or an error after which the call is still the caller's (free it, or submit it again
 * later) and iok_call_error says why. At the port's bounds (port_calls_max, port_bytes_max) it depends on the service's
 * overload=: with fail the error is IOK_EOVERLOAD at once; with wait the call is taken all the same, waits on the port
 * in its turn, and is handed on when others have been freed, or ends at its deadline. As many may wait as the program
 * makes. At the service's own bounds a call that was submitted ends as NEVER_SENT with IOK_EOVERLOAD, or waits. */
IOK_API int iok_submit(struct iok_call *call);
/* Asks to end it: it ends soon, as NEVER_SENT or MAYBE_EXECUTED with IOK_ECANCELLED, or as what had happened
 * already. It still arrives by iok_poll. Idempotent. */
IOK_API void iok_cancel(struct iok_call *call);
/* As iok_cancel and iok_call_free in one: it will not arrive by iok_poll. The user pointer is not used again. */
IOK_API void iok_abandon(struct iok_call *call);
/* Blocks until this call has ended (other news of the port keep waiting for iok_poll), or timeout_ms passed (-1: for
 * ever, which its deadline bounds). 0, IOK_ETIMEOUT, IOK_EINTR. Afterwards the call does not arrive by iok_poll. */
IOK_API int iok_wait_call(struct iok_call *call, int64_t timeout_ms);

IOK_API enum iok_outcome iok_call_outcome(const struct iok_call *call);
/* The reply of a call that ended as DONE or REJECTED: *n tokens, borrowed until iok_call_free. NULL, *n = 0 if none. */
IOK_API const struct iok_token *iok_call_reply(const struct iok_call *call, size_t *n);
/* Why a call ended otherwise, or was not taken: fills *err and returns its code; 0 if it did not fail. */
IOK_API int iok_call_error(const struct iok_call *call, struct iok_error *err);
/* The address that served it, such as "127.0.0.1:6379"; "" if it met none. Borrowed until iok_call_free. */
IOK_API const char *iok_call_endpoint(const struct iok_call *call);
IOK_API struct iok_service *iok_call_service(const struct iok_call *call);

/* Monotonic nanoseconds; 0 for a stage that was not reached. */
struct iok_stamps {
    uint64_t submitted, taken, sent, first_byte, complete, picked_up;
};
IOK_API void iok_call_stamps(const struct iok_call *call, struct iok_stamps *out);
/* Frees a call that ended, or was never submitted. The tape and the referenced buffers go with it. */
IOK_API void iok_call_free(struct iok_call *call);

/* Streams: some commands (SUBSCRIBE, MONITOR) answer with messages without end. Their call stays pending and arrives
 * by iok_poll whenever messages wait; iok_call_message peeks at the oldest (borrowed until iok_call_next drops it).
 * When 1,024 of them or the service's max_stream_bytes= stand, the kernel holds back until half is taken: it reads no
 * further (slow_consumer=pause), or drops what comes (drop) and then tells by a message of one token, IOK_DROPPED. */
IOK_API const struct iok_token *iok_call_message(struct iok_call *call, size_t *n);
IOK_API void iok_call_next(struct iok_call *call);
/* As iok_wait_call, but also returns 0 when a message waits. */
IOK_API int iok_wait_message(struct iok_call *call, int64_t timeout_ms);

/* ---- requests with a body, replies in parts ---- */

/* A reply that may be large comes in parts: they arrive as the messages of a stream, each of at most the service's
 * max_reply=, and behind the last the call ends with its reply, which tells the rest, or with an error; what stands in
 * the stream can be taken then, too. Reading pauses as for streams, whatever slow_consumer= says: no part is dropped.
 *
 * A body that may be large goes in parts. The request is announced by iok_call_body before it is submitted, and then
 * the program makes parts, as calls of their own: iok_part_new, iok_call_bytes or iok_call_ref, iok_submit. A part ends
 * as DONE when the operating system has taken its bytes, and not earlier than the server wants them: that is the credit
 * for the next one. So a program that has two parts alive at a time lends the memory of two, and the kernel holds no
 * more, however slow the server is. The last is marked by iok_part_end, and may be empty.
 *
 * The call may end before its body does, as the server has found an error in it: parts end as NEVER_SENT then. A part
 * that is cancelled, or reaches its deadline, breaks the body off, as iok_part_fail does, since a body has no holes.
 * To cancel the call breaks off its body, too. In each case the server is told, and the connection can be used again; or
 * where the protocol has no word for it (HTTP), the connection is closed, and the call ends with that error.
 *
 * Deadlines: that of the call counts until the server wants the body, and again from its end; that of a part (the same
 * time, if none is set) until its bytes are taken; in a reply in parts that of the call counts from each part. The time that
 * the program takes does not count.
 *
 * Both need a request that the protocol has it for: COPY of PostgreSQL, which needs a lease, too, and any of HTTP, which
 * does not: a connection of HTTP has one request at a time. */
IOK_API void iok_call_parts(struct iok_call *call);
IOK_API void iok_call_body(struct iok_call *call);
/* A part of a submitted call's body; NULL as iok_call_new, or IOK_EINVAL. It is submitted, waited for, cancelled and freed
 * as a call. At the port's bounds iok_submit gives IOK_EOVERLOAD for it, whatever overload= says; but where its call waits
 * for room, so does the part, and one that is cancelled or late then takes the call with it. */
IOK_API struct iok_call *iok_part_new(struct iok_call *call, struct iok_error *err);
/* The body is complete behind this part. */
IOK_API void iok_part_end(struct iok_call *part);
/* Instead of bytes: the body is broken off; why is a text for the server's error and its log. */
IOK_API void iok_part_fail(struct iok_call *part, const char *why);

/* ---- serving ------------------------------------------------------------------------------------------------ */

/* The server's side, for HTTP. The kernel thread accepts connections, reads requests and sends answers; the program makes
 * serving calls, each a credit for one request at a time:
 *
 *     struct iok_listener *l = iok_listener_new(p, "http://127.0.0.1:8000", &err);
 *     struct iok_call *c = iok_serve_new(p, l, &err);
 *     iok_submit(c);                                    it takes a request
 *     ... iok_poll gives c; iok_serve_state(c) is IOK_SERVE_REQUEST, and iok_call_reply(c, &n) the request ...
 *     iok_call_array(c, 4); iok_call_i64(c, 200); ...   the answer
 *     iok_submit(c);                                    it is sent, and c takes the next request
 *
 * A request is ARRAY 6: method, target, minor version of HTTP/1, fields (ARRAY: name in small letters, value, ...), body,
 * trailer (as fields). An answer is ARRAY 4 or 5: status, reason or null, fields, body or null, and perhaps a trailer. What
 * is wrong with it is made right or refused: see docs/protocols/http.md. iok_call_endpoint is the client's address; "" of
 * a unix socket, "unknown" if a proxy does not tell it. At port_bytes_max, where answers over 8 KiB count, iok_submit gives
 * IOK_EOVERLOAD, and another answer can be appended; IOK_ELIMIT if it is larger than that by itself.
 *
 * Several ports may serve a listener: a request goes to the one with fewest requests in hand. As long as no call waits,
 * requests wait in the listener (queue=), and are answered by 503 beyond that. */
struct iok_listener;

/* Binds and listens at once; docs/urls.md has the addresses and options. Connections are accepted from the first serving
 * call on; until then a child of fork() inherits it. NULL with *err: IOK_EURL, IOK_EOPTION, IOK_ECONNECT ... */
IOK_API struct iok_listener *iok_listener_new(struct iok_port *port, const char *url, struct iok_error *err);
/* "http://127.0.0.1:8000": where it listens, with the real port. Lives as long as the listener. */
IOK_API const char *iok_listener_name(const struct iok_listener *listener);
/* Accepts no more. Connections end when they have been idle for a second; requests under way, and those that come in that
 * second, are answered, with "connection: close", and after grace_ms the rest is broken off. Then its calls end as IOK_NEVER_SENT with IOK_ECLOSED. Asynchronous, any port; may be
 * called again with another time. */
IOK_API void iok_listener_close(struct iok_listener *listener, struct iok_port *port, int64_t grace_ms);
/* Reads the files of tls_cert=, tls_key= and tls_ca= again: new connections have them, those that are there go on. 0, or an
 * error with *err, and all stays as it was. */
IOK_API int iok_listener_reload(struct iok_listener *listener, struct iok_port *port, struct iok_error *err);
/* Before the first serving call: what the kernel thread answers itself to GET and HEAD, whatever the program does. A fixed
 * answer, of which all is copied; type is its Content-Type. With health=/path in the URL it tells at that path how all is,
 * as JSON: 503 while a port has left a request (or a probe) untaken for health_pickup=, while it drains, or a service that is
 * required is not up. 0, or an error with *err. */
IOK_API int iok_listener_answer(struct iok_listener *listener, const char *path, int status, const char *type,
                                const void *body, size_t len, struct iok_error *err);
IOK_API int iok_listener_require(struct iok_listener *listener, struct iok_service *service, struct iok_error *err);
/* Drops the program's reference; iok_listener_new counts as one, and each serving call holds one. */
IOK_API void iok_listener_unref(struct iok_listener *listener);
IOK_API void iok_listener_ref(struct iok_listener *listener);

struct iok_listener_stats {
    uint64_t accepted;   /* connections ever */
    uint64_t requests;   /* read to their end */
    uint64_t answers[5]; /* by the program, by the first digit of their status: 1xx to 5xx */
    uint64_t native;     /* requests that the kernel thread answered itself */
    uint64_t shed;       /* requests answered by 503, as no call was free */
    uint64_t refused;    /* these, and requests that could not be read, or were given up */
    uint64_t gone;       /* requests whose clients went away while the program had them */
    uint64_t timeouts;   /* connections whose clients were too slow */
    uint64_t starved;    /* times that accepting stopped for want of descriptors */
    uint64_t bytes_in, bytes_out;
    uint32_t connections;    /* now */
    uint32_t inflight;       /* requests that programs have now */
    uint32_t queued;         /* requests that wait for a call now */
    struct iok_phase wait;   /* request is whole -> given to a call */
    struct iok_phase pickup; /* given -> picked up by the program */
    struct iok_phase answer; /* given -> answered */
    char last_failure[240];  /* why the last connection ended that did not end well; "" if none ever did */
};
/* Any thread. */
IOK_API void iok_listener_stats(struct iok_listener *listener, struct iok_listener_stats *out);

/* A call that serves the listener; NULL: IOK_ENOMEM, IOK_ETHREAD, IOK_EFORKED. To be submitted for its first request; freed
 * or abandoned at any time: a request that it has is answered by 500 then. iok_cancel ends it, and it arrives once more. */
IOK_API struct iok_call *iok_serve_new(struct iok_port *port, struct iok_listener *listener, struct iok_error *err);

enum iok_serve_state {
    IOK_SERVE_NEW = 0, /* not submitted */
    IOK_SERVE_WAITING, /* for a request; its answer may still be on its way */
    IOK_SERVE_REQUEST, /* it has one. After an answer that was refused it has the same once more: iok_call_error says why */
    IOK_SERVE_LEFT, /* the same, and the client sends no more. It may have gone, or wait for the answer */
    IOK_SERVE_GONE, /* the client is gone: iok_submit, with or without an answer, makes it wait for the next request */
    IOK_SERVE_CLOSED, /* it has ended: iok_call_error says why */
};
/* How many other calls of its port waited for a request when this one was given its own: those whose answer a slow client
 * has not read do not. *begun: how many of the port were submitted ever until then; later ones come on top. */
IOK_API uint32_t iok_serve_others(const struct iok_call *call, uint64_t *begun);
/* As of now; LEFT and GONE may show before iok_poll brings the news. */
IOK_API enum iok_serve_state iok_serve_state(const struct iok_call *call);
/* A request whose body is of unknown length, or larger than whole=, has null for its body, and that follows as the messages
 * of a stream: iok_call_message and iok_call_next, each BYTES, and the last an ARRAY, the trailer (mostly empty). The
 * kernel reads no further while max_stream_bytes= of it stand. iok_poll brings the call when messages have come. True as
 * long as the last was not seen. An answer may be submitted before; then the rest is dropped, and the connection ends.
 *
 * An answer whose body follows in parts: iok_call_body before its head is submitted, with null for the body, and then
 * parts as of a request: iok_part_new, iok_call_bytes or iok_call_ref, iok_submit; a part ends as IOK_DONE when the system
 * has taken its bytes. With a Content-Length they have to add up to it; without it they are sent in chunks. With the part
 * marked by iok_part_end the call takes its next request; iok_part_fail breaks the connection off, which tells the
 * client that the answer is not whole. Once the client is gone parts end as NEVER_SENT; then iok_part_end, iok_part_fail or
 * iok_submit of the call itself gives the request back. */
IOK_API bool iok_serve_expects_body(const struct iok_call *call);
/* An answer that changes the protocol: before its head is submitted, [101, null, fields, null]. Then messages come as those of
 * a request's body, and go as the parts of an answer's, each one message; both at the same time. The last part ends it.
 * WebSocket: the fields need say no more than perhaps Sec-WebSocket-Protocol; messages are as docs/protocols/websocket.md
 * has them: TEXT, BYTES, and PUSH for pings and the close, which comes last. A message that cannot be sent ends as NEVER_SENT,
 * and the others go on. The client's close is answered when the program drops what tells it (iok_call_next) or ends, after
 * five seconds at the latest; then the client is gone. A request that does not ask for it rightly is as an answer that was
 * refused. Pings by ws_ping=.
 * Raw: BYTES both ways, the client's end is an empty ARRAY; the fields have Upgrade. */
enum iok_upgrade_to { IOK_UPGRADE_RAW = 1, IOK_UPGRADE_WEBSOCKET };
IOK_API void iok_serve_upgrade(struct iok_call *call, enum iok_upgrade_to to);
/* Whether the request came by TLS. */
IOK_API bool iok_serve_is_encrypted(const struct iok_call *call);
IOK_API struct iok_listener *iok_serve_listener(const struct iok_call *call);

/* ---- leases ------------------------------------------------------------------------------------------------- */

/* A connection that a sequence of calls holds alone: transactions, WATCH, SUBSCRIBE. Bound to a connection at its
 * first call. If that is lost, its calls end and every later one ends as NEVER_SENT with IOK_ECLOSED. */
IOK_API struct iok_lease *iok_lease_new(struct iok_port *port, struct iok_service *service, struct iok_error *err);
/* Gives it back; calls still alive on it are cancelled. The connection is made clean again, or closed. */
IOK_API void iok_lease_free(struct iok_lease *lease);

#ifdef __cplusplus
}
#endif
#endif
