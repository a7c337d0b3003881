/* scene.h - what the parts of the seeded simulation share: one kernel core, a network, servers and a program, all of
 * which do what the dice of one seed say.
 *
 *     program.c  --ports-->  the kernel core and its codecs  --net.h-->  wire.c  --bytes-->  server.c
 *         \_____________________________ truth.c: what must hold ____________________________/
 *
 * Nothing here depends on addresses, on the clock or on chance: the same seed gives the same transcript. There is one
 * scene at a time, so it is a global. docs/simulation.md tells the whole. */
#ifndef IOK_TESTS_SCENE_H
#define IOK_TESTS_SCENE_H

#include "../../src/run.h"
#include "dice.h"

#define SCENE_MS IOK_NS_MS
#define SCENE_S IOK_NS_S
#define SCENE_START (1000 * SCENE_S)
#define SCENE_TICK (UINT64_C(1) << IOK_TICK_SHIFT) /* how late a deadline may be: timer.h */

#define CALLS_MAX 400u
#define LINKS_MAX 4096u /* a service that makes more in a minute does not pause between attempts */
#define QUERIES_MAX 4096u
#define SERVERS 6u /* the last but one speaks line, the last HTTP, the others Redis */
#define REDIS_SERVERS (SERVERS - 2)
#define NAMES 2u
#define SERVICES_MAX 6u
#define PORTS_MAX 8u
#define LEASES_MAX 48u
#define QUEUED_MAX 16u /* requests within one MULTI */

enum verb {
    VERB_READY, /* no request: usable? */
    VERB_GET,   /* repeatable; its reply may be large */
    VERB_INCR,
    VERB_SET,  /* the program says that it is repeatable */
    VERB_PUT,  /* a SET with a large argument by reference */
    VERB_EVAL, /* its error may come when half of it has run */
    VERB_FLY,  /* no server knows it */
    VERB_BAD,  /* an argument that no codec can carry */
    VERB_BLPOP,
    VERB_WATCH, /* this and the next four: on a lease */
    VERB_MULTI,
    VERB_EXEC,
    VERB_DISCARD,
    VERB_SUBSCRIBE,
    VERB_LINE,  /* the line protocol's: repeatable */
    VERB_FETCH, /* this and the next two: HTTP's GET and HEAD, repeatable, and POST, with a body */
    VERB_HEAD,
    VERB_POST,
    VERBS,
};

/* What is known of one call. */
struct record {
    struct iok_call *call; /* NULL: not the program's any more */
    enum verb verb;
    uint32_t id;
    uint8_t service, port;
    uint8_t lease; /* LEASES_MAX: none */
    bool repeatable, cancelled, abandoned, ended;
    bool told;          /* an error reply by which the server says that it did not run it was sent */
    bool late;          /* submitted after the kernel had stopped */
    bool left;          /* waited for room on its port when the kernel stopped, which so never took it */
    bool probe;         /* submitted when all is well: must be done */
    uint64_t submitted; /* ns */
    uint64_t deadline;  /* 0: none */
    uint32_t executed;  /* times, by any server */
    uint32_t applied;   /* of a request within MULTI: times that an EXEC ran it */
    uint32_t exec;      /* the EXEC that ran it */
    uint32_t messages;  /* of a subscription: picked up so far */
    bool confirmed;     /* of a subscription: its confirmation was picked up */
    enum iok_outcome outcome;
    int code;
};

enum speech { SPEAKS_REDIS, SPEAKS_LINE, SPEAKS_HTTP };

struct server {
    struct iok_address address;
    enum speech speaks;
    bool up;     /* somebody listens */
    bool hangs;  /* attempts to connect are not answered */
    bool silent; /* stopped: nothing is read */
    bool loading, readonly, old, refuses, full;
    uint64_t slow; /* ns more for each answer */
};

