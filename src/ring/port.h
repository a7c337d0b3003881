/* port.h - the only object that an application thread and the kernel thread share.
 *
 *     application  --- sq: submit, cancel, credit, ... --->  kernel
 *     application  <-- cq: ended, news, acknowledged ---     kernel
 *
 * Entries are pointers with a verb in the low bits. Both rings are so large that they cannot be full: each live
 * object (a call, a lease, a service hand-over) has at most IOK_PORT_VERBS entries under way in either direction, and
 * the number of live objects is bounded at creation. So the completion slot of a call is reserved when it is made. */
#ifndef IOK_RING_PORT_H
#define IOK_RING_PORT_H

#include <pthread.h>

#include "spsc.h"
#include "wake.h"

enum iok_verb {
    /* to the kernel */
    IOK_SQ_SUBMIT = 0, /* call: take it */
    IOK_SQ_CANCEL,     /* call: end it; always answered by CANCELLED */
    IOK_SQ_CREDIT,     /* service: a stream of it has room again */
    IOK_SQ_RELEASE,    /* lease: give it back; answered by RELEASED */
    IOK_SQ_OPEN,       /* service: start it */
    IOK_SQ_CLOSE,      /* service: stop it */
    IOK_SQ_DETACH,     /* port: forget it; the flag detached is set */
    IOK_SQ_DUE,        /* port: say when a time has come that stands in it */
    IOK_SQ_DRAIN,      /* listener: close it */
    IOK_SQ_SECURE,     /* listener: it has new certificates */
    IOK_SQ_TAKEN,      /* serving call: the body of its request has room again */
    IOK_SQ_HEARD,      /* serving call: the program knows that its client has closed a WebSocket */
    /* to the application */
    IOK_CQ_ENDED = 0, /* call: has ended */
    IOK_CQ_NEWS,      /* call: its stream has messages */
    IOK_CQ_CANCELLED, /* call: the cancel request was seen, the kernel holds no pointer to the call any more */
    IOK_CQ_RELEASED,  /* lease: the kernel holds no pointer to it any more */
    IOK_CQ_DUE,       /* port: that time has come */
    IOK_CQ_REQUEST,   /* serving call: it has a request */
    IOK_CQ_PROBE,     /* port: whether its program takes what comes */
};
#define IOK_VERB_MASK ((uintptr_t)15) /* objects are aligned to 16 bytes at least */
/* A call has at most 3 entries under way to the kernel (one is a credit of the call that had its place before; of a
 * serving call, which no call had before, 4) and 3 back, a lease 1 and 1. With half as many leases as calls that is at most 3.5 a call; the rest is for what is rare:
 * services opened, closed, a port's time. */
#define IOK_PORT_VERBS 4u
#define IOK_PORT_ENTRIES_MIN 64u /* for what is rare on a port for very few calls */
/* In a burst the kernel is told of the first call and of every so many: fewer and larger packets, and a server that is
 * not woken for each few of them. */
#define IOK_BURST_CALLS 256u

struct iok_port_link {
    struct iok_ring sq, cq;
    struct iok_wake wake;                              /* of the application */
    struct iok_wake *kernel_wake;                      /* shared by all ports */
    alignas(IOK_CACHE_LINE) _Atomic uint32_t detached; /* the kernel has let go of the port */
    _Atomic(struct iok_port_link *) next_new;          /* the kernel's list of ports that it has not met */
    pthread_t owner;
    uint32_t unkicked;     /* submissions since the kernel was last told; IOK_BURST_CALLS: a burst without any yet */
    _Atomic bool bursting; /* between drain_begin and drain_end; the kernel reads it */
    bool armed;            /* the program watches the descriptor */
};

static inline uintptr_t iok_entry(void *object, enum iok_verb verb)
{
    return (uintptr_t)object | (uintptr_t)verb;
}

static inline void *iok_entry_object(uintptr_t entry)
{
    return (void *)(entry & ~IOK_VERB_MASK);
}

static inline enum iok_verb iok_entry_verb(uintptr_t entry)
{
    return (enum iok_verb)(entry & IOK_VERB_MASK);
}

/* Ports that wait to be met by the kernel: many producers, one consumer that takes all. */
struct iok_port_inbox {
    _Atomic(struct iok_port_link *) first;
};

int iok_port_link_init(struct iok_port_link *link, uint32_t objects_max, struct iok_wake *kernel_wake);
void iok_port_link_deinit(struct iok_port_link *link);

/* Any thread. */
void iok_port_inbox_push(struct iok_port_inbox *inbox, struct iok_port_link *link);
/* Kernel: takes all, newest first, chained by next_new. */
struct iok_port_link *iok_port_inbox_take(struct iok_port_inbox *inbox);
static inline bool iok_port_inbox_empty(struct iok_port_inbox *inbox)
{
    return atomic_load_explicit(&inbox->first, memory_order_acquire) == NULL;
}

static inline struct iok_port_link *iok_port_link_next(struct iok_port_link *link)
{
    return atomic_load_explicit(&link->next_new, memory_order_relaxed);
}

/* Kernel, which has armed its wake: the application certainly tells it of what it submits, soon. */
static inline bool iok_port_is_bursting(struct iok_port_link *link)
{
    return atomic_load_explicit(&link->bursting, memory_order_relaxed);
}

/* Application; a kick has to follow the end. */
static inline void iok_port_set_bursting(struct iok_port_link *link, bool bursting)
{
    atomic_store_explicit(&link->bursting, bursting, memory_order_relaxed);
    link->unkicked = bursting ? IOK_BURST_CALLS : 0;
}

static inline bool iok_port_is_detached(struct iok_port_link *link)
{
    return atomic_load_explicit(&link->detached, memory_order_acquire) != 0;
}

/* Kernel: its last touch of the port. */
static inline void iok_port_set_detached(struct iok_port_link *link)
{
    atomic_store_explicit(&link->detached, 1, memory_order_release);
}

#endif
