/* test_single.c - protocols with one request at a time on a connection: connections by need, and none that is dead or in
 * doubt. With the HTTP codec, as test_kernel.c, against a peer that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "http://10.0.0.1:80"
#define OK "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

static struct iok_call *get(struct world *w, int64_t timeout_ms)
{
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    assert_non_null(call);
    iok_call_text(call, "GET", 3);
    iok_call_text(call, "/", 1);
    iok_call_timeout(call, timeout_ms);
    world_hand_in(w, call);
    world_run(w);
    return call;
}

static void done(struct world *w, struct iok_call *call)
{
    size_t n;

    world_run(w);
    world_take(w);
    assert_int_equal(iok_call_outcome(call), IOK_DONE);
    assert_int_equal(iok_call_reply(call, &n)[1].i, 200);
    iok_call_free(call);
}

static void test_by_need(void **state)
{
    struct world *w = world_new(URL "?connections=2");
    struct iok_link *first = world_connect(w), *second;
    struct iok_call *a, *b, *c;

    (void)state;
    assert_int_equal(sim_live_links(&w->sim), 1); /* made before it is needed */
    a = get(w, 0);
    assert_int_equal(sim_live_links(&w->sim), 1);
    b = get(w, 0);
    c = get(w, 0);
    assert_int_equal(sim_live_links(&w->sim), 2); /* and no more than allowed */
    sim_clear(first);
    sim_arrive(first, OK); /* it is free before the other is there */
    done(w, a);
    assert_non_null(strstr(first->got, "GET / HTTP/1.1\r\n"));
    sim_arrive(first, OK);
    done(w, b);
    second = world_connect(w);
    assert_ptr_not_equal(first, second);
    sim_arrive(first, OK);
    done(w, c);
    world_advance(w, 40 * SIM_S); /* lease_idle=30s */
    assert_int_equal(sim_live_links(&w->sim), 0);
    world_free(w);
}

static void test_idle_end_is_no_failure(void **state)
{
    for (int how = 0; how < 2; how++) { /* in order, or as TLS without close_notify does */
        struct world *w = world_new(URL);
        struct iok_link *link = world_connect(w);
        struct iok_call *call = get(w, 0);

        (void)state;
        sim_arrive(link, OK);
        done(w, call);
        sim_fail(link, how == 0 ? 0 : IOK_ERESET);
        world_run(w);
        assert_int_equal(sim_live_links(&w->sim), 0); /* the next is made when it is needed, and at once */
        assert_int_equal(iok_count_get(&w->service->disconnects), 0);
        call = get(w, 0);
        link = world_connect(w);
        sim_arrive(link, OK);
        done(w, call);
        world_free(w);
    }
}

/* An answer came: another request would get the same. */
static void test_unreadable_reply(void **state)
{
    static const char *const replies[] = {"HTTP/7.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nx\r\n\r\n",
                                          "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n!\r\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(*replies); i++) {
        struct world *w = world_new(URL);
        struct iok_link *link = world_connect(w);
        struct iok_call *call = get(w, 0);

        sim_arrive(link, replies[i]);
        world_run(w);
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_EPROTO, NULL);
        assert_int_equal(iok_count_get(&w->service->retries), 0);
        world_free(w);
    }
}

static void test_given_up(void **state)
{
    struct world *w = world_new(URL "?connections=1");
    struct iok_link *link = world_connect(w);
    struct iok_call *call = get(w, 100);

    (void)state;
    world_advance(w, 102 * SIM_MS);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    assert_int_equal(sim_live_links(&w->sim), 0);
    call = get(w, 0);
    link = world_connect(w);
    sim_arrive(link, OK);
    done(w, call);
    world_free(w);
}

/* After its reply the server closes: another request has to take another connection. */
static void test_last_reply(void **state)
{
    struct world *w = world_new(URL "?connections=1");
    struct iok_link *link = world_connect(w);
    struct iok_call *a = get(w, 0), *b = get(w, 0);

    (void)state;
    sim_clear(link);
    sim_arrive(link, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    done(w, a);
    link = world_connect(w);
    sim_arrive(link, "HTTP/1.1 200 OK\r\n\r\n");
    sim_fail(link, 0); /* which ends the body, too */
    done(w, b);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_need),          cmocka_unit_test(test_idle_end_is_no_failure),
        cmocka_unit_test(test_unreadable_reply), cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_last_reply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
