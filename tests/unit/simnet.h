/* simnet.h - a network that the test itself is: a clock that stands still, and peers that do only what they are told.
 *
 * A test runs the core for a while, looks at what a link was handed, and then lets something happen: the link
 * connects, bytes arrive, it breaks. Nothing happens by itself, and nothing happens inside a call of the core. */
#ifndef IOK_TESTS_SIMNET_H
#define IOK_TESTS_SIMNET_H

#include "../../src/net/net.h"
#include "../../src/run.h"

#define SIM_LINKS_MAX 64u
#define SIM_MS UINT64_C(1000000)
#define SIM_S UINT64_C(1000000000)

struct iok_link {
    struct sim *sim;
    const struct iok_link_events *events;
    void *owner;
    struct iok_address address; /* the first that was to be tried */
    bool dead;                  /* closed by either side */
    bool closed_by_us;          /* by the core */
    bool connected;
    bool reading;
    bool accepted; /* by the listening socket, and not opened by the core */
    bool shut;     /* the core sends no more */
    bool starved;  /* the core was told that not all was accepted */
    size_t window; /* bytes that are still accepted */
    char *got;     /* what was accepted, NUL-terminated */
    size_t n_got;
};

struct iok_query {
    iok_resolved_fn *done;
    void *owner;
    bool dead;
};

struct iok_door {
    const struct iok_door_events *events;
    void *owner;
    bool open, accepting;
};

#define SIM_FD 12345 /* of the listening socket */

struct sim {
    struct iok_net net; /* first */
    struct iok_door door;
    uint64_t now, random;
    struct iok_link links[SIM_LINKS_MAX];
    unsigned n_links;
    struct iok_query query;
    unsigned n_queries;
    bool cannot_open; /* open fails at once */
};

void sim_init(struct sim *sim);
void sim_deinit(struct sim *sim);

/* The link that was opened last; fails the test if there is none. */
struct iok_link *sim_last(struct sim *sim);
unsigned sim_live_links(const struct sim *sim);
void sim_connect(struct iok_link *link);
void sim_fail(struct iok_link *link, int code); /* refused, reset; 0: an orderly end */
void sim_arrive(struct iok_link *link, const char *text);
void sim_arrive_bytes(struct iok_link *link, const void *bytes, size_t n);
/* A client connects to the listening socket; IPv4 address 10.0.0.1 and up, by its number. */
struct iok_link *sim_client(struct sim *sim);
/* A client sends no more. */
void sim_end(struct iok_link *link);
/* More is accepted from now on. */
void sim_accept(struct iok_link *link, size_t window);
/* Forgets what was accepted so far. */
void sim_clear(struct iok_link *link);
void sim_resolved(struct sim *sim, const char *ip, uint16_t port, uint64_t ttl_ns);

/* A kernel without a thread, on a simulated network, with one port and one service, or none. */
struct world {
    struct sim sim;
    struct iok_kernel *kernel;
    struct iok_core *core;
    struct iok_port *port;
    struct iok_service *service;
};

struct world *world_new(const char *url); /* NULL: without a service */
/* Ends everything, and checks that nothing is left. */
void world_free(struct world *w);
/* Runs turns until the core would sleep. */
void world_run(struct world *w);
/* Lets time pass, from timer to timer. */
void world_advance(struct world *w, uint64_t ns);
/* The last link connects, and the core gets to know. */
struct iok_link *world_connect(struct world *w);
/* The last link connects, and the peer accepts each step of Redis's sign-in. */
struct iok_link *world_sign_in(struct world *w);
/* Takes what the kernel pushed, as iok_poll would, but calls that ended only get their mark. */
void world_take(struct world *w);
/* A call of one text argument, submitted at the simulated time; not taken yet. timeout_ms as iok_call_timeout. */
struct iok_call *world_submit(struct world *w, const char *text, int64_t timeout_ms, struct iok_lease *lease);
/* As world_submit for several words, with turns of the core afterwards. Ends with NULL. */
struct iok_call *world_command(struct world *w, struct iok_lease *lease, const char *const *words);
/* Submits a call that the test has built itself. */
void world_hand_in(struct world *w, struct iok_call *call);
/* The call must have ended so; frees it. code 0: no error. reply NULL: not looked at. */
void world_expect(struct world *w, struct iok_call *call, enum iok_outcome outcome, int code, const char *reply);
/* The call must not have ended. */
void world_pending(struct world *w, struct iok_call *call);

#endif
