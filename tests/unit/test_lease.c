/* test_lease.c - connections that a call sequence holds alone: bound, given back, lost. As test_kernel.c, against a
 * peer that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "line://10.0.0.1:7000"
#define REDIS "redis://10.0.0.1:7000?protocol=2"
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct iok_lease *new_lease(struct world *w)
{
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);

    assert_non_null(lease);
    return lease;
}

static void test_bind_and_release(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *shared = world_connect(w), *own;
    struct iok_lease *lease = new_lease(w), *second;
    struct iok_call *a = world_submit(w, "a", 0, lease), *b = world_submit(w, "b", 0, lease), *c;

    (void)state;
    world_run(w);
    assert_int_equal(w->sim.n_links, 2); /* a connection of its own */
    own = world_connect(w);
    assert_string_equal(shared->got, "");
    assert_string_equal(own->got, "a\nb\n");
    assert_int_equal(iok_count_get(&w->service->leased_conns), 1);
    sim_arrive(own, "A\nB\n");
    world_expect(w, a, IOK_DONE, 0, "A");
    world_expect(w, b, IOK_DONE, 0, "B");
    iok_lease_free(lease);
    world_run(w);
    assert_int_equal(iok_count_get(&w->service->leased_conns), 0);
    second = new_lease(w);
    c = world_submit(w, "c", 0, second); /* the next lease finds it ready */
    world_run(w);
    assert_int_equal(w->sim.n_links, 2);
    assert_string_equal(own->got, "a\nb\nc\n");
    sim_arrive(own, "C\n");
    world_expect(w, c, IOK_DONE, 0, "C");
    iok_lease_free(second);
    world_run(w);
    world_advance(w, 29 * SIM_S);
    assert_false(own->dead);
    world_advance(w, 2 * SIM_S); /* lease_idle=30s */
    assert_true(own->closed_by_us);
    world_free(w);
}

