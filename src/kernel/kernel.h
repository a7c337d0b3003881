/* kernel.h - the deterministic core: services, endpoints, connections, calls and leases.
 *
 *     kernel > service > endpoint > conn          kernel > port > call, lease
 *
 * A service has one queue and one wish; the endpoints that fit the wish serve it.
 *
 * It takes events (bytes arrived, connected, closed, resolved, time passed, message from a port) and asks net.h for
 * actions. Given the same events, times and random numbers it does the same things. One thread at a time runs it. */
#ifndef IOK_KERNEL_KERNEL_H
#define IOK_KERNEL_KERNEL_H

#include <iokernel.h>

#include "../base/clock.h"
#include "../base/hist.h"
#include "../base/list.h"
#include "../net/net.h"
#include "../policy/backoff.h"
#include "../policy/budget.h"
#include "../proto/proto.h"
#include "../ring/note.h"
#include "../ring/port.h"
#include "call.h"
#include "timer.h"

#define IOK_NS_MS UINT64_C(1000000)
#define IOK_NS_S UINT64_C(1000000000)

#define IOK_DATE_BYTES 29u /* RFC 9110, 5.6.7: IMF-fixdate */

/* Which timer fired: struct iok_timer.kind. */
enum iok_timer_kind {
    IOK_TIMER_CALL = 0,
    IOK_TIMER_CONN,
    IOK_TIMER_ENDPOINT,
    IOK_TIMER_PORT,
    IOK_TIMER_CANCEL,
    IOK_TIMER_LISTENER,
    IOK_TIMER_GUEST,
};

struct iok_port {
    struct iok_port_link link;
    struct iok_kernel *owner; /* the public handle */
    /* the application's */
    struct iok_list free_calls;    /* for reuse */
    struct iok_list news;          /* calls that wait for iok_poll, taken out of the ring by a waiter */
    struct iok_list calls, leases; /* all that are alive */
    struct iok_service *used;      /* by n_using calls, for all of which the port holds one reference */
    uint32_t n_using;
    struct iok_list doomed; /* calls to free when it is not leading any more, as that may call the program */
    bool leading;           /* or about to: it has asked the kernel thread for the baton */
    bool lost;              /* fork left its thread behind: nothing above can be trusted */
    bool left;              /* freed in a child before its kernel was settled, which does it then: src/fork.c */
    uint32_t n_calls, n_leases, n_free;
    uint64_t quick_ns; /* how long waits of this port last, a moving average */
    struct iok_clock clock;
    /* its bounds: calls that were handed over and are not freed yet, and the bytes of their arguments */
    uint32_t n_counted, calls_max, n_parked;
    uint64_t bytes_left, bytes_max;
    struct iok_list parked; /* calls that wait for room, in their order */
    uint64_t due_ns;        /* the deadline of parked calls that the kernel was asked to tell of; UINT64_MAX: none */
    /* shared */
    struct iok_count picked;             /* requests and probes that the program has taken */
    struct iok_count due_at, due_posted; /* the same for the kernel to read; an IOK_SQ_DUE is under way */
    /* the kernel's */
    uint64_t given;         /* requests and probes; */
    uint64_t mark, mark_at; /* until so many are taken, that which came last of these waits since */
    struct iok_timer due;
    struct iok_node node;
    struct iok_node ring_node; /* in core->to_ring: has completions that the application was not told of */
};

struct iok_core {
    struct iok_port *leader; /* whose thread runs this just now, as it waits anyway; NULL: the kernel thread */
    struct iok_net *net;
    struct iok_wake wake;
    struct iok_port_inbox inbox;
    uint64_t now; /* of this turn, monotonic ns */
    struct iok_wheel wheel;
    struct iok_list ports, services;
    struct iok_list dirty;   /* connections with bytes to flush */
    struct iok_list to_ring; /* ports to wake */
    struct iok_list dead;    /* connections to free at the end of the turn */
    struct iok_list pumps;   /* services whose queues may move */
    uint32_t unrung;         /* completions since to_ring was last served */
    struct iok_list listeners, dead_guests;
    struct iok_count relisting;     /* listeners is being changed: a child that was forked amid that cannot walk it */
    struct iok_list unsent;         /* guests with more to send than one turn allows */
    struct iok_list spare_requests; /* for what is read next */
    uint32_t n_spare_requests;
    struct iok_out_spare spare_output; /* likewise for what is sent */
    struct iok_tape discard;           /* of requests for which there is no memory */
    char date[IOK_DATE_BYTES];         /* of date_at: "Sun, 06 Nov 1994 08:49:37 GMT" */
    uint64_t date_until;               /* when it is over, monotonic ns */
    uint8_t *scratch;                  /* where reads go */
    bool napping;                      /* a burst is under way: asleep no longer than IOK_NAP_NS */
    bool stopping;
    const struct iok_error *forked; /* while iok_core_settle runs: with what calls end */
    struct iok_account replies, arguments, output;
    struct iok_count objects, rounds, wakeups, polls_blocking, leads, port_wakeups, calls, bytes_in, bytes_out;
    struct iok_count inflight; /* calls that the core holds now */
    struct iok_count lent;     /* of these: requests that programs have, so the core has nothing to do for them */
};

