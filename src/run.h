/* run.h - what api.c and run.c share: the public handle, and who may do what. */
#ifndef IOK_RUN_H
#define IOK_RUN_H

#include "kernel/kernel.h"
#include "ring/baton.h"

struct iok_kernel {
    struct iok_core core;
    struct iok_baton baton;
    struct iok_net *net;
    struct iok_net *chaos; /* on top of net, which the core then does not see; NULL: none */
    pthread_t thread;
    struct iok_count refs; /* the program's handle, and one a port */
    struct iok_count stop;
    struct iok_kernel *next; /* in the list of running kernels, for fork */
    uint64_t generation;     /* of the process that made it */
    uint32_t port_calls_max;
    uint64_t port_bytes_max;
    enum iok_handoff handoff;
    bool may_spin; /* a second CPU is there */
    bool paused;   /* during fork: the forking thread holds the baton */
    char name[16];
};

/* 0, IOK_EFORKED, IOK_ETHREAD. */
int iok_port_check(const struct iok_port *port, struct iok_error *err);
/* Changes in the child at each fork. */
uint64_t iok_generation(void);
void iok_kernel_drop(struct iok_kernel *kernel);
/* Tells the kernel thread that there is work. */
void iok_kick(struct iok_port *port);
/* Handles one entry of the completion ring: false when it is empty. *news: a call for iok_poll, or NULL. */
bool iok_port_take(struct iok_port *port, struct iok_call **news);
uint64_t iok_now_ns(void);
/* Makes the port's descriptor readable: iok_poll has something that no producer tells of. */
void iok_port_owe(struct iok_port *port);
/* Gives a submitted call to the kernel. false: the ring is full. */
bool iok_hand_over(struct iok_call *call);
/* Fills in why a call failed on the program's side. */
void iok_call_set_error(struct iok_call *call, const struct iok_error *err);

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
/* The time has come that was asked for: ends those whose deadline has passed. */
void iok_parked_due(struct iok_port *port);
/* Ends those of a lease that is given back. */
void iok_parked_release(struct iok_lease *lease);

#endif
