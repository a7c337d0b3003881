/* test_schedules.c - random schedules of what threads share: rings, one wake-up for several producers, the inbox of
 * ports, the baton. Meant for ThreadSanitizer, which sees the races; this test sees what is lost, doubled, out of order
 * or not woken for. A schedule is made by a seed: how many producers, how large the rings and bursts, and before which
 * step each thread gives way. The system's own scheduling comes on top, so a seed does not repeat a failure surely.
 *
 * A few schedules are run, or as many as there is time for: IOK_SCHEDULE_SECONDS. IOK_SEED names the first.
 *
 * A lost wake-up would be slept through for ever. So the consumer sleeps for a second at most, and counts how often
 * it found its rings filled when nobody had woken it. A producer may be halted between its push and its ring, but
 * not MISSED_MAX seconds in a row. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../src/base/count.h"
#include "../../src/base/mem.h"
#include "../../src/ring/baton.h"
#include "../../src/ring/port.h"

#define SCHEDULES 20u
#define PRODUCERS_MAX 3u
#define PUSHES 2000u
#define MISSED_MAX 30u

static uint64_t next(uint64_t *random)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return *random >> 33;
}

/* ---- several producers, one consumer: the core's side of its ports ---- */

struct producer {
    struct iok_port_link link; /* first: its sq is ours, its cq the answers */
    struct iok_port_inbox *inbox;
    pthread_t thread;
    uint64_t random;
    uint32_t burst;
    uintptr_t answered;
    unsigned missed;
};

/* Sometimes nothing, sometimes a moment, sometimes somebody else's turn. */
static void give_way(uint64_t *random)
{
    switch (next(random) % 8) {
    case 0:
        (void)sched_yield();
        break;
    case 1:
        for (volatile unsigned i = (unsigned)(next(random) % 200); i > 0; i--) {
        }
        break;
    default:
        break;
    }
}

/* After a sleep: true if it lasted although there was something to take, too often. */
static bool slept_through(struct iok_wake *wake, bool filled, unsigned *missed, uint64_t *random)
{
    struct pollfd fd = {.fd = wake->fd_read, .events = POLLIN};

    give_way(random);
    if (!filled && poll(&fd, 1, 1000) != 0) {
        *missed = 0;
    } else if (!filled) {
        ++*missed; /* if nothing was to come, that is right: the caller looks */
    }
    if (iok_wake_disarm(wake)) {
        iok_wake_drain(wake);
    }
    return *missed > MISSED_MAX;
}

static void take_answers(struct producer *me)
{
    uintptr_t value;

    while (iok_ring_pop(&me->link.cq, &value)) {
        assert_int_equal(value, me->answered + 1);
        me->answered++;
    }
}

static void *produce(void *arg)
{
    struct producer *me = arg;

    iok_port_inbox_push(me->inbox, &me->link);
    (void)iok_wake_ring(me->link.kernel_wake);
    for (uintptr_t i = 1; i <= PUSHES; i++) {
        while (!iok_ring_push(&me->link.sq, i)) {
            (void)iok_wake_ring(me->link.kernel_wake);
            take_answers(me);
            (void)sched_yield();
        }
        give_way(&me->random);
        if (next(&me->random) % me->burst == 0) {
            (void)iok_wake_ring(me->link.kernel_wake);
        }
        if (next(&me->random) % 4 == 0) {
            take_answers(me);
        }
    }
    (void)iok_wake_ring(me->link.kernel_wake);
    while (me->answered < PUSHES) {
        take_answers(me);
        iok_wake_arm(&me->link.wake);
        give_way(&me->random);
        if (me->answered < PUSHES && iok_ring_empty(&me->link.cq)) {
            assert_false(slept_through(&me->link.wake, false, &me->missed, &me->random));
        } else if (iok_wake_disarm(&me->link.wake)) {
            iok_wake_drain(&me->link.wake);
        }
    }
    return NULL;
}

struct core {
    struct iok_wake wake;
    struct iok_port_inbox inbox;
    struct producer *producers;
    struct producer *met[PRODUCERS_MAX];
    uintptr_t taken[PRODUCERS_MAX];
    unsigned n, n_met, missed;
    uint64_t random;
};

static void meet(struct core *core)
{
    struct iok_port_link *link = iok_port_inbox_take(&core->inbox);

    for (; link != NULL; link = iok_port_link_next(link)) {
        assert_true(core->n_met < core->n); /* each once */
        core->met[core->n_met++] = (struct producer *)(void *)link;
    }
}

static bool work_left(struct core *core)
{
    bool left = !iok_port_inbox_empty(&core->inbox);

    for (unsigned i = 0; i < core->n_met; i++) {
        left |= !iok_ring_empty(&core->met[i]->link.sq);
    }
    return left;
}

/* A turn: some of what each producer has pushed, in order; answered in order. */
static unsigned turn(struct core *core)
{
    unsigned done = 0;

    meet(core);
    for (unsigned i = 0; i < core->n_met; i++) {
        uint64_t batch = 1 + next(&core->random) % 64;
        uintptr_t value;

        while (batch-- > 0 && iok_ring_room(&core->met[i]->link.cq) > 0 &&
               iok_ring_pop(&core->met[i]->link.sq, &value)) {
            assert_int_equal(value, core->taken[i] + 1);
            core->taken[i]++;
            assert_true(iok_ring_push(&core->met[i]->link.cq, value));
        }
        (void)iok_wake_ring(&core->met[i]->link.wake);
        done += core->taken[i] == PUSHES;
        give_way(&core->random);
    }
    return done;
}