/* One direction of a link: [0, taken) was used, [taken, arrived) came, [arrived, n) is on its way. */
struct pipe {
    uint8_t *p;
    size_t n, cap, taken, arrived;
    size_t limit;  /* bytes beyond it are lost */
    uint64_t last; /* when the last of it arrives */
    uint64_t latency;
};

/* The server's side of a link. */
struct session {
    uint8_t protocol;
    bool multi, aborted, watched;
    uint32_t queued[QUEUED_MAX];
    uint32_t n_queued;
    uint32_t channel; /* the subscription's call; 0: none */
    uint32_t published, to_publish;
    uint32_t blocked; /* the BLPOP that waits; 0: none */
    bool pops;        /* it gets an element in the end */
    uint64_t blocked_until;
    uint32_t holder;            /* whose requests came last: 1 + a lease, 1000 + a call with its own, 0: nobody's */
    bool shared;                /* requests without a lease came */
    uint32_t newest[PORTS_MAX]; /* the latest call of each port */
    uint32_t asked;             /* the request of HTTP that is not answered yet; 0: none */
    uint64_t answer_at;         /* or, if there is none, when the connection is closed as idle; 0: not */
    bool last;                  /* the answer said that no other follows */
};

enum link_state { LINK_TRYING, LINK_OPEN, LINK_BROKEN, LINK_GONE };

struct iok_link {
    uint16_t id;
    enum link_state state; /* as the core sees it */
    bool serving;          /* the server has it open */
    bool ended;            /* the server has sent its last byte */
    bool reading, starved;
    const struct iok_link_events *events;
    void *owner;
    struct server *server;
    struct pipe up, down;
    size_t window;        /* bytes on their way that are accepted */
    size_t gulp;          /* most bytes of one read */
    size_t reset_at_up;   /* reset when so many bytes were accepted */
    size_t reset_at_down; /* or delivered */
    size_t end_at_down;   /* the server half-closes after so many */
    struct session session;
};

struct iok_query {
    iok_resolved_fn *done; /* NULL: over */
    void *owner;
    uint16_t id, port;
    uint8_t name;
};

struct name {
    unsigned servers; /* bit set */
    bool fails, hangs;
    uint64_t ttl;
};

struct service {
    struct iok_service *handle;
    char url[320];
    enum speech speaks;
    bool named, closed;
    uint32_t submitted, abandoned, ended[5];
    uint32_t late;                /* of the submitted: after the kernel's end */
    uint32_t untaken;             /* that ended while they waited for room on their port */
    uint64_t bytes_in, bytes_out; /* of its links */
};

struct lease {
    struct iok_lease *handle; /* NULL: given back */
    uint8_t service, port;
    bool streams, released;
    uint32_t multi; /* a transaction is open */
    uint16_t link;  /* 1 + the link that its requests came on; 0: none yet */
};

struct port {
    struct iok_port *handle; /* NULL: none */
    unsigned laziness;       /* permille of chances that the program does not look */
    bool retiring;
};

enum what {
    EVENT_CONNECT,
    EVENT_FAIL,
    EVENT_UP,
    EVENT_DOWN,
    EVENT_WRITABLE,
    EVENT_GONE,
    EVENT_SERVER,
    EVENT_RESOLVED,
    EVENT_PROGRAM,
    EVENT_CHAOS,
};

struct event {
    uint64_t at;
    uint64_t arg;
    uint32_t order;
    uint16_t subject;
    uint16_t what;
};

struct scene {
    struct iok_net net; /* first */
    uint64_t seed, now;
    struct dice wire, plot, own; /* the network's and the servers', the program's, the kernel's */
    bool calm;                   /* no faults */
    bool well;                   /* nothing is broken any more: what is asked for succeeds */
    bool talks, prints;          /* a transcript is made; it is printed, too */
    uint64_t hash;               /* of the transcript */

    struct iok_kernel *kernel;
    struct event *events; /* a heap */
    size_t n_events, cap_events;
    uint32_t order;