static void test_released_with_calls_under_way(void **state)
{
    struct world *w = world_new(URL);
    struct iok_lease *lease = new_lease(w), *unbound = new_lease(w);
    struct iok_call *a, *b;
    struct iok_link *own;

    (void)state;
    world_connect(w);
    a = world_submit(w, "a", 0, lease);
    world_run(w);
    own = world_connect(w);
    b = world_submit(w, "b", 0, unbound);
    world_run(w);
    iok_lease_free(lease);
    iok_lease_free(unbound);
    world_run(w);
    world_expect(w, a, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    world_expect(w, b, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    assert_true(own->closed_by_us); /* its reply may still come */
    world_free(w);
}

static void test_lease_lost(void **state)
{
    struct world *w = world_new(URL);
    struct iok_lease *lease = new_lease(w);
    struct iok_call *a, *b;

    (void)state;
    world_connect(w);
    a = world_submit(w, "a", 0, lease);
    world_run(w);
    world_connect(w);
    sim_fail(sim_last(&w->sim), IOK_ERESET);
    b = world_submit(w, "b", 0, lease);
    world_run(w);
    world_expect(w, a, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL); /* never repeated: what was before it is lost, too */
    world_expect(w, b, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

static void test_lease_limits(void **state)
{
    struct world *w = world_new(URL "?leases=1");
    struct iok_lease *first = new_lease(w), *second = new_lease(w);
    struct iok_call *a, *b, *late;

    (void)state;
    world_connect(w);
    a = world_submit(w, "a", 0, first);
    world_run(w);
    b = world_submit(w, "b", 0, second);
    late = world_submit(w, "late", 50, second);
    world_connect(w);
    world_advance(w, 60 * SIM_MS);
    world_expect(w, late, IOK_NEVER_SENT, IOK_ETIMEOUT, NULL);
    assert_int_equal(w->sim.n_links, 2); /* leases=1 */
    sim_arrive(sim_last(&w->sim), "A\n");
    world_expect(w, a, IOK_DONE, 0, "A");
    iok_lease_free(first);
    world_run(w);
    assert_string_equal(sim_last(&w->sim)->got, "a\nb\n"); /* now it is the second one's turn */
    iok_service_close(w->service, w->port);
    world_run(w);
    world_expect(w, b, IOK_MAYBE_EXECUTED, IOK_ECLOSED, NULL);
    iok_lease_free(second);
    world_run(w);
    world_free(w);
}

static void test_no_leases(void **state)
{
    struct world *w = world_new(REDIS "&leases=0");
    struct iok_lease *lease = new_lease(w);
    struct iok_call *own = world_command(w, lease, WORDS("GET", "k"));
    struct iok_call *blocks = world_command(w, NULL, WORDS("BLPOP", "k", "0"));

    (void)state;
    world_expect(w, own, IOK_NEVER_SENT, IOK_EUNSAFE, NULL);
    world_expect(w, blocks, IOK_NEVER_SENT, IOK_EUNSAFE, NULL);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

/* A command that blocks gets a lease of the kernel's own. */
static void test_auto_lease(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_call *call;
    struct iok_link *own;

    (void)state;
    world_sign_in(w);
    call = world_command(w, NULL, WORDS("BLPOP", "k", "0"));
    own = world_sign_in(w);
    assert_int_equal(w->sim.n_links, 2);
    world_advance(w, 60 * SIM_S); /* 0 means for ever: neither a deadline nor a ping */
    world_pending(w, call);
    assert_false(own->dead);
    assert_string_equal(own->got, "");
    sim_arrive(own, "$1\r\nx\r\n");
    world_expect(w, call, IOK_DONE, 0, "x");
    world_run(w);
    assert_int_equal(iok_count_get(&w->service->leased_conns), 0);
    world_free(w);
}

static void test_auto_lease_ends_badly(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_call *call;
    struct iok_link *own;

    (void)state;
    world_sign_in(w);
    call = world_command(w, NULL, WORDS("BLPOP", "k", "0"));
    iok_cancel(call); /* while it waits */
    world_run(w);
    world_expect(w, call, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    call = world_command(w, NULL, WORDS("BLPOP", "k", "0"));
    own = world_sign_in(w);
    iok_cancel(call); /* in flight: the connection may never answer */
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_true(own->closed_by_us);
    call = world_command(w, NULL, WORDS("BLPOP", "k", "0"));
    own = world_sign_in(w);
    sim_fail(own, IOK_ERESET); /* lost */
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_free(w);
}

/* An argument that the protocol cannot carry, in a call for which the kernel has made a lease. */
static void test_auto_lease_cannot_encode(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    (void)state;
    world_sign_in(w);
    iok_call_text(call, "BLPOP", 5);
    iok_call_array(call, 0);
    iok_call_text(call, "0", 1);
    world_hand_in(w, call);
    world_run(w);
    if (w->sim.n_links == 2) {
        world_sign_in(w);
    }
    world_expect(w, call, IOK_NEVER_SENT, IOK_ETYPE, NULL);
    world_free(w);
}

static void test_needs_lease(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_call *call = world_command(w, NULL, WORDS("WATCH", "k"));
    struct iok_error err;

    (void)state;
    while (iok_poll(w->port) != NULL) {
    }
    assert_int_equal(iok_call_error(call, &err), IOK_EUNSAFE);
    assert_non_null(strstr(err.text, "WATCH"));
    world_expect(w, call, IOK_NEVER_SENT, IOK_EUNSAFE, NULL);
    world_free(w);
}

static void test_dirty_is_made_clean(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_lease *lease = new_lease(w), *next = new_lease(w);
    struct iok_call *watch, *get;
    struct iok_link *own;

    (void)state;
    world_sign_in(w);
    watch = world_command(w, lease, WORDS("WATCH", "k"));
    own = world_sign_in(w);
    sim_arrive(own, "+OK\r\n");
    world_run(w);
    world_expect(w, watch, IOK_DONE, 0, "OK");
    get = world_command(w, next, WORDS("GET", "k"));
    iok_lease_free(lease);
    world_run(w);
    /* The connection is clean again before the next lease has it, or it is gone. */
    if (!own->dead) {
        assert_true(strlen(own->got) > 0 && strstr(own->got, "GET") == NULL);
    }
    iok_cancel(get);
    world_run(w);
    world_expect(w, get, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    iok_lease_free(next);
    world_run(w);
    world_free(w);
}

static void test_stream(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_lease *lease = new_lease(w);
    const struct iok_token *tokens;
    struct iok_link *own;
    struct iok_call *call;
    size_t n;

    (void)state;
    world_sign_in(w);
    call = world_command(w, lease, WORDS("SUBSCRIBE", "news"));
    own = world_sign_in(w);
    sim_arrive(own, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    world_run(w);
    world_pending(w, call);
    for (unsigned i = 0; i < 3000 && own->reading; i++) {
        sim_arrive(own, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    }
    world_run(w);
    assert_false(own->reading); /* the program takes none: the peer has to wait */
    world_pending(w, call);
    while ((tokens = iok_call_message(call, &n)) != NULL) {
        assert_true(n >= 3);
        iok_call_next(call);
    }
    world_run(w);
    assert_true(own->reading);
    sim_fail(own, IOK_ERESET);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

/* The connection is lost before the subscription was answered: its call ends once. */
static void test_stream_lost_unanswered(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_lease *lease = new_lease(w);
    struct iok_call *call;

    (void)state;
    world_sign_in(w);
    call = world_command(w, lease, WORDS("SUBSCRIBE", "news"));
    sim_fail(world_sign_in(w), 0);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bind_and_release),
        cmocka_unit_test(test_released_with_calls_under_way),
        cmocka_unit_test(test_lease_lost),
        cmocka_unit_test(test_lease_limits),
        cmocka_unit_test(test_no_leases),
        cmocka_unit_test(test_auto_lease),
        cmocka_unit_test(test_auto_lease_ends_badly),
        cmocka_unit_test(test_auto_lease_cannot_encode),
        cmocka_unit_test(test_needs_lease),
        cmocka_unit_test(test_dirty_is_made_clean),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_lost_unanswered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
