#include "timer.h"

#include <assert.h>

void iok_wheel_init(struct iok_wheel *wheel, uint64_t now_ns)
{
    *wheel = (struct iok_wheel){.now_tick = now_ns >> IOK_TICK_SHIFT};
    for (unsigned i = 0; i < IOK_WHEEL_LEVELS * IOK_WHEEL_SLOTS; i++) {
        iok_list_init(&wheel->slots[i]);
    }
}

/* Sorts the timer in by the highest group of 6 bits in which its tick differs from now: below that group its position
 * is reached only after the wheel has turned to its slot. */
static void place(struct iok_wheel *wheel, struct iok_timer *timer)
{
    uint64_t tick = timer->tick > wheel->now_tick ? timer->tick : wheel->now_tick + 1;
    uint64_t differ = tick ^ wheel->now_tick;
    unsigned level = (63u - (unsigned)__builtin_clzll(differ)) / 6u;
    unsigned index;

    if (level >= IOK_WHEEL_LEVELS) { /* the top level turns on and on: slots before the current one come again */
        level = IOK_WHEEL_LEVELS - 1;
        if ((tick >> (6u * level)) - (wheel->now_tick >> (6u * level)) >= IOK_WHEEL_SLOTS) {
            tick = wheel->now_tick - (UINT64_C(1) << (6u * level)); /* beyond the horizon: the last one reached */
        }
    }
    index = (unsigned)(tick >> (6u * level)) % IOK_WHEEL_SLOTS;
    timer->slot = (uint16_t)(level * IOK_WHEEL_SLOTS + index);
    iok_list_push(&wheel->slots[timer->slot], &timer->node);
    wheel->occupied[level] |= UINT64_C(1) << index;
}

static void unplace(struct iok_wheel *wheel, struct iok_timer *timer)
{
    iok_list_remove(&timer->node);
    if (iok_list_empty(&wheel->slots[timer->slot])) {
        wheel->occupied[timer->slot / IOK_WHEEL_SLOTS] &= ~(UINT64_C(1) << (timer->slot % IOK_WHEEL_SLOTS));
    }
}

void iok_timer_set(struct iok_wheel *wheel, struct iok_timer *timer, uint64_t deadline_ns)
{
    uint64_t round_up = (UINT64_C(1) << IOK_TICK_SHIFT) - 1;

    if (iok_timer_is_set(timer)) {
        unplace(wheel, timer);
    }
    timer->tick =
        deadline_ns > UINT64_MAX - round_up ? UINT64_MAX >> IOK_TICK_SHIFT : (deadline_ns + round_up) >> IOK_TICK_SHIFT;
    place(wheel, timer);
}

void iok_timer_stop(struct iok_wheel *wheel, struct iok_timer *timer)
{
    if (iok_timer_is_set(timer)) {
        unplace(wheel, timer);
    }
}

/* Distance in slots, at least 1, from now to the next occupied slot of the level; 0 if it has none. */
static unsigned next_slot(const struct iok_wheel *wheel, unsigned level)
{
    unsigned at = (unsigned)(wheel->now_tick >> (6u * level)) % IOK_WHEEL_SLOTS;
    uint64_t bits = wheel->occupied[level];
    unsigned from = (at + 1u) % IOK_WHEEL_SLOTS;
    uint64_t turned = from == 0 ? bits : (bits >> from) | (bits << (IOK_WHEEL_SLOTS - from));

    return turned == 0 ? 0 : 1u + (unsigned)__builtin_ctzll(turned);
}

/* The first tick after now at which a slot is due to fire or to be sorted again. */
static uint64_t next_tick(const struct iok_wheel *wheel)
{
    uint64_t next = UINT64_MAX;

    for (unsigned level = 0; level < IOK_WHEEL_LEVELS; level++) {
        unsigned distance = next_slot(wheel, level);
        uint64_t tick;

        if (distance == 0) {
            continue;
        }
        tick = ((wheel->now_tick >> (6u * level)) + distance) << (6u * level);
        next = tick < next ? tick : next;
    }
    return next;
}

uint64_t iok_wheel_next(const struct iok_wheel *wheel)
{
    uint64_t tick = next_tick(wheel);

    return tick == UINT64_MAX || tick > (UINT64_MAX >> IOK_TICK_SHIFT) ? UINT64_MAX : tick << IOK_TICK_SHIFT;
}

/* The wheel has come to the slots of now_tick: sorts the timers of the higher levels in again. */
static void cascade(struct iok_wheel *wheel)
{
    for (unsigned level = 1; level < IOK_WHEEL_LEVELS; level++) {
        unsigned index = (unsigned)(wheel->now_tick >> (6u * level)) % IOK_WHEEL_SLOTS;
        struct iok_list *slot = &wheel->slots[level * IOK_WHEEL_SLOTS + index];
        struct iok_list due;
        struct iok_node *node;

        if ((wheel->occupied[level] & (UINT64_C(1) << index)) == 0) {
            continue;
        }
        iok_list_init(&due);
        while ((node = iok_list_pop(slot)) != NULL) {
            iok_list_push(&due, node);
        }
        wheel->occupied[level] &= ~(UINT64_C(1) << index);
        while ((node = iok_list_pop(&due)) != NULL) {
            struct iok_timer *timer = iok_container(node, struct iok_timer, node);

            if (timer->tick <= wheel->now_tick) { /* due this very tick */
                timer->slot = (uint16_t)(wheel->now_tick % IOK_WHEEL_SLOTS);
                iok_list_push(&wheel->slots[timer->slot], node);
                wheel->occupied[0] |= UINT64_C(1) << timer->slot;
            } else {
                place(wheel, timer);
            }
        }
    }
}

struct iok_timer *iok_wheel_expire(struct iok_wheel *wheel, uint64_t now_ns)
{
    uint64_t now = now_ns >> IOK_TICK_SHIFT;

    for (;;) {
        struct iok_list *slot = &wheel->slots[wheel->now_tick % IOK_WHEEL_SLOTS];
        struct iok_node *node = iok_list_first(slot);
        uint64_t next;

        if (node != NULL) {
            struct iok_timer *timer = iok_container(node, struct iok_timer, node);

            assert(timer->tick <= wheel->now_tick);
            unplace(wheel, timer);
            return timer;
        }
        next = next_tick(wheel);
        if (next > now) {
            wheel->now_tick = now > wheel->now_tick ? now : wheel->now_tick;
            return NULL;
        }
        wheel->now_tick = next;
        cascade(wheel);
    }
}
