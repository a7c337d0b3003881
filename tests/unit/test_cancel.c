/* test_cancel.c - statements that nobody waits for any more are cancelled at the server, by a second connection, and
 * nothing else ever is. PostgreSQL's protocol, against a peer that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "postgresql://me@10.0.0.1/db?sslmode=disable&connections=1"
#define MOMENT (12 * SIM_MS) /* after which a cancel goes out */

#define SIGNED_IN "R\0\0\0\10\0\0\0\0K\0\0\0\14\0\0\0\1\2\3\4\5Z\0\0\0\5I"
#define CANCEL_REQUEST "\0\0\0\20\4\322\26.\0\0\0\1\2\3\4\5"
#define FAILED(transaction) "E\0\0\0\14C57014\0\0Z\0\0\0\5" transaction /* canceling statement due to user request */
#define EMPTY                                                                                                          \
    "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\4"                                                                                  \
    "2\0\0\0\4I\0\0\0\4Z\0\0\0\5I" /* a first use, without rows */

#define ARRIVE(link, text) sim_arrive_bytes((link), text, sizeof(text) - 1)

static struct iok_link *sign_in(struct world *w)
{
    struct iok_link *link = world_connect(w);

    ARRIVE(link, SIGNED_IN);
    world_run(w);
    sim_clear(link);
    return link;
}

static bool has(const struct iok_link *link, const char *text)
{
    return memmem(link->got, link->n_got, text, strlen(text)) != NULL;
}

static struct iok_call *abandoned(struct world *w, struct iok_lease *lease)
{
    struct iok_call *call = world_submit(w, "SELECT long", -1, lease);

    world_run(w);
    if (lease != NULL && lease->conn == NULL) {
        (void)sign_in(w);
    }
    iok_cancel(call);
    world_run(w);
    return call;
}

static void expect_cancel_request(struct world *w, struct iok_link *second)
{
    assert_ptr_equal(sim_last(&w->sim), second);
    sim_connect(second);
    world_run(w);
    assert_int_equal(second->n_got, sizeof(CANCEL_REQUEST) - 1);
    assert_memory_equal(second->got, CANCEL_REQUEST, second->n_got);
}

/* Nothing new goes out from the moment on until the server has closed the second connection and has answered. */
static void test_shared(void **state)
{
    for (int answer_first = 0; answer_first < 2; answer_first++) {
        struct world *w = world_new(URL);
        struct iok_link *link = sign_in(w), *second;
        struct iok_call *call = abandoned(w, NULL), *next = world_submit(w, "SELECT next", -1, NULL);

        (void)state;
        world_run(w);
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
        assert_int_equal(w->sim.n_links, 1);
        world_advance(w, MOMENT);
        assert_int_equal(w->sim.n_links, 2);
        second = sim_last(&w->sim);
        expect_cancel_request(w, second);
        assert_true(has(link, "SELECT long"));
        for (int i = 0; i < 2; i++) {
            assert_false(has(link, "SELECT next"));
            if (i == answer_first) {
                sim_fail(second, 0);
            } else {
                ARRIVE(link, FAILED("I"));
            }
            world_run(w);
        }
        assert_true(has(link, "SELECT next"));
        ARRIVE(link, EMPTY);
        world_expect(w, next, IOK_DONE, 0, NULL);
        world_advance(w, 10 * SIM_S);
        assert_int_equal(w->sim.n_links, 2);
        assert_false(link->dead);
        world_free(w);
    }
}

