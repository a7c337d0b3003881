/* timer.h - a hierarchical timing wheel: adding and removing a deadline is a few instructions, whatever their number.
 *
 *     level 0   64 slots of 1 tick       level 1   64 slots of 64 ticks ... level 3: 64 slots of 64^3 ticks
 *
 * A tick is 2^20 ns (1.05 ms): finer than a deadline needs to be, and 64^4 ticks are 4.9 hours; later deadlines wait in
 * the last slot and are sorted in again. A timer never fires early and at most one tick late, given that advance is
 * called in time. Knows no clock. */
#ifndef IOK_KERNEL_TIMER_H
#define IOK_KERNEL_TIMER_H

#include <stdint.h>

#include "../base/list.h"

#define IOK_TICK_SHIFT 20u
#define IOK_WHEEL_LEVELS 4u
#define IOK_WHEEL_SLOTS 64u

struct iok_timer {
    struct iok_node node;
    uint64_t tick; /* when to fire */
    uint16_t slot; /* level * 64 + index, while linked */
    uint16_t kind; /* for the owner: which of its timers this is */
};

struct iok_wheel {
    uint64_t now_tick;                   /* all ticks up to and with this one have fired */
    uint64_t occupied[IOK_WHEEL_LEVELS]; /* a bit per slot */
    struct iok_list slots[IOK_WHEEL_LEVELS * IOK_WHEEL_SLOTS];
};

void iok_wheel_init(struct iok_wheel *wheel, uint64_t now_ns);
/* (Re)sets the timer. A deadline in the past fires at the next advance. */
void iok_timer_set(struct iok_wheel *wheel, struct iok_timer *timer, uint64_t deadline_ns);
void iok_timer_stop(struct iok_wheel *wheel, struct iok_timer *timer);

static inline bool iok_timer_is_set(const struct iok_timer *timer)
{
    return iok_node_linked(&timer->node);
}

/* Takes one timer that is due, oldest tick first; NULL when none is, and then time has moved on to now_ns. */
struct iok_timer *iok_wheel_expire(struct iok_wheel *wheel, uint64_t now_ns);
/* A time not later than the next expiry, and later than the last advance; UINT64_MAX when no timer is set. */
uint64_t iok_wheel_next(const struct iok_wheel *wheel);

#endif