/* What a URL says beyond the protocol's own business. Durations in ns; the options' page is docs/urls.md. */
struct iok_service_config {
    uint64_t connections, leases, max_inflight, max_queued, max_pending_bytes, max_reply, max_stream_bytes, retries;
    uint64_t timeout, connect_timeout, ping, ping_timeout, lease_idle;
    uint64_t cancel_timeout; /* 0: requests are not cancelled at the server */
    bool overload_waits;     /* overload=wait: at a bound a call waits until its deadline; else it ends at once */
    bool drops; /* slow_consumer=drop: what a full stream has no room for is dropped; else reading pauses */
    bool tls;
    enum iok_wish wish;
    bool shuffle; /* load_balance_hosts=random: each connection goes to any endpoint, not to the first that will do */
};

/* State changes only through set_state, by the table in endpoint.c. */
enum iok_endpoint_state {
    IOK_ENDPOINT_IDLE = 0, /* not tried, or not needed since */
    IOK_ENDPOINT_TRYING,   /* looked up, connected to, asked for its role */
    IOK_ENDPOINT_UP,       /* usable, and what is wished for: its connections take calls */
    IOK_ENDPOINT_UNFIT,    /* usable, but of another role: connections end as soon as they are idle */
    IOK_ENDPOINT_DOWN,     /* the last attempt failed, or all connections were lost */
};

#define IOK_HOST_TEXT_MAX 256u /* a DNS name has 253 bytes at most, a socket's path 107 */

/* One host of a service. */
struct iok_endpoint {
    struct iok_service *service;
    enum iok_endpoint_state state;
    uint32_t role;                /* enum iok_role, as its connections said last; 0: not known */
    char host[IOK_HOST_TEXT_MAX]; /* a name, a literal address, or a socket's path */
    uint16_t port;                /* 0: a socket's path */
    struct iok_tls *tls;
    struct iok_address addresses[IOK_ADDRESSES_MAX];
    uint32_t n_addresses;
    uint64_t resolved_until; /* when the addresses want another look-up; UINT64_MAX: literal */
    struct iok_query *query;
    struct iok_backoff backoff;
    struct iok_timer retry;   /* TRYING: until the next endpoint is tried as well. Else until this one is tried again */
    bool slow;                /* TRYING, and the others need not wait for it any longer */
    uint64_t doubted_at;      /* when it last was not what it had said; 0: never */
    bool fatal;               /* the failure will not heal by waiting */
    struct iok_error failure; /* why it is not up; code 0: it was not tried, or all is well */
    uint32_t n_shared;        /* connections for shared calls, those in the making included, but none that retire */
    uint32_t n_opening, n_ready; /* connections that are not signed in yet; those that are */
};

struct iok_service {
    struct iok_count refs; /* the program's handles, calls and leases, and one of the core's */
    struct iok_url url;
    char name[512];
    const struct iok_proto *proto;
    struct iok_service_config config;
    struct iok_tls_config tls_config; /* but for the server's name */
    struct iok_starttls starttls;     /* ask.n 0: TLS from the first byte on, if at all */
    enum iok_tls_ways tls_ways;
    void (*tls_free)(struct iok_tls *tls);
    struct iok_kernel *owner; /* the public handle */

    /* the core's */
    struct iok_core *core;
    struct iok_node node, pump_node;
    bool started, closed;
    struct iok_list queue;                              /* calls that wait for a shared connection */
    struct iok_list lease_wait;                         /* leases that wait for a connection */
    struct iok_list conns;                              /* all, in the order they were opened */
    uint32_t n_pending, n_inflight, n_shared, n_leased; /* pending: queued, waiting for a lease, or in flight */
    uint32_t n_raw;         /* connections that are raw: of in flight, these need no other */
    uint64_t pending_bytes; /* arguments of these calls */
    struct iok_budget retry_budget;

