/* wake.h - waking a sleeping consumer, with as few system calls as possible.
 *
 *     consumer: arm (sleeping = 1, fence), look at the ring again, block on fd, disarm, drain fd
 *     producer: push, ring (fence, was sleeping set? then clear it and write fd)
 *
 * The fences on both sides make it impossible that the producer sees an awake consumer while the consumer sees an
 * empty ring. A consumer that is not armed costs the producer one load. Many producers may share one wake-up. */
#ifndef IOK_RING_WAKE_H
#define IOK_RING_WAKE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "spsc.h"

struct iok_wake {
    alignas(IOK_CACHE_LINE) _Atomic uint32_t sleeping;
    int fd_read, fd_write; /* the same eventfd, or the two ends of a pipe */
    bool armed;            /* consumer: it has not disarmed since it armed */
    bool owed;             /* consumer: a producer cleared sleeping, and its write may not have been read yet */
};

/* 0, or IOK_ESYSTEM when out of descriptors (errno says). */
int iok_wake_init(struct iok_wake *wake);
void iok_wake_deinit(struct iok_wake *wake);
/* In the child after fork, where the descriptor is the parent's too: disarmed, with a new one of the same number (if it
 * had any). As init; on failure it has none. */
int iok_wake_renew(struct iok_wake *wake);

/* Consumer: from now on producers write the descriptor, once. Look at the rings again afterwards. Twice is as once: what a
 * producer did in between is not forgotten. */
static inline void iok_wake_arm(struct iok_wake *wake)
{
    if (!wake->armed) {
        wake->armed = true;
        atomic_store_explicit(&wake->sleeping, 1, memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_seq_cst);
}

/* Consumer: no more writes. true: a producer has written the descriptor since arm, or is about to. Twice is as once. */
static inline bool iok_wake_disarm(struct iok_wake *wake)
{
    if (wake->armed && atomic_exchange_explicit(&wake->sleeping, 0, memory_order_acquire) == 0) {
        wake->owed = true;
    }
    wake->armed = false;
    return wake->owed;
}

/* Consumer, after disarm: makes the descriptor unreadable if it is readable. */
void iok_wake_drain(struct iok_wake *wake);

/* Makes the descriptor readable whatever the state. */
void iok_wake_write(struct iok_wake *wake);

/* Producer, after pushing. true: the consumer slept and was woken. */
static inline bool iok_wake_ring(struct iok_wake *wake)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&wake->sleeping, memory_order_relaxed) == 0 ||
        atomic_exchange_explicit(&wake->sleeping, 0, memory_order_acq_rel) == 0) {
        return false;
    }
    iok_wake_write(wake);
    return true;
}

#endif
