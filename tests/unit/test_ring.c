/* test_ring.c - what two threads share: rings, wake-ups, the inbox of ports, notes and the baton. Meant to be run with
 * ThreadSanitizer too. Nothing here waits for a time: a wake-up that gets lost hangs the test until its time limit. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <iokernel.h>

#include "../../src/base/count.h"
#include "../../src/base/mem.h"
#include "../../src/ring/baton.h"
#include "../../src/ring/note.h"
#include "../../src/ring/port.h"

#define HAND_OFFS 100000u

static void test_ring_alone(void **state)
{
    struct iok_ring ring;
    uintptr_t value;

    (void)state;
    assert_int_equal(iok_ring_init(&ring, 5), 0); /* 8 slots */
    for (uintptr_t turn = 0; turn < 100; turn++) {
        assert_true(iok_ring_empty(&ring));
        assert_false(iok_ring_pop(&ring, &value));
        for (uintptr_t i = 0; i < 8; i++) {
            assert_int_equal(iok_ring_room(&ring), 8 - i);
            assert_true(iok_ring_push(&ring, turn + i));
        }
        assert_false(iok_ring_push(&ring, 1));
        assert_int_equal(iok_ring_used(&ring), 8);
        for (uintptr_t i = 0; i < 8; i++) {
            assert_true(iok_ring_pop(&ring, &value));
            assert_int_equal(value, turn + i);
        }
    }
    iok_ring_deinit(&ring);
    iok_mem_fail_at(1);
    assert_int_equal(iok_ring_init(&ring, 5), IOK_ENOMEM);
    iok_mem_fail_at(0);
}

/* ---- two threads, one ring, one wake-up ---- */

struct pipe {
    struct iok_ring ring;
    struct iok_wake wake;
    uint64_t woken; /* the producer's count */
    unsigned burst; /* pushes between two looks at the consumer */
};

static void *produce(void *arg)
{
    struct pipe *pipe = arg;

    for (uintptr_t i = 1; i <= HAND_OFFS; i++) {
        while (!iok_ring_push(&pipe->ring, i)) {
            pipe->woken += iok_wake_ring(&pipe->wake);
            (void)sched_yield();
        }
        if (i % pipe->burst == 0) {
            pipe->woken += iok_wake_ring(&pipe->wake);
        }
    }
    pipe->woken += iok_wake_ring(&pipe->wake);
    return NULL;
}

/* As the kernel and waiting threads do it: arm, look again, block. */
static void consume(struct pipe *pipe)
{
    uintptr_t next = 1, value;

    while (next <= HAND_OFFS) {
        if (iok_ring_pop(&pipe->ring, &value)) {
            assert_int_equal(value, next);
            next++;
            continue;
        }
        iok_wake_arm(&pipe->wake);
        if (iok_ring_empty(&pipe->ring)) {
            struct pollfd fd = {.fd = pipe->wake.fd_read, .events = POLLIN};

            (void)poll(&fd, 1, -1); /* for ever, if a wake-up is lost */
        }
        if (iok_wake_disarm(&pipe->wake)) {
            iok_wake_drain(&pipe->wake);
        }
    }
}

static void hand_over(uint32_t slots, unsigned burst)
{
    struct pipe pipe = {.burst = burst};
    pthread_t thread;

    assert_int_equal(iok_ring_init(&pipe.ring, slots), 0);
    assert_int_equal(iok_wake_init(&pipe.wake), 0);
    assert_int_equal(pthread_create(&thread, NULL, produce, &pipe), 0);
    consume(&pipe);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(pipe.woken <= HAND_OFFS);
    iok_wake_deinit(&pipe.wake);
    iok_ring_deinit(&pipe.ring);
}

static void test_no_lost_wake(void **state)
{
    (void)state;
    hand_over(1024, 1);
    hand_over(2, 1); /* always full or empty */
    hand_over(1024, 32);
}

static void test_wake_costs_nothing_awake(void **state)
{
    struct iok_wake wake;
    struct pollfd fd = {.events = POLLIN};

    (void)state;
    assert_int_equal(iok_wake_init(&wake), 0);
    fd.fd = wake.fd_read;
    assert_false(iok_wake_ring(&wake)); /* nobody sleeps */
    assert_int_equal(poll(&fd, 1, 0), 0);
    iok_wake_arm(&wake);
    assert_true(iok_wake_ring(&wake));
    assert_false(iok_wake_ring(&wake)); /* once */
    assert_int_equal(poll(&fd, 1, 0), 1);
    assert_true(iok_wake_disarm(&wake));
    iok_wake_drain(&wake);
    assert_int_equal(poll(&fd, 1, 0), 0);
    iok_wake_arm(&wake);
    assert_false(iok_wake_disarm(&wake));
    assert_false(iok_wake_disarm(&wake)); /* that it does not sleep any more is its own doing */

    iok_wake_arm(&wake);
    assert_true(iok_wake_ring(&wake));
    iok_wake_arm(&wake);
    assert_true(iok_wake_disarm(&wake)); /* it was rung in between, and knows */
    iok_wake_drain(&wake);
    assert_false(iok_wake_disarm(&wake));
    iok_wake_deinit(&wake);
}