    struct iok_endpoint *endpoints; /* in the URL's order, which is that of preference */
    uint32_t n_endpoints;
    bool second_choice; /* PREFER_STANDBY, and there is none: any will do */
    bool settled;       /* nothing is to be opened or closed: until something changes */

    /* figures: written by the core, read by anybody */
    struct iok_count calls, ended[5], retries, cancelled, connects, connect_failures, disconnects, pings;
    struct iok_count bytes_in, bytes_out, ready_conns, leased_conns, queued_now, inflight_now, dropped;
    struct iok_count overloaded; /* written by the ports, too: shared adds */
    struct iok_hist hist_submit, hist_queue, hist_service;
    struct iok_hist_shared hist_pickup, hist_total; /* written by the ports */
    struct iok_note last_failure;
};

/* State changes only through iok_conn_set_state, by the table in conn.c. */
enum iok_conn_state {
    IOK_CONN_CONNECTING = 0, /* TCP and TLS */
    IOK_CONN_SIGNING_IN,     /* greet until ready */
    IOK_CONN_READY,          /* takes calls: shared ones, or nobody's when it is for leases */
    IOK_CONN_LEASED,         /* belongs to a lease */
    IOK_CONN_RESETTING,      /* made clean after a lease, once what it left under way has ended */
    IOK_CONN_CLOSED,         /* waits in core->dead */
};

/* A second connection makes the server give up what is left under way on this one: cancel.c. */
enum iok_cancel_state { IOK_CANCEL_NONE = 0, IOK_CANCEL_WAITING, IOK_CANCEL_CONNECTING, IOK_CANCEL_SENT };

struct iok_cancel {
    enum iok_cancel_state state; /* other than NONE: nothing new is sent */
    struct iok_link *link;       /* the second connection; NULL: none just now */
    struct iok_timer timer;      /* the next try, or the end of all */
    uint64_t give_up;            /* when the connection is closed instead */
    uint64_t seen, told;         /* the oldest flight, when it was looked at last, and when the cancel was sent */
};

struct iok_conn {
    struct iok_service *service;
    struct iok_endpoint *endpoint;
    struct iok_link *link;
    struct iok_node node, dirty_node;
    enum iok_conn_state state;
    bool for_leases;         /* not for shared calls */
    bool serves;             /* shared calls may go here when it is READY: iok_conn_look */
    bool retires;            /* takes no more calls, and ends with the last that it has */
    bool plain;              /* there is no TLS, nor is it asked for */
    struct iok_error *first; /* it is tried in the second way after this; NULL: in the first */
    bool dirty_state;        /* a call on the lease changed the connection's state */
    bool blocked;            /* send accepted less than all */
    bool read_paused;
    bool pinged; /* a ping is under way */
    bool raw;    /* its call and the peer talk of something else by now: iok_conn_raw */
    bool shuts;  /* nothing follows what is in out, and the peer is to be told so */
    bool ended;  /* the peer sends no more, and may still read */
    struct iok_lease *lease;
    struct iok_call *stream;    /* where pushes go */
    struct iok_message *notice; /* pushes are being dropped: what will tell the program how many; else NULL */
    uint64_t dropped;           /* so many until now */
    struct iok_timer timer;     /* sign-in deadline, ping, ping's deadline, idle end */
    struct iok_peer peer;
    struct iok_address address; /* of the server, once connected */
    struct iok_cancel cancel;
    uint64_t arrived_at; /* when bytes last came */
    uint64_t opened_at;

    /* flights [head_seq, next_seq) in a ring of n_slots (a power of two) */
    struct iok_flight *flights;
    uint32_t n_slots;
    uint64_t head_seq, next_seq, sent_seq;
    uint32_t n_live;   /* flights that are not answered yet */
    uint32_t n_left;   /* of these, those whose caller went away */
    uint64_t open_seq; /* the flight whose reply is open */
    bool open_push;
    struct iok_list parts; /* of bodies, that are not wholly sent, in their order */
    bool push_lost;        /* there was no memory for it: a stream with a hole that nobody is told of must end */