/* The answer comes before the moment is over, or before the second connection is there: no cancel goes out. */
static void test_answered_meanwhile(void **state)
{
    for (int connecting = 0; connecting < 2; connecting++) {
        struct world *w = world_new(URL);
        struct iok_link *link = sign_in(w);
        struct iok_call *call = abandoned(w, NULL), *next = world_submit(w, "SELECT next", -1, NULL);

        (void)state;
        world_advance(w, connecting ? MOMENT : SIM_MS);
        assert_int_equal(w->sim.n_links, 1 + connecting);
        assert_false(has(link, "SELECT next"));
        ARRIVE(link, EMPTY);
        world_run(w);
        assert_true(has(link, "SELECT next"));
        ARRIVE(link, EMPTY);
        world_expect(w, next, IOK_DONE, 0, NULL);
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
        world_advance(w, 10 * SIM_S);
        assert_int_equal(w->sim.n_links, 1 + connecting);
        assert_true(!connecting || sim_last(&w->sim)->closed_by_us);
        assert_false(link->dead);
        world_free(w);
    }
}

/* Whoever still waits, before or behind, is not to be hit. */
static void test_others_wait(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = sign_in(w);
    struct iok_call *first = world_submit(w, "SELECT first", -1, NULL), *call = abandoned(w, NULL);

    (void)state;
    world_advance(w, 10 * SIM_S);
    assert_int_equal(w->sim.n_links, 1);
    ARRIVE(link, EMPTY);
    world_expect(w, first, IOK_DONE, 0, NULL);
    world_advance(w, MOMENT); /* now it is alone */
    assert_int_equal(w->sim.n_links, 2);
    sim_connect(sim_last(&w->sim));
    ARRIVE(link, FAILED("I"));
    sim_fail(sim_last(&w->sim), 0);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_false(link->dead);
    world_free(w);
}

static void test_timed_out(void **state)
{
    struct world *w = world_new(URL "&timeout=1s");
    struct iok_link *link = sign_in(w);
    struct iok_call *call = world_submit(w, "SELECT long", 0, NULL);

    (void)state;
    world_run(w);
    world_advance(w, 2 * SIM_S);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    expect_cancel_request(w, &w->sim.links[1]);
    ARRIVE(link, FAILED("I"));
    sim_fail(&w->sim.links[1], 0);
    world_run(w);
    assert_false(link->dead);
    world_free(w);
}

/* A lease that is given back in the midst of a statement: cancelled, rolled back, made clean, and used again. */
static void test_lease_given_back(void **state)
{
    struct world *w = world_new(URL "&leases=1");
    struct iok_lease *lease, *other;
    struct iok_call *begin, *call, *next;
    struct iok_link *own, *second;

    (void)state;
    (void)sign_in(w);
    lease = iok_lease_new(w->port, w->service, NULL);
    begin = world_submit(w, "BEGIN", -1, lease);
    world_run(w);
    own = sign_in(w);
    ARRIVE(own, "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\4"
                "2\0\0\0\4I\0\0\0\4Z\0\0\0\5T");
    world_expect(w, begin, IOK_DONE, 0, NULL);
    call = world_submit(w, "SELECT long", -1, lease);
    world_run(w);
    sim_clear(own);
    iok_lease_free(lease);
    other = iok_lease_new(w->port, w->service, NULL);
    next = world_submit(w, "SELECT next", -1, other);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_false(own->dead);
    world_advance(w, MOMENT);
    second = sim_last(&w->sim);
    expect_cancel_request(w, second);
    ARRIVE(own, FAILED("E"));
    world_run(w);
    assert_int_equal(own->n_got, 0);
    sim_fail(second, 0);
    world_run(w);
    assert_true(has(own, "ROLLBACK"));
    assert_false(has(own, "SELECT next"));
    ARRIVE(own, "C\0\0\0\15ROLLBACK\0Z\0\0\0\5IC\0\0\0\12RESET\0Z\0\0\0\5I");
    world_run(w);
    assert_true(has(own, "SELECT next"));
    ARRIVE(own, EMPTY);
    world_expect(w, next, IOK_DONE, 0, NULL);
    assert_int_equal(w->sim.n_links, 3);
    iok_lease_free(other);
    world_run(w);
    world_free(w);
}

