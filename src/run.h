/* run.h - what api.c and run.c share: the public handle, and who may do what. */
#ifndef IOK_RUN_H
#define IOK_RUN_H

#include "kernel/kernel.h"
#include "ring/baton.h"

struct iok_kernel {
    struct iok_core core;
    struct iok_baton baton;
    struct iok_net *net;
    pthread_t thread;
    struct iok_count refs; /* the program's handle, and one a port */
    struct iok_count stop;
    struct iok_kernel *next; /* in the list of running kernels, for fork */
    uint64_t generation;     /* of the process that made it */
    uint32_t port_calls_max;
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

#endif
