/* serve.h - the server's side of the core: listeners, the connections that they accept (guests), and the calls that serve.
 *
 *     kernel > listener > guest          port > serving call          listener x port: a station
 *
 *     guest:    bytes --codec--> request --given to a call--> the program --answer--> bytes
 *     call:     waits at its station --given--> has a request --taken with its answer--> waits again
 *
 * A serving call is a credit for one request: it goes to and fro between the program and the core, one ring entry each
 * way, and takes no memory on its way. A request is read into memory of the core's (struct iok_request), which is lent to
 * the program with it, and used again. A guest has at most one request at a time; what its client sends ahead waits, in
 * the guest up to a bound, and beyond it in the system.
 *
 * Invariants: a call is ended only while the core has it, or when the program asks for that; so the program may submit or
 * free one that it has at any time. Of one that the program has, the core touches only what is marked as shared. */
#ifndef IOK_KERNEL_SERVE_H
#define IOK_KERNEL_SERVE_H

#include "kernel.h"

#define IOK_REQUEST_TOKENS 64u  /* of a request: a browser's 15 fields and what they come with take 38 */
#define IOK_REQUEST_BYTES 2048u /* a browser's target and fields, with a cookie; more costs an allocation */
#define IOK_ANSWER_TOKENS 40u   /* an answer of 17 fields */
#define IOK_ANSWER_BYTES 1536u  /* its fields and a small body */

/* One request as it was read. */
struct iok_request {
    struct iok_node node; /* among the core's spare ones */
    struct iok_tape tape;
    uint8_t bytes[IOK_REQUEST_BYTES]; /* filled in from their end, next to the first tokens */
    struct iok_token tokens[IOK_REQUEST_TOKENS];
};

/* What a serving call has beyond a call. Made and freed by the program. */
struct iok_serve {
    /* the program's */
    struct iok_listener *listener;
    uint64_t charged; /* bytes of its answer that its port was charged with */
    uint64_t have;    /* the serial number of the request that it was given last */
    uint64_t seen;    /* of one that was cancelled: the same then. A later one is on its way, and will not be taken */
    uint8_t upgrade;  /* enum iok_upgrade_to of the answer that it makes; the core reads it with that */
    bool expects;     /* the body of its request follows, and its end was not seen */
    bool hears;       /* the message at hand is the close of a WebSocket */
    /* the core's */
    alignas(IOK_CACHE_LINE) struct iok_station *station; /* since it was first submitted */
    struct iok_guest *guest;                             /* whose request it has; NULL: none, or that guest is gone */
    bool lent;                                           /* the program has it, or its answer is not complete */
    bool says; /* the head of its answer was taken: parts of the body follow */
    /* written before it is given to the program */
    uint64_t serial; /* of the request */
    uint64_t begun;  /* the station's n_begun */
    uint32_t others; /* its n_waiting */
    struct iok_request *request;
    bool encrypted, streams; /* streams: its body follows in messages */
    struct iok_error error;  /* why its answer was refused; code 0: it was not */
    /* shared: serial numbers of the request whose client sends no more; whose client is gone; whose answer is out, so that
     * what it refers to is not needed any more. An IOK_CQ_NEWS is under way. The call has a stream, for good */
    alignas(IOK_CACHE_LINE) struct iok_count left, gone, done;
    struct iok_count news_posted, opened;
    alignas(IOK_CACHE_LINE) uint8_t bytes[IOK_ANSWER_BYTES]; /* filled in from their end, next to the first tokens */
    struct iok_token tokens[IOK_ANSWER_TOKENS];
};

/* The calls of one port for one listener. */
struct iok_station {
    struct iok_node node;
    struct iok_port *port; /* NULL: it is gone */
    struct iok_list waiting;
    uint32_t n_waiting;
    uint32_t n_lent;  /* requests that the program has */
    uint64_t n_begun; /* calls that were ever submitted */
};

/* After its last answer a connection is not closed for so long but by its client, whose next request may be on its way. */
#define IOK_FAREWELL_NS IOK_NS_S

#define IOK_PROXIES_MAX 32u

/* An IP network. */
struct iok_net_range {
    uint16_t family;
    uint8_t bits; /* that are the network's */
    uint8_t ip[16];
};

/* What a URL says of a listener. Durations in ns. */
struct iok_listener_config {
    uint64_t max_connections, max_requests, max_request, whole, max_stream_bytes, queue;
    uint64_t max_unread, max_unread_total; /* of answers */
    uint64_t header_timeout, body_timeout, write_timeout, handshake_timeout, queue_timeout, idle;
    uint64_t body_rate;               /* bytes a second that a client has to send of a body; 0: any */
    uint64_t ws_ping, ws_max_message; /* ws_ping 0: none */
    uint64_t shed;                    /* pickup delay above which a port gets no more requests; 0: no such limit */
    uint64_t health_pickup;           /* above which health is bad */
    bool tls, ws_deflate;
    bool proxy; /* each connection begins by the PROXY protocol, from one of these: */
    uint32_t n_proxies;
    struct iok_net_range proxies[IOK_PROXIES_MAX];
};