/* A lease that is kept: its next statements wait until the cancel is over, in their order. */
static void test_lease_kept(void **state)
{
    struct world *w = world_new(URL);
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
    struct iok_call *call, *a, *b, *late;
    struct iok_link *own;

    (void)state;
    (void)sign_in(w);
    call = abandoned(w, lease);
    own = sim_last(&w->sim);
    a = world_submit(w, "SELECT a", -1, lease);
    b = world_submit(w, "SELECT b", -1, lease);
    late = world_submit(w, "SELECT late", 5, lease);
    world_advance(w, MOMENT);
    world_expect(w, late, IOK_NEVER_SENT, IOK_ETIMEOUT, NULL);
    expect_cancel_request(w, &w->sim.links[2]);
    ARRIVE(own, FAILED("I"));
    world_run(w);
    assert_false(has(own, "SELECT a"));
    sim_fail(&w->sim.links[2], 0);
    world_run(w);
    assert_true(has(own, "SELECT a") && has(own, "SELECT b") && !has(own, "SELECT late"));
    ARRIVE(own, EMPTY);
    world_expect(w, a, IOK_DONE, 0, NULL);
    ARRIVE(own, EMPTY);
    world_expect(w, b, IOK_DONE, 0, NULL);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    iok_lease_free(lease);
    world_run(w);
    assert_false(own->dead);
    world_free(w);
}

/* A server that had not begun with the statement took no notice: it is told again. */
static void test_again(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = sign_in(w);
    struct iok_call *call = abandoned(w, NULL);

    (void)state;
    world_advance(w, MOMENT);
    expect_cancel_request(w, &w->sim.links[1]);
    sim_fail(&w->sim.links[1], 0);
    world_run(w);
    world_advance(w, 200 * SIM_MS);
    assert_int_equal(w->sim.n_links, 2);
    world_advance(w, 100 * SIM_MS);
    sim_fail(&w->sim.links[2], IOK_EREFUSED); /* nor does it hurt when that fails */
    world_run(w);
    world_advance(w, 300 * SIM_MS);
    expect_cancel_request(w, &w->sim.links[3]);
    ARRIVE(link, FAILED("I"));
    sim_fail(&w->sim.links[3], 0);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_false(link->dead);
    world_free(w);
}

/* When the bound is over, or nobody can tell any more what the cancel may hit, the connection ends. */
static void test_fails(void **state)
{
    enum { NO_CONNECTION, SILENCE, NO_NOTICE, BROKEN, CANNOT_OPEN, WAYS };

    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct world *w = world_new(URL "&cancel_timeout=2s");
        struct iok_link *link = sign_in(w), *second;
        struct iok_call *call = abandoned(w, NULL), *next = world_submit(w, "SELECT next", -1, NULL);

        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
        w->sim.cannot_open = way == CANNOT_OPEN;
        world_advance(w, MOMENT);
        if (way != CANNOT_OPEN) {
            second = &w->sim.links[1];
            if (way != NO_CONNECTION) {
                expect_cancel_request(w, second);
            }
            if (way == NO_NOTICE) {
                sim_fail(second, 0);
            }
            if (way == BROKEN) {
                ARRIVE(link, FAILED("I"));
                sim_fail(second, IOK_ERESET);
            }
            world_run(w);
        }
        assert_true(link->dead == (way == BROKEN));
        world_advance(w, way == BROKEN ? SIM_MS : 1900 * SIM_MS);
        assert_true(link->dead == (way == BROKEN));
        assert_false(has(link, "SELECT next"));
        w->sim.cannot_open = false;
        world_advance(w, 200 * SIM_MS);
        assert_true(link->closed_by_us);
        link = sign_in(w); /* on a new one, which is the only one */
        assert_int_equal(sim_live_links(&w->sim), 1);
        assert_true(has(link, "SELECT next") || w->sim.links[0].dead);
        ARRIVE(link, EMPTY);
        world_expect(w, next, IOK_DONE, 0, NULL);
        world_free(w);
    }
}

