/* run.h - what api.c, run.c, fork.c and secure.c share: the public handle, and who may do what. */
#ifndef IOK_RUN_H
#define IOK_RUN_H

#include "kernel/kernel.h"
#include "ring/baton.h"

struct iok_listener;

struct iok_kernel {
    struct iok_core core;
    struct iok_baton baton;
    struct iok_net *net;
    struct iok_net *chaos; /* on top of net, which the core then does not see; NULL: none */
    char *chaos_options;   /* of the program; NULL: none */
    pthread_t thread;
    struct iok_count refs; /* the program's handle, and one a port */
    struct iok_count stop;
    struct iok_kernel *next;     /* in the list of kernels that are not stopped, for fork */
    struct iok_count generation; /* of the process that its thread runs in; else fork left it behind, see fork.c */
    uint64_t seed;
    uint32_t port_calls_max;
    uint64_t port_bytes_max;
    enum iok_handoff handoff;
    bool may_spin;      /* a second CPU is there */
    bool clock_trusted; /* iok_clock_is_trusted */
    char name[16];

    /* fork.c's */
    bool paused;          /* during fork: the forking thread holds the baton */
    bool torn;            /* in a child: the core could not be stopped for fork, and cannot be used */
    bool settled;         /* in a child: what the parent had under way has ended here */
    struct iok_list left; /* in a child: ports to free */
};

/* ---- run.c ---- */
uint64_t iok_now_ns(void);
/* Makes the driver and the thread, for a core that has its wake-up. */
int iok_kernel_start(struct iok_kernel *kernel, uint64_t seed, struct iok_error *err);
void iok_kernel_drop(struct iok_kernel *kernel);
/* Tells the kernel thread that there is work. */
void iok_kick(struct iok_port *port);
/* Whether the calling thread runs this core just now. */
bool iok_is_leading(const struct iok_kernel *kernel);

/* ---- api.c ---- */
/* 0, IOK_EFORKED, IOK_ETHREAD. */
int iok_port_check_owner(const struct iok_port *port, struct iok_error *err);
/* The same, and what iok_kernel_revive says. */
int iok_port_check(struct iok_port *port, struct iok_error *err);
/* Handles one entry of the completion ring: false when it is empty. *news: a call for iok_poll, or NULL. */
bool iok_port_take(struct iok_port *port, struct iok_call **news);
/* Frees the calls that iok_port_take kept while port->leading was set. */
void iok_port_free_doomed(struct iok_port *port);
void iok_port_free_now(struct iok_port *port);
/* Makes the port's descriptor readable: iok_poll has something that no producer tells of. */
void iok_port_owe(struct iok_port *port);
/* Gives a submitted call to the kernel. false: the ring is full. */
bool iok_hand_over(struct iok_call *call);
/* Fills in why a call failed on the program's side. */
void iok_call_set_error(struct iok_call *call, const struct iok_error *err);

/* A call without a service; NULL as iok_call_new. */
struct iok_call *iok_call_make(struct iok_port *port, struct iok_error *err);
/* Something was pushed to the kernel: tells it, if it has to know by now. */
void iok_submitted(struct iok_port *port);

/* ---- api_serve.c ---- */
int iok_serve_submit(struct iok_call *call);
/* It came with a request; or with news: true if they are the program's. */
void iok_serve_picked_up(struct iok_call *call, uint64_t now);
bool iok_serve_news(struct iok_call *call);
/* The request that it has is answered to the end, or given up: its messages are dropped. */
void iok_serve_said_all(struct iok_call *call);
/* The oldest part of its request's body, and after one was taken, as iok_call_message and iok_call_next. */
const struct iok_token *iok_serve_message(struct iok_call *call, size_t *n);
void iok_serve_taken(struct iok_call *call);
/* Whether no more of a body can come, as the client is gone. */
bool iok_serve_is_over(const struct iok_call *call);
/* Frees what a serving call has beyond a call. */
void iok_serve_free(struct iok_call *call);

/* ---- fork.c ---- */
extern struct iok_count iok_generation; /* forks since the program began; written in a child that has one thread */

static inline bool iok_kernel_is_here(const struct iok_kernel *kernel)
{
    return iok_count_published(&kernel->generation) == iok_count_get(&iok_generation);
}

/* A running kernel is to know of forks, or no more. */
void iok_fork_enlist(struct iok_kernel *kernel);
void iok_fork_unlist(struct iok_kernel *kernel); /* held */
/* No fork happens in between; it waits. What is done there must not need the program, nor take long. */
void iok_fork_hold(void);
void iok_fork_release(void);
/* Makes a kernel that fork left behind run in this process. 0; IOK_EFORKED if it cannot, IOK_ESYSTEM and IOK_ENOMEM if
 * it can not now. */
int iok_kernel_revive(struct iok_kernel *kernel, struct iok_error *err);
/* Ends all that such a kernel has. Held. */
void iok_kernel_settle(struct iok_kernel *kernel);
/* Frees the ports that were freed before their kernel was settled. Not held. */
void iok_kernel_free_left(struct iok_kernel *kernel);
/* true: the port will be freed later, by the above. */
bool iok_port_leave(struct iok_port *port);

/* ---- park.c ---- */
/* A call that is being submitted finds no room, or others waiting for it. 0: hand it over all the same; 1: it is
 * parked; or the error. */
int iok_port_at_bound(struct iok_call *call, struct iok_error *err);
/* Hands over the parked calls for which there is room by now. */
void iok_port_room(struct iok_port *port);
/* Takes a call out of the parked ones, to be freed. */
void iok_unpark(struct iok_call *call);
/* Ends a parked call as NEVER_SENT; it goes to iok_poll. Then iok_port_room is due. */
void iok_parked_end(struct iok_call *call, const struct iok_error *err);
/* The same for one alone, whose loss has to be told: a part takes its call along. */
void iok_parked_cut(struct iok_call *call, const struct iok_error *err);
/* The time has come that was asked for: ends those whose deadline has passed. */
void iok_parked_due(struct iok_port *port);
/* In the child after fork, at once: ends all, which the parent may send. */
void iok_parked_forked(struct iok_port *port);
/* Ends those of a lease that is given back. */
void iok_parked_release(struct iok_lease *lease);

/* ---- secure.c ---- */
/* Loads the service's TLS configuration, if there is any to be. The program's thread. */
int iok_service_load_tls(struct iok_service *service, struct iok_error *err);
/* The same of a listener; *out is NULL if it is plain. */
int iok_listener_load_tls(const struct iok_listener *listener, struct iok_tls **out, struct iok_error *err);

#endif