/* ---- ping and pong: each side sleeps after each hand-off ---- */

static void *answer(void *arg)
{
    struct pipe *pipes = arg;
    uintptr_t value = 0;

    while (value < HAND_OFFS / 10) {
        struct pollfd fd = {.fd = pipes[0].wake.fd_read, .events = POLLIN};

        iok_wake_arm(&pipes[0].wake);
        if (iok_ring_empty(&pipes[0].ring)) {
            (void)poll(&fd, 1, -1);
        }
        if (iok_wake_disarm(&pipes[0].wake)) {
            iok_wake_drain(&pipes[0].wake);
        }
        while (iok_ring_pop(&pipes[0].ring, &value)) {
            (void)iok_ring_push(&pipes[1].ring, value);
            (void)iok_wake_ring(&pipes[1].wake);
        }
    }
    return NULL;
}

static void test_ping_pong(void **state)
{
    struct pipe pipes[2] = {{.burst = 1}, {.burst = 1}};
    pthread_t thread;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(iok_ring_init(&pipes[i].ring, 4), 0);
        assert_int_equal(iok_wake_init(&pipes[i].wake), 0);
    }
    assert_int_equal(pthread_create(&thread, NULL, answer, pipes), 0);
    for (uintptr_t i = 1; i <= HAND_OFFS / 10; i++) {
        struct pollfd fd = {.fd = pipes[1].wake.fd_read, .events = POLLIN};
        uintptr_t value;

        assert_true(iok_ring_push(&pipes[0].ring, i));
        (void)iok_wake_ring(&pipes[0].wake);
        while (!iok_ring_pop(&pipes[1].ring, &value)) {
            iok_wake_arm(&pipes[1].wake);
            if (iok_ring_empty(&pipes[1].ring)) {
                (void)poll(&fd, 1, -1);
            }
            if (iok_wake_disarm(&pipes[1].wake)) {
                iok_wake_drain(&pipes[1].wake);
            }
        }
        assert_int_equal(value, i);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        iok_wake_deinit(&pipes[i].wake);
        iok_ring_deinit(&pipes[i].ring);
    }
}

/* ---- the inbox ---- */

#define PORTS_EACH 200u

struct arrivals {
    struct iok_port_inbox *inbox;
    struct iok_port_link *links;
};

static void *announce(void *arg)
{
    struct arrivals *mine = arg;

    for (unsigned i = 0; i < PORTS_EACH; i++) {
        mine->links[i].unkicked = i + 1; /* something that the other side reads */
        iok_port_inbox_push(mine->inbox, &mine->links[i]);
    }
    return NULL;
}