/* A fixed answer. */
struct iok_route {
    struct iok_route *next;
    const char *target, *type;
    const uint8_t *body;
    size_t n;
    int status;
};

#define IOK_REQUIRED_MAX 16u /* services without which health is bad */

/* State changes only through set_state, by the table in listener.c. */
enum iok_listener_state {
    IOK_LISTENER_BOUND = 0, /* and nobody serves: connections wait in the system */
    IOK_LISTENER_OPEN,      /* accepts connections */
    IOK_LISTENER_DRAINING,  /* accepts no more; requests under way are answered */
    IOK_LISTENER_CLOSED,    /* no connection is left */
    IOK_LISTENER_LEFT,      /* in the child of a fork: it is the parent's */
};

struct iok_listener {
    struct iok_count refs; /* the program's handles, calls, messages, and one of the core's */
    struct iok_url url;
    char name[512];
    const struct iok_proto *proto;
    struct iok_listener_config config;
    struct iok_kernel *owner; /* the public handle */
    int fd;                   /* bound; -1: closed */
    int binder;               /* the process that bound it, and removes a socket's file */
    struct iok_address address;
    struct iok_tls *tls;       /* NULL: plain */
    struct iok_count tls_next; /* the address of what replaces it; 0: nothing */
    void (*tls_free)(struct iok_tls *tls);
    void (*unbind)(int fd, const char *path);
    struct iok_span health;   /* the path at which the kernel thread tells how all is; n 0: none */
    struct iok_route *routes; /* these, and what follows, are fixed when serving begins */
    struct iok_service *required[IOK_REQUIRED_MAX];
    uint32_t n_required;
    struct iok_count grace_ms; /* of the close that the program asked for last */

    /* the core's */
    struct iok_core *core;
    struct iok_node node;
    struct iok_count state; /* enum iok_listener_state; read by anybody */
    struct iok_door *door;
    bool accepting;
    struct iok_list guests, stations;
    struct iok_list queue; /* guests whose requests wait for a call */
    struct iok_list idle;  /* those that wait for another request, the idlest first */
    uint32_t n_guests, n_queued;
    uint64_t unread_bytes;  /* of all guests' unread */
    struct iok_timer timer; /* OPEN: until accepting is tried again; DRAINING: the end */

    /* figures: written by the core, read by anybody */
    struct iok_count connections, connections_now, requests, native, served_now, queued_now, shed, refused, gone,
        timeouts;
    struct iok_count answers[5]; /* by the first digit of the status, 1 to 5 */
    struct iok_count bytes_in, bytes_out, starved;
    struct iok_hist hist_wait;          /* whole request -> given to a call */
    struct iok_hist_shared hist_pickup; /* -> picked up; written by the ports */
    struct iok_hist hist_answer;        /* given -> answered */
    struct iok_note last_failure;
};

/* State changes only through set_state, by the table in guest.c. */
enum iok_guest_state {
    IOK_GUEST_OPENING = 0, /* TLS, or the word of a proxy */
    IOK_GUEST_IDLE,        /* nothing of a request was read */
    IOK_GUEST_READING,     /* a part of one */
    IOK_GUEST_QUEUED,      /* a whole one, and no call to give it to */
    IOK_GUEST_SERVED,      /* a call has it */
    IOK_GUEST_ANSWERING,   /* its answer goes out */
    IOK_GUEST_LEAVING,     /* all is said: what still comes is dropped, until the client ends, or a moment has passed */
    IOK_GUEST_CLOSED,      /* waits in core->dead_guests */
};