    struct iok_io io;
    struct iok_out out;
    struct iok_tape scrap; /* discards */
    struct iok_message *push;
    uint8_t *rest; /* bytes that feed left, to be presented again */
    size_t n_rest, cap_rest;
    size_t n_front; /* bytes of rest that stand at the front of scratch */
    void *codec;    /* proto->state_size bytes */
    uint8_t binding[IOK_BINDING_BYTES_MAX];
};

struct iok_lease {
    /* the application's */
    struct iok_port *port;
    struct iok_service *service;
    struct iok_node app_node;
    bool released;
    /* the core's */
    struct iok_node node;  /* in service->lease_wait */
    struct iok_list queue; /* calls that wait for the connection */
    struct iok_conn *conn;
    struct iok_call *auto_call; /* the kernel's own lease, for this call */
    bool lost, release_wanted, stamped;
    bool forked; /* how it was lost */
};

/* ---- kernel.c ---- */
int iok_core_init(struct iok_core *core); /* then set net, then: */
void iok_core_start(struct iok_core *core, struct iok_net *net);
void iok_core_deinit(struct iok_core *core);
/* One turn's work: messages of ports, timers, flushing, waking ports. */
void iok_core_round(struct iok_core *core);
/* Events come between turns, so each that counts time looks at the clock first. */
static inline void iok_core_look_at_clock(struct iok_core *core)
{
    core->now = core->net->ops->now(core->net);
}
/* Announces sleep: false when there is work after all. Undone by iok_core_awake. */
bool iok_core_may_sleep(struct iok_core *core);
void iok_core_awake(struct iok_core *core);
/* Monotonic ns of the next timer; UINT64_MAX: none. */
uint64_t iok_core_deadline(const struct iok_core *core);
/* Ends every call, closes every connection, lets go of every port. The net driver may still hold dying links. */
void iok_core_stop(struct iok_core *core);
void iok_core_detach_ports(struct iok_core *core);
void iok_core_detach_port(struct iok_core *core, struct iok_port *port);
/* After fork, in the child. First, at once: no port shares a descriptor with the parent, and those of threads that are
 * not here are lost. The forking thread runs it. */
void iok_core_leave_ports(struct iok_core *core);
/* Likewise at once: what the parent listens on is closed here. */
void iok_core_leave_listeners(struct iok_core *core); /* also when the parent forked amid a turn */
/* Then, when the driver is forgotten: ends all that the parent had under way. Services stay, and start anew at their next
 * call. Neither driver nor descriptor is used. */
void iok_core_settle(struct iok_core *core, uint64_t now);
void iok_core_ring_ports(struct iok_core *core);

/* Gives something to a port: the entry's slot was reserved, see port.h. */
void iok_core_tell(struct iok_core *core, struct iok_port *port, uintptr_t entry);
/* The time of day, as HTTP has it; the same text for a whole second. */
struct iok_span iok_core_date(struct iok_core *core);

/* ---- call.c ---- */
/* The only way in which a call ends: fills in how, gives it to its port. err NULL: no error. */
void iok_call_end(struct iok_core *core, struct iok_call *call, enum iok_outcome outcome, const struct iok_error *err);
#define iok_call_fail(core, call, outcome, code, ...)                                                                  \
    do {                                                                                                               \
        struct iok_error failure_;                                                                                     \
        iok_err(&failure_, (code), __VA_ARGS__);                                                                       \
        iok_call_end((core), (call), (outcome), &failure_);                                                            \
    } while (0)
/* Monotonic ns by which it ends, if the server may hold its answer for block_ms on purpose; 0: never. Any thread. */
uint64_t iok_call_deadline_at(const struct iok_call *call, int64_t block_ms);
/* A call came from a port. */
void iok_call_take(struct iok_core *core, struct iok_call *call);
/* Ends a call early, wherever it is, with err (IOK_ETIMEOUT or IOK_ECANCELLED). */
void iok_call_cut(struct iok_core *core, struct iok_call *call, const struct iok_error *err);
/* Puts a call that was sent, and of which nothing is under way any more, back to the head of its queue. */
void iok_call_again(struct iok_call *call);
void iok_call_deadline(struct iok_core *core, struct iok_call *call);
/* Sets the timer of its deadline, counted from submission; then: counted from now, as it has made progress. */
void iok_call_set_deadline(struct iok_core *core, struct iok_call *call, int64_t block_ms);
void iok_call_progress(struct iok_core *core, struct iok_call *call);
/* A message for its stream; takes the message over. */
void iok_call_news(struct iok_core *core, struct iok_call *call, struct iok_message *message);
void iok_message_free(struct iok_message *message);
struct iok_message *iok_message_new(size_t max_bytes, struct iok_account *account);