static void test_inbox(void **state)
{
    struct iok_port_inbox inbox = {NULL};
    struct iok_port_link *links = iok_calloc_line(3 * PORTS_EACH * sizeof(*links));
    struct arrivals arrivals[3];
    pthread_t threads[3];
    unsigned met = 0;

    (void)state;
    assert_non_null(links);
    assert_true(iok_port_inbox_empty(&inbox));
    for (unsigned i = 0; i < 3; i++) {
        arrivals[i] = (struct arrivals){&inbox, links + i * PORTS_EACH};
        assert_int_equal(pthread_create(&threads[i], NULL, announce, &arrivals[i]), 0);
    }
    while (met < 3 * PORTS_EACH) {
        struct iok_port_link *link = iok_port_inbox_take(&inbox);

        while (link != NULL) {
            struct iok_port_link *next = iok_port_link_next(link);

            assert_int_equal(link->unkicked, (unsigned)(link - links) % PORTS_EACH + 1);
            link->unkicked = 0; /* met once only */
            met++;
            link = next;
        }
        (void)sched_yield();
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(iok_port_inbox_empty(&inbox));
    iok_free(links);
}

static void test_port_link(void **state)
{
    struct iok_port_link *link = iok_calloc_line(sizeof(*link));
    struct iok_wake kernel;
    unsigned long n = 0;
    int rc;

    (void)state;
    assert_non_null(link);
    assert_int_equal(iok_wake_init(&kernel), 0);
    do {
        iok_mem_fail_at(++n);
        rc = iok_port_link_init(link, 10, &kernel);
        iok_mem_fail_at(0);
    } while (rc == IOK_ENOMEM);
    assert_int_equal(rc, 0);
    assert_int_equal(n, 3); /* two rings */
    assert_true(iok_ring_room(&link->sq) >= 10 * IOK_PORT_VERBS);
    assert_false(iok_port_is_detached(link));
    iok_port_set_detached(link);
    assert_true(iok_port_is_detached(link));
    assert_ptr_equal(iok_entry_object(iok_entry(link, IOK_SQ_DETACH)), link);
    assert_int_equal(iok_entry_verb(iok_entry(link, IOK_SQ_DETACH)), IOK_SQ_DETACH);
    iok_port_link_deinit(link);
    iok_wake_deinit(&kernel);
    iok_free(link);
}

/* ---- notes: read whole ---- */

struct board {
    struct iok_note note;
    struct iok_count done;
};

static void *write_notes(void *arg)
{
    struct board *board = arg;
    char text[300];

    for (unsigned i = 0; i < 5000; i++) {
        memset(text, 'a' + (int)(i % 26), sizeof(text));
        text[i % 299] = '\0';
        iok_note_write(&board->note, text);
    }
    (void)iok_count_exchange(&board->done, 1);
    return NULL;
}

static void test_note(void **state)
{
    struct board *board = calloc(1, sizeof(*board));
    char text[IOK_NOTE_WORDS * 8];
    pthread_t thread;

    (void)state;
    assert_non_null(board);
    assert_int_equal(pthread_create(&thread, NULL, write_notes, board), 0);
    do {
        iok_note_read(&board->note, text);
        assert_true(strlen(text) < sizeof(text));
        assert_int_equal(strspn(text, (char[]){text[0], '\0'}), strlen(text)); /* of one writing */
    } while (iok_count_get(&board->done) == 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    free(board);
}

/* ---- the baton ---- */

#define LEADS_EACH 2000u

struct core {
    struct iok_baton baton;
    struct iok_wake wake;
    uint64_t turns; /* not atomic: whoever holds the baton may touch it, and nobody else */
    struct iok_count ended;
};

static void *wait_and_lead(void *arg)
{
    struct core *core = arg;

    for (unsigned i = 0; i < LEADS_EACH;) {
        iok_baton_want(&core->baton);
        (void)iok_wake_ring(&core->wake); /* the kernel thread may sleep */
        while (!iok_baton_try_take(&core->baton)) {
            iok_baton_recall_if_free(&core->baton);
            (void)sched_yield();
        }
        iok_baton_unwant(&core->baton);
        core->turns++;
        i++;
        iok_baton_give(&core->baton, i % 3 == 0);
    }
    iok_count_add(&core->ended, 1);
    (void)iok_wake_ring(&core->wake);
    iok_baton_recall_if_free(&core->baton);
    return NULL;
}

/* The kernel thread and two waiters pass the baton: one holds it at any time, and the kernel thread gets it back. */
static void test_baton(void **state)
{
    struct core *core = iok_calloc_line(sizeof(*core));
    pthread_t threads[2];
    uint64_t lent = 0;

    (void)state;
    assert_non_null(core);
    iok_baton_init(&core->baton);
    assert_false(iok_baton_try_take(&core->baton)); /* the kernel thread has it */
    assert_int_equal(iok_wake_init(&core->wake), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, wait_and_lead, core), 0);
    }
    while (iok_count_get(&core->ended) < 2) {
        core->turns++;
        lent++;
        if (iok_baton_wanted(&core->baton)) {
            iok_baton_lend(&core->baton, 300000);
            continue;
        }
        iok_wake_arm(&core->wake);
        if (!iok_baton_wanted(&core->baton) && iok_count_get(&core->ended) < 2) {
            struct pollfd fd = {.fd = core->wake.fd_read, .events = POLLIN};

            (void)poll(&fd, 1, -1);
        }
        if (iok_wake_disarm(&core->wake)) {
            iok_wake_drain(&core->wake);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(core->turns, 2 * LEADS_EACH + lent); /* no turn was lost */
    assert_false(iok_baton_try_take(&core->baton));
    iok_wake_deinit(&core->wake);
    iok_free(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_alone),
        cmocka_unit_test(test_no_lost_wake),
        cmocka_unit_test(test_wake_costs_nothing_awake),
        cmocka_unit_test(test_ping_pong),
        cmocka_unit_test(test_inbox),
        cmocka_unit_test(test_port_link),
        cmocka_unit_test(test_note),
        cmocka_unit_test(test_baton),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