struct iok_guest {
    struct iok_listener *listener;
    struct iok_link *link;
    struct iok_node node; /* in the listener's guests, or core->dead_guests */
    struct iok_node wait; /* in the listener's queue, or among its idle ones */
    struct iok_node more; /* in core->unsent */
    enum iok_guest_state state;
    bool blocked;   /* send accepted less than all */
    bool paused;    /* enough was read ahead */
    bool ended;     /* the client sends no more */
    bool closing;   /* ends behind what is to be sent */
    bool cut_short; /* not all that the client sends was read, or will be */
    bool whole;     /* a request was read to its end, just now */
    bool in_body;   /* the head of the request that is being read was read */
    bool streams;   /* and its body goes to the call in parts */
    bool upgraded;  /* it is another protocol by now: messages both ways, the request's body and the answer's */
    bool pings;     /* upgraded: it has a sign of life; */
    bool pinged;    /* which was asked for since bytes last came */
    bool parting;   /* upgraded: the client has closed, and is answered when the program has taken what came before */
    bool held;      /* which has enough of them: nothing is read */
    bool says;      /* an answer is under way, and its body not complete */
    uint64_t n_requests;
    uint64_t since;                /* when it came to its state, or made progress in it */
    uint64_t parting_at;           /* when that began */
    uint64_t began_at, arrived_at; /* when the request's first byte came, and the last byte of all */
    uint64_t lag;                  /* of body_timeout, what was used up by sending a body below body_rate */
    struct iok_timer timer;        /* at or before the time at which something is due: looked at when it fires */
    struct iok_call *call;         /* SERVED: which has its request. ANSWERING: whose memory goes out; else NULL */
    struct iok_request *request;   /* being read, or waiting for a call */
    struct iok_message *part;      /* of the request's body, being read */
    bool parted;                   /* its call was given a part of that */
    struct iok_list parts;         /* of the answer's body, whose bytes are not out */
    size_t unread;                 /* of its answer the listener keeps so much, by max_unread= */
    struct iok_peer peer;
    struct iok_io io;
    struct iok_out out;
    uint8_t *rest;                    /* bytes that were read ahead, or that feed left */
    size_t n_rest, cap_rest, n_front; /* n_front: of these, how many stand in scratch */
    void *codec;                      /* proto->server->state_size bytes */
};

/* ---- listener.c ---- */
struct iok_listener *iok_listener_make(const char *url, struct iok_error *err);
void iok_listener_drop(struct iok_listener *listener); /* one reference */
/* The first call of this process that serves. */
void iok_listener_start(struct iok_core *core, struct iok_listener *listener);
/* The program wants it closed, within grace_ms. */
void iok_listener_drain(struct iok_core *core, struct iok_listener *listener);
/* Connections from now on have the TLS in tls_next. */
void iok_listener_secure(struct iok_listener *listener);
/* At once: requests under way are broken off. */
void iok_listener_stop(struct iok_listener *listener, const struct iok_error *why);
void iok_listener_timer(struct iok_listener *listener);
/* A guest is there, or is gone: whether more are to be accepted, and whether a drain is over. */
void iok_listener_look(struct iok_listener *listener);
/* A guest is about to become idle, or to be so no more. */
void iok_listener_note_idle(struct iok_listener *listener, struct iok_guest *guest, enum iok_guest_state next);
/* A whole request of a guest: to a call, or into the queue, or refused. Again: the same by a request that came back. */
void iok_listener_dispatch(struct iok_listener *listener, struct iok_guest *guest);
void iok_listener_dispatch_again(struct iok_listener *listener, struct iok_guest *guest);
/* A call waits: for the request that waits longest, if there is one. */
void iok_listener_serve(struct iok_listener *listener, struct iok_call *call);
/* The station of a port; NULL: out of memory. */
struct iok_station *iok_listener_station(struct iok_listener *listener, struct iok_port *port);
/* The port goes away, and has no calls any more. */
void iok_listener_forget_port(struct iok_listener *listener, struct iok_port *port);
/* After fork, as of services; the first at once, in the handler of fork. */
void iok_listener_leave(struct iok_listener *listener);
void iok_listener_forget_links(struct iok_listener *listener);
void iok_listener_forked(struct iok_listener *listener, const struct iok_error *why);
static inline enum iok_listener_state iok_listener_state(const struct iok_listener *listener)
{
    return (enum iok_listener_state)iok_count_get(&listener->state);
}

/* ---- proxy.c ---- */
int iok_proxy_read_nets(struct iok_listener_config *config, struct iok_span list, struct iok_error *err);
/* Whether it may say who the client is. */
bool iok_proxy_is_believed(const struct iok_listener_config *config, const struct iok_peer *peer);
/* What a connection begins with: bytes used, 0 if more are needed, or IOK_EPROTO. *peer and *encrypted are changed to
 * what it says; a family of 0: it does not tell. */
ptrdiff_t iok_proxy_read(struct iok_span in, struct iok_peer *peer, bool *encrypted);

/* ---- route.c ---- */
/* true: the request was answered here. */
bool iok_route_answers(struct iok_listener *listener, struct iok_guest *guest);
int iok_route_add(struct iok_listener *listener, const char *target, int status, const char *type, struct iok_span body,
                  struct iok_error *err);
void iok_routes_free(struct iok_listener *listener);
/* Something was given to a port's program. For how long at least what was given has not been taken; 0: it was. */
void iok_pickup_given(struct iok_core *core, struct iok_port *port);
uint64_t iok_pickup_delay(const struct iok_core *core, struct iok_port *port);

