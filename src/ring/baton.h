/* baton.h - which thread runs the core: the kernel thread, or a waiter that leads it for a moment.
 *
 *     KERNEL --let_go--> FREE --try_take--> LED --give--> FREE --(kernel thread, after the grace time)--> KERNEL
 *
 * A waiter with a single quick call may run the loop itself, so that the call costs no hand-off. The kernel thread
 * takes the baton back when no waiter has come for the grace time, or at once when a waiter hands it over.
 * Only Linux has it (it needs a futex); elsewhere try_take fails and the kernel thread always holds the baton. */
#ifndef IOK_RING_BATON_H
#define IOK_RING_BATON_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "spsc.h"

struct iok_baton {
    alignas(IOK_CACHE_LINE) _Atomic uint32_t state; /* enum in baton.c; also the futex */
    _Atomic uint32_t wanted;                        /* waiters that ask the kernel thread to let go */
    _Atomic uint32_t leads;                         /* how often it was taken; shows that waiters keep coming */
    _Atomic uint32_t recall;                        /* the kernel thread is to take it at once */
};

void iok_baton_init(struct iok_baton *baton); /* held by the kernel thread */

/* Kernel thread, holding it: does a waiter want it? */
static inline bool iok_baton_wanted(const struct iok_baton *baton)
{
    return atomic_load_explicit(&baton->wanted, memory_order_relaxed) != 0;
}

/* Kernel thread: lets go, and sleeps until it holds the baton again. */
void iok_baton_lend(struct iok_baton *baton, uint64_t grace_ns);

/* Waiter: true when it holds the baton now. */
bool iok_baton_try_take(struct iok_baton *baton);
/* Waiter: announces or withdraws that it wants the baton of the kernel thread (which must be woken if it sleeps). */
void iok_baton_want(struct iok_baton *baton);
void iok_baton_unwant(struct iok_baton *baton);
/* Any thread that has work for the core: if nobody runs it just now, the kernel thread is to go on at once. */
void iok_baton_recall_if_free(struct iok_baton *baton);
/* Waiter: gives it back. recall: the kernel thread is to go on at once, as work is left. */
void iok_baton_give(struct iok_baton *baton, bool recall);

#endif