/* ---- service.c ---- */
struct iok_service *iok_service_make(const char *url, struct iok_error *err);
/* One like it that prefers standbys. */
struct iok_service *iok_service_make_replica(const struct iok_service *of, struct iok_error *err);
void iok_service_drop(struct iok_service *service); /* one reference */
void iok_service_start(struct iok_core *core, struct iok_service *service);
void iok_service_stop(struct iok_service *service, const struct iok_error *why);
/* After fork. First: its driver is gone, and with it the links and look-ups. Then: as iok_service_stop, and as if it had
 * not been started yet. */
void iok_service_forget_links(struct iok_service *service);
void iok_service_forked(struct iok_service *service, const struct iok_error *why);
/* Moves queued calls to connections that have room, and opens connections that are lacking. */
void iok_service_pump(struct iok_service *service);
void iok_service_want_pump(struct iok_service *service);
void iok_service_enqueue(struct iok_service *service, struct iok_call *call, bool front);
/* Counts a call among those that the service holds; or says why it has no room for it. */
int iok_service_admit(struct iok_service *service, struct iok_call *call, struct iok_error *err);
/* A stream has room again. Which one is not said, as its call may have ended meanwhile. */
void iok_service_credit(struct iok_service *service);
/* It ended, or is a stream by now. Harmless when it was not admitted. */
void iok_service_dismiss(struct iok_service *service, struct iok_call *call);

/* ---- endpoint.c ---- */
/* The endpoints that the service's URL names. 0, or an error. The program's thread. */
int iok_endpoints_make(struct iok_service *service, struct iok_error *err);
void iok_endpoints_free(struct iok_service *service);
/* Opens what is lacking: shared connections, and those that leases wait for. Closes what is too much. */
void iok_service_fill(struct iok_service *service);
/* Whether some endpoint is UP. */
bool iok_service_is_up(const struct iok_service *service);
/* Whether all endpoints failed last for a reason that does not go away by waiting. */
bool iok_service_is_hopeless(const struct iok_service *service);
/* Why the service is not up, with each endpoint's reason in short; code 0: none was tried. */
void iok_service_why(const struct iok_service *service, struct iok_error *err);
void iok_endpoint_timer(struct iok_endpoint *endpoint);
/* A connection is signed in; it ends, or is lost with an error's code: ready, if it had been signed in. */
void iok_endpoint_ready(struct iok_endpoint *endpoint);
void iok_endpoint_lost(struct iok_endpoint *endpoint, const struct iok_error *err, bool ready);
/* A connection says what the server is. */
void iok_endpoint_role(struct iok_endpoint *endpoint, uint32_t role);
/* It is not what it said: a new connection will be asked. false: that was done a moment ago. */
bool iok_endpoint_doubt(struct iok_endpoint *endpoint, bool ask);
/* The service stops; after fork also the look-ups are gone. */
void iok_endpoint_stop(struct iok_endpoint *endpoint);

/* ---- conn.c ---- */
int iok_conn_open(struct iok_endpoint *endpoint, bool for_leases, struct iok_error *err);
/* Notes whether shared calls may go to it: after its endpoint, or its own part in that, changed. */
void iok_conn_look(struct iok_conn *conn);
/* No more calls: it is closed once the last one is answered. */
void iok_conn_retire(struct iok_conn *conn);
bool iok_conn_has_room(const struct iok_conn *conn);
/* Encodes the call onto the connection; a call that cannot be encoded ends here. */
void iok_conn_send(struct iok_conn *conn, struct iok_call *call);
void iok_conn_flush(struct iok_conn *conn);
/* Ends the connection: flights end or are queued again, truthfully. */
void iok_conn_close(struct iok_conn *conn, const struct iok_error *err);
/* The same where the peer was lost, for which a raw connection's protocol may have a word of its own. */
void iok_conn_lose(struct iok_conn *conn, const struct iok_error *err);
void iok_conn_free(struct iok_conn *conn);
/* The caller of this flight went away: its reply will be swallowed. */
void iok_conn_forget(struct iok_conn *conn, struct iok_call *call);
void iok_conn_resume(struct iok_conn *conn);
/* It is the call's alone from now on, bytes in both directions: host->raw. call NULL: that has gone away. */
void iok_conn_raw(struct iok_conn *conn, struct iok_call *call);
struct iok_target iok_conn_target(const struct iok_conn *conn, const struct iok_address *addresses, uint32_t n);
/* In state RESETTING, with nothing under way any more: to READY, by the codec's reset if it is needed. */
void iok_conn_clean(struct iok_conn *conn);
/* Makes it clean for the next lease, or closes it; behind: the answer would be long in coming. */
void iok_conn_reset(struct iok_conn *conn, bool behind);
void iok_conn_set_state(struct iok_conn *conn, enum iok_conn_state state);
/* It has bytes to flush in this turn. */
void iok_conn_dirty(struct iok_conn *conn);