/* cancel_timeout=0, and a server that gave no key: as without all this. */
static void test_off(void **state)
{
    (void)state;
    for (int no_key = 0; no_key < 2; no_key++) {
        struct world *w = world_new(no_key ? URL : URL "&cancel_timeout=0");
        struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
        struct iok_link *link = world_connect(w), *own;
        struct iok_call *call, *next;

        if (no_key) {
            ARRIVE(link, "R\0\0\0\10\0\0\0\0Z\0\0\0\5I");
        } else {
            ARRIVE(link, SIGNED_IN);
        }
        world_run(w);
        call = abandoned(w, NULL);
        next = world_submit(w, "SELECT next", -1, NULL);
        world_advance(w, MOMENT);
        assert_true(has(link, "SELECT next"));
        ARRIVE(link, EMPTY EMPTY);
        world_expect(w, next, IOK_DONE, 0, NULL);
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
        call = world_submit(w, "SELECT long", -1, lease);
        world_run(w);
        own = world_connect(w);
        if (no_key) {
            ARRIVE(own, "R\0\0\0\10\0\0\0\0Z\0\0\0\5I");
        } else {
            ARRIVE(own, SIGNED_IN);
        }
        world_run(w);
        iok_lease_free(lease);
        world_run(w);
        assert_true(own->closed_by_us);
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
        world_free(w);
    }
}

/* The service is closed, or the connection is lost, at each step: nothing is left. */
static void test_ends_meanwhile(void **state)
{
    (void)state;
    for (int step = 0; step < 8; step++) {
        struct world *w = world_new(URL);
        struct iok_link *link = sign_in(w);
        struct iok_call *call = abandoned(w, NULL);

        if (step / 2 > 0) {
            world_advance(w, MOMENT);
        }
        if (step / 2 > 1) {
            expect_cancel_request(w, &w->sim.links[1]);
        }
        if (step / 2 > 2) {
            sim_fail(&w->sim.links[1], 0);
            world_run(w);
        }
        if (step % 2 == 0) {
            sim_fail(link, IOK_ERESET);
            world_run(w);
            assert_true(step / 2 == 0 || w->sim.links[1].dead);
        }
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
        world_free(w);
    }
}

/* Several that stand behind each other: one cancel ends one of them, and each has the whole time. */
static void test_several(void **state)
{
    enum { N = 5 };
    struct world *w = world_new(URL "&cancel_timeout=1s");
    struct iok_link *link = sign_in(w);
    struct iok_call *calls[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        calls[i] = world_submit(w, "SELECT long", -1, NULL);
    }
    world_run(w);
    for (int i = 0; i < N; i++) {
        iok_cancel(calls[i]);
    }
    world_run(w);
    for (int i = 0; i < N; i++) {
        world_advance(w, MOMENT);
        assert_int_equal(w->sim.n_links, 2 + i);
        expect_cancel_request(w, sim_last(&w->sim));
        world_advance(w, 500 * SIM_MS);
        ARRIVE(link, FAILED("I"));
        world_run(w);
        sim_fail(sim_last(&w->sim), 0);
        world_run(w);
        world_expect(w, calls[i], IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    }
    assert_false(link->dead);
    assert_int_equal(sim_live_links(&w->sim), 1);
    world_free(w);
}

/* A statement may take longer than a ping would wait. */
static void test_long_statement(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = sign_in(w);
    struct iok_call *call = world_submit(w, "SELECT long", -1, NULL);

    (void)state;
    world_run(w);
    world_advance(w, 600 * SIM_S);
    assert_false(link->dead);
    ARRIVE(link, EMPTY);
    world_expect(w, call, IOK_DONE, 0, NULL);
    sim_clear(link);
    world_advance(w, 60 * SIM_S);
    assert_true(link->closed_by_us); /* an idle one is asked, and this one is dead */
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_answered_meanwhile),
        cmocka_unit_test(test_others_wait),
        cmocka_unit_test(test_timed_out),
        cmocka_unit_test(test_lease_given_back),
        cmocka_unit_test(test_lease_kept),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_fails),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_ends_meanwhile),
        cmocka_unit_test(test_long_statement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