    struct server servers[SERVERS];
    struct name names[NAMES];
    struct iok_link links[LINKS_MAX];
    uint32_t n_links;
    struct iok_query queries[QUERIES_MAX];
    uint32_t n_queries;

    struct service services[SERVICES_MAX];
    uint32_t n_services;
    struct port ports[PORTS_MAX];
    uint32_t n_ports;
    struct lease leases[LEASES_MAX];
    uint32_t n_leases;
    struct record records[CALLS_MAX + 1]; /* from 1 */
    uint32_t n_records;
    uint32_t live[CALLS_MAX]; /* records with a call */
    uint32_t n_live;

    uint64_t pace, unrest; /* ns between acts of the program, and of fate */
    uint32_t acts_left, calls_max;
    uint32_t refs_made, refs_released;
    long memory; /* live allocations before */
};

extern struct scene scene;

/* ---- scene.c ---- */
/* Plays one seed; returns the hash of its transcript if it talks. What must hold is checked: see violation. */
uint64_t scene_play(uint64_t seed, bool talks, bool prints);
/* Frees what is kept from one seed to the next. */
void scene_free(void);
void scene_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define say(...) (scene.talks ? scene_say(__VA_ARGS__) : (void)0)
/* Something that must hold does not: says so, prints the transcript if that was not done, and exits with 1. */
_Noreturn void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define must(condition, ...) ((condition) ? (void)0 : violation(__VA_ARGS__))
void scene_at(uint64_t at, enum what what, unsigned subject, uint64_t arg);
void scene_rest(void);

/* ---- wire.c: the network ---- */
void wire_init(void);
void wire_event(const struct event *event);
/* Bytes from the server; delay: how long it takes before they leave. */
void wire_write(struct iok_link *link, const void *p, size_t n, uint64_t delay);
void wire_end(struct iok_link *link); /* the server sends no more */
void wire_reset(struct iok_link *link);
void wire_vanish(struct iok_link *link); /* the server's machine is gone, without a word */
void wire_calm(void);
/* A link that is not gone, or NULL. */
struct iok_link *wire_any(void);

/* ---- server.c: the servers ---- */
void server_init(void);
void server_accept(struct iok_link *link);
void server_read(struct iok_link *link); /* bytes have arrived */
void server_time(struct iok_link *link); /* a time has come that it had set */
/* The call that a request names, "k17": strictly; 0: that is no name. */
uint32_t server_call_of(struct iok_span key);
void server_fate(void); /* something happens to one of them, or to a link, or to a name */
void server_calm(void);

/* ---- web.c: a server of HTTP ---- */
/* Takes a whole request: its size; 0: more is to come, or it is busy. */
size_t web_read(struct iok_link *link, struct iok_span in);
void web_time(struct iok_link *link);

/* ---- program.c: the program ---- */
void program_init(void);
void program_act(void);
void program_poll(bool all); /* all: no laziness */
void program_probe(void);
void program_give_up(void); /* ends what would not end by itself */
void program_close(void);
void program_late(void); /* goes on as if the kernel had not stopped */
void program_free(void);
const char *verb_name(enum verb verb);

/* ---- truth.c: what must hold ---- */
/* What the large argument of a call consists of. */
static inline uint8_t truth_filler(uint32_t id)
{
    return (uint8_t)('a' + id % 26);
}
/* A request of a call came to a server; before it is run, or refused. */
void truth_arrived(struct iok_link *link, uint32_t id);
void truth_executed(uint32_t id);
void truth_ended(struct record *record);
/* The kernel does not know it: it waits for room on its port, or has ended meanwhile. */
static inline bool truth_untaken(const struct iok_call *call)
{
    return (call->app & (IOK_APP_PARKED | IOK_APP_ENDED)) != 0;
}
/* A message of a subscription was picked up. */
void truth_message(struct record *record, const struct iok_token *tokens, size_t n);
void truth_step(void);
void truth_final(void);

#endif