/* One request at a time. */
static inline bool iok_conn_is_single(const struct iok_conn *conn)
{
    return (conn->service->proto->flags & IOK_PROTO_SINGLE) != 0;
}

/* ---- pulse.c ---- */
/* Its state has changed, or something was done that counts its time anew. */
void iok_conn_arm(struct iok_conn *conn);
void iok_conn_timer(struct iok_conn *conn);
/* The ping was. */
void iok_conn_answered(struct iok_conn *conn);

/* ---- cancel.c ---- */
/* Requests of the connection were abandoned or answered: begins, or ends, what that calls for. Not within feed. */
void iok_cancel_look(struct iok_conn *conn);
void iok_cancel_timer(struct iok_conn *conn);
/* The connection is closed. */
void iok_cancel_stop(struct iok_conn *conn);

/* ---- flight.c: what a codec asks of its connection ---- */
extern const struct iok_host iok_conn_host;
/* A new flight at the tail; NULL when out of memory. */
struct iok_flight *iok_flight_push(struct iok_conn *conn);
struct iok_flight *iok_flight_at(struct iok_conn *conn, uint64_t seq);
void iok_flight_drop_last(struct iok_conn *conn);
/* Pushes of the connection, or parts of the call's reply, go to this call from now on, and once it is accepted it stays.
 * 0 or IOK_ENOMEM. */
int iok_flight_stream(struct iok_conn *conn, struct iok_call *call);
/* The program has taken half of what stood in the stream: tells it what was dropped meanwhile. */
void iok_flight_tell_dropped(struct iok_conn *conn);
/* The stream's call is gone: pushes go nowhere. */
void iok_flight_end_stream(struct iok_conn *conn);

/* ---- body.c: requests whose body follows in parts ---- */
/* A part came from a port. */
void iok_body_take(struct iok_core *core, struct iok_call *part);
/* The peer wants the body of this flight. 0, or an error that closes the connection, with io->err. */
int iok_body_go(struct iok_conn *conn, uint64_t seq);
/* The request was encoded: its body may be wanted without a word of the peer. The same return. */
int iok_body_begin(struct iok_conn *conn, struct iok_call *call);
/* The call's timer fired: true if it was only to wait for such a word, and has waited long enough. */
bool iok_body_waited(struct iok_call *call);
/* Bytes were handed over: parts that are out have ended. */
void iok_body_sent(struct iok_conn *conn);
/* The call goes away while its connection lives on: the peer is told that no more will come. The same return. */
int iok_body_forget(struct iok_conn *conn, struct iok_call *call);
/* The connection is gone, and with it the parts that were not wholly sent. */
void iok_body_lost(struct iok_conn *conn, const struct iok_error *err);
/* The call has ended: nobody waits for its parts. */
void iok_body_end(struct iok_core *core, struct iok_call *call);
/* A part ends early, and breaks the body off. */
void iok_body_cut(struct iok_core *core, struct iok_call *part, const struct iok_error *err);

/* ---- lease.c ---- */
void iok_lease_take(struct iok_core *core, struct iok_lease *lease, struct iok_call *call);
void iok_lease_bind(struct iok_lease *lease, struct iok_conn *conn);
/* Sends what waited while nothing could be sent. */
void iok_lease_resume(struct iok_lease *lease);
void iok_lease_release(struct iok_core *core, struct iok_lease *lease);
void iok_lease_lost(struct iok_lease *lease, const struct iok_error *err);
struct iok_lease *iok_lease_auto(struct iok_core *core, struct iok_call *call);
void iok_lease_call_ended(struct iok_core *core, struct iok_call *call);
void iok_lease_init(struct iok_lease *lease, struct iok_port *port, struct iok_service *service);

#endif