static void run_ports(uint64_t seed)
{
    struct core core = {.random = seed};
    uint32_t slots;

    core.n = 1 + (unsigned)(next(&core.random) % PRODUCERS_MAX);
    slots = 1u << next(&core.random) % 8;
    core.producers = iok_calloc_line(core.n * sizeof(*core.producers));
    assert_non_null(core.producers);
    assert_int_equal(iok_wake_init(&core.wake), 0);
    for (unsigned i = 0; i < core.n; i++) {
        struct producer *producer = &core.producers[i];

        assert_int_equal(iok_port_link_init(&producer->link, slots, &core.wake), 0);
        producer->inbox = &core.inbox;
        producer->random = seed + 1 + i;
        producer->burst = 1 + (uint32_t)(next(&core.random) % 40);
        assert_int_equal(pthread_create(&producer->thread, NULL, produce, producer), 0);
    }
    while (turn(&core) < core.n) {
        iok_wake_arm(&core.wake);
        assert_false(slept_through(&core.wake, work_left(&core), &core.missed, &core.random));
    }
    for (unsigned i = 0; i < core.n; i++) {
        assert_int_equal(pthread_join(core.producers[i].thread, NULL), 0);
        assert_int_equal(core.producers[i].answered, PUSHES);
        iok_port_link_deinit(&core.producers[i].link);
    }
    assert_true(iok_port_inbox_empty(&core.inbox));
    iok_wake_deinit(&core.wake);
    iok_free(core.producers);
}

/* ---- the baton ---- */

struct stage {
    struct iok_baton baton;
    struct iok_wake wake;
    uint64_t turns; /* not atomic: only its holder may touch it */
    struct iok_count ended;
};

struct waiter {
    struct stage *stage;
    pthread_t thread;
    uint64_t random;
};

static void *lead(void *arg)
{
    struct waiter *me = arg;
    struct stage *stage = me->stage;
    uint64_t random = me->random;

    for (unsigned i = 0; i < PUSHES / 4; i++) {
        bool patient = next(&random) % 4 != 0;

        iok_baton_want(&stage->baton);
        (void)iok_wake_ring(&stage->wake);
        while (!iok_baton_try_take(&stage->baton)) {
            give_way(&random);
            if (patient) {
                iok_baton_recall_if_free(&stage->baton);
            }
            (void)sched_yield();
        }
        iok_baton_unwant(&stage->baton);
        stage->turns++;
        give_way(&random);
        iok_baton_give(&stage->baton, next(&random) % 3 == 0);
    }
    iok_count_add(&stage->ended, 1);
    (void)iok_wake_ring(&stage->wake);
    iok_baton_recall_if_free(&stage->baton);
    return NULL;
}

static void run_baton(uint64_t seed)
{
    struct stage *stage = iok_calloc_line(sizeof(*stage));
    uint64_t random = seed, own = 0;
    unsigned n = 1 + (unsigned)(next(&random) % PRODUCERS_MAX), missed = 0;
    struct waiter waiters[PRODUCERS_MAX];

    assert_non_null(stage);
    iok_baton_init(&stage->baton);
    assert_int_equal(iok_wake_init(&stage->wake), 0);
    for (unsigned i = 0; i < n; i++) {
        waiters[i] = (struct waiter){.stage = stage, .random = seed + 1 + i};
        assert_int_equal(pthread_create(&waiters[i].thread, NULL, lead, &waiters[i]), 0);
    }
    while (iok_count_get(&stage->ended) < n) {
        stage->turns++;
        own++;
        give_way(&random);
        if (iok_baton_wanted(&stage->baton)) {
            iok_baton_lend(&stage->baton, next(&random) % 500000);
            continue;
        }
        iok_wake_arm(&stage->wake);
        assert_false(slept_through(&stage->wake, iok_baton_wanted(&stage->baton) || iok_count_get(&stage->ended) == n,
                                   &missed, &random));
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
    }
    assert_int_equal(stage->turns, n * (PUSHES / 4) + own);
    assert_false(iok_baton_try_take(&stage->baton)); /* the kernel thread has it */
    iok_wake_deinit(&stage->wake);
    iok_free(stage);
}

/* ---- as many as there is time for ---- */

static void run_all(void (*run)(uint64_t seed))
{
    const char *seconds = getenv("IOK_SCHEDULE_SECONDS"), *first = getenv("IOK_SEED");
    uint64_t seed = first != NULL ? strtoull(first, NULL, 10) : (uint64_t)time(NULL) << 20;
    time_t end = seconds != NULL ? time(NULL) + strtol(seconds, NULL, 10) / 2 : 0;
    unsigned n = 0;

    printf("IOK_SEED=%llu\n", (unsigned long long)seed);
    do {
        run(seed + 16 * n);
        n++;
    } while (seconds != NULL ? time(NULL) < end : n < SCHEDULES);
    printf("%u schedules\n", n);
}

static void test_ports(void **state)
{
    (void)state;
    run_all(run_ports);
}

static void test_batons(void **state)
{
    (void)state;
    run_all(run_baton);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_batons),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