/* ---- guest.c ---- */
void iok_guest_accept(struct iok_listener *listener, struct iok_link *link, const struct iok_address *address);
void iok_guest_close(struct iok_guest *guest, const struct iok_error *why);
void iok_guest_free(struct iok_guest *guest);
void iok_guest_timer(struct iok_guest *guest);
void iok_guest_flush(struct iok_guest *guest);
void iok_guest_set_state(struct iok_guest *guest, enum iok_guest_state state);
/* The program's answer to its request. 0: it goes out; IOK_EINVAL, IOK_ETYPE, IOK_ELIMIT, IOK_EUNSAFE: it cannot be sent, and
 * the guest's io->err says why; else the guest is closed. */
int iok_guest_answer(struct iok_guest *guest, const struct iok_token *answer, size_t n);
/* The same by an answer that changes the protocol. */
int iok_guest_upgrade(struct iok_guest *guest, const struct iok_call *call);
/* What it has to send goes out at the end of this turn. */
void iok_guest_want_flush(struct iok_guest *guest);
/* Its request is answered with an error; why is a code, as of the codec's slot refuse. */
void iok_guest_refuse(struct iok_guest *guest, int why);
/* Its client has closed a WebSocket, and is answered. */
void iok_guest_part(struct iok_guest *guest);
/* What its client sent ahead. */
void iok_guest_go_on(struct iok_guest *guest);
/* After a listener began to drain: ends when nothing is under way. */
void iok_guest_drain(struct iok_guest *guest);

/* ---- guest_host.c ---- */
extern const struct iok_host iok_guest_host;
/* A part of a body that was begun, and cannot be ended. */
void iok_guest_drop_part(struct iok_guest *guest);

/* ---- serve.c ---- */
/* A call came from its port: for the first time, or with an answer. */
void iok_serve_take(struct iok_core *core, struct iok_call *call);
/* The guest's request goes to a call that waits. */
void iok_serve_give(struct iok_guest *guest, struct iok_call *call);
/* The guest goes on without its call: its answer is out, or the guest is gone. */
void iok_serve_release(struct iok_guest *guest);
/* The program wants the call back. */
void iok_serve_cut(struct iok_core *core, struct iok_call *call, const struct iok_error *err);
void iok_serve_end(struct iok_core *core, struct iok_call *call, const struct iok_error *err);
/* The program is to look at the call: parts of a body have come, or something of what is shared has changed. */
void iok_serve_post_news(struct iok_call *call);
/* The client sends no more. */
void iok_serve_tell_left(struct iok_call *call);
/* The program knows that the client has closed a WebSocket, and has submitted all that it says of what came before. */
void iok_serve_heard(struct iok_call *call);
/* Program: fetches the request of a call that the ring gives it next. */
static inline void iok_serve_fetch(const struct iok_call *call)
{
    const struct iok_request *request;

    if ((call->app & IOK_APP_CANCEL) != 0) { /* then it is the kernel's, perhaps */
        return;
    }
    request = call->serve->request;
    __builtin_prefetch(&request->tape);
    for (size_t i = 1; i <= 3; i++) {
        __builtin_prefetch(&request->bytes[IOK_REQUEST_BYTES - i * IOK_CACHE_LINE]);
        __builtin_prefetch((const uint8_t *)request->tokens + (i - 1) * IOK_CACHE_LINE);
    }
}

/* Whether it serves, or is a part of an answer's body. */
static inline bool iok_serves(const struct iok_call *call)
{
    return call->serve != NULL || (call->whole != NULL && call->whole->serve != NULL);
}
/* The answer is complete, as far as the program is concerned. */
void iok_serve_answered(struct iok_core *core, struct iok_call *call);
/* The program is done with a request whose client is gone. */
void iok_serve_give_up(struct iok_core *core, struct iok_call *call);

/* ---- serve_parts.c ---- */
/* A part of the request's body is complete, or was begun; NULL: out of memory. */
struct iok_tape *iok_intake_begin(struct iok_guest *guest);
int iok_intake_end(struct iok_guest *guest);
/* Memory for them, of a call that has none yet. 0 or IOK_ENOMEM. */
int iok_intake_open(struct iok_guest *guest, struct iok_call *call);
/* Whether so much of them stands that nothing more is read: guest->held. */
void iok_intake_look(struct iok_guest *guest);
/* The program has taken enough of them to go on. */
void iok_intake_resume(struct iok_call *call);
/* A part of an answer's body came from a port; the program wants it back. */
void iok_serve_part(struct iok_core *core, struct iok_call *part);
void iok_serve_part_cut(struct iok_call *part, const struct iok_error *err);
/* What stands before this place in its output was sent, or the listener keeps it; the guest is gone. */
void iok_serve_parts_sent(struct iok_guest *guest, uint64_t end);
void iok_serve_parts_lost(struct iok_guest *guest, const struct iok_error *err);

/* ---- serve.c ---- */
struct iok_request *iok_request_new(struct iok_core *core, size_t max_bytes);
void iok_request_recycle(struct iok_core *core, struct iok_request *request);

#endif
