/* test_guests_limits.c - on a simulated network: which connections go when there are too many, and how slowly a body may
 * come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

/* ---- too many connections ---------------------------------------------------------------------------------------- */

/* A connection whose client has got an answer. */
static struct iok_link *visit(struct house *h, struct iok_call *call)
{
    struct iok_link *link = sim_client(&h->w->sim);

    house_get(link, "/");
    assert_ptr_equal(house_poll(h), call);
    house_answer(h, call, 200, "ok");
    sim_clear(link);
    return link;
}

static void test_the_idlest_goes(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *first, *second, *third;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_connections=2");
    call = house_call(&h);
    first = visit(&h, call);
    world_advance(h.w, 5 * SIM_S);
    second = visit(&h, call);
    world_advance(h.w, 5 * SIM_S);
    house_get(first, "/"); /* and so the second is the idlest */
    assert_ptr_equal(house_poll(&h), call);
    house_answer(&h, call, 200, "ok");
    third = visit(&h, call);
    assert_true(second->dead);
    assert_false(first->dead || third->dead);
    world_advance(h.w, 2 * SIM_S);
    (void)visit(&h, call);
    assert_true(first->dead);
    assert_false(third->dead);
    house_close(&h);
}

/* What is under way, and who was busy a moment ago, stays: new ones wait in the system, and not for ever. */
static void test_only_idle_ones_go(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *served, *reading, *silent, *idle;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_connections=4&header_timeout=60s");
    call = house_call(&h);
    idle = visit(&h, call);
    silent = sim_client(&h.w->sim); /* has not asked for anything yet */
    reading = visit(&h, call);
    served = visit(&h, call);
    assert_false(h.w->sim.door.accepting);
    sim_arrive(reading, "GET / HT");
    house_get(served, "/");
    assert_ptr_equal(house_poll(&h), call);
    world_advance(h.w, SIM_S / 2);
    assert_false(h.w->sim.door.accepting);
    world_advance(h.w, SIM_S);
    assert_true(h.w->sim.door.accepting);
    house_get(idle, "/"); /* no more so */
    assert_false(h.w->sim.door.accepting);
    world_advance(h.w, 5 * SIM_S);
    assert_false(h.w->sim.door.accepting);
    house_answer(&h, call, 200, "ok");
    assert_ptr_equal(house_poll(&h), call); /* of idle */
    world_advance(h.w, 2 * SIM_S);
    assert_true(h.w->sim.door.accepting);
    (void)sim_client(&h.w->sim);
    assert_true(served->dead);
    assert_false(idle->dead || silent->dead || reading->dead);
    assert_false(h.w->sim.door.accepting);
    sim_fail(silent, 0);
    assert_true(h.w->sim.door.accepting);
    house_answer(&h, call, 200, "ok");
    house_close(&h);
}

/* While a listener ends nobody is let in for it. */
static void test_too_many_at_the_end(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_connections=1");
    call = house_call(&h);
    link = visit(&h, call);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    iok_listener_close(h.listener, h.w->port, 5000);
    world_run(h.w);
    assert_false(h.w->sim.door.open);
    house_answer(&h, call, 200, "ok");
    assert_true(link->dead);
    house_close(&h);
}

/* ---- slow bodies ------------------------------------------------------------------------------------------------- */

/* A body of 100,000 bytes was begun by a client; whole: the program gets it only as a whole. */
static struct iok_link *begin_body(struct house *h, bool whole)
{
    struct iok_link *link;

    house_open(h, whole ? "http://127.0.0.1:8000/?body_timeout=10s&body_rate=100&whole=1m"
                        : "http://127.0.0.1:8000/?body_timeout=10s&body_rate=100");
    (void)house_call(h);
    link = sim_client(&h->w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    assert_int_equal(house_poll(h) == NULL, whole);
    return link;
}

/* So many bytes each second, for so long; the program takes what comes. How many seconds went well. */
static unsigned trickle(struct house *h, struct iok_link *link, size_t bytes, unsigned seconds)
{
    static const char zeros[65536];
    unsigned i;

    for (i = 0; i < seconds && link->n_got == 0; i++) {
        struct iok_call *call;
        size_t n;

        sim_arrive_bytes(link, zeros, bytes);
        while ((call = house_poll(h)) != NULL) {
            while (iok_call_message(call, &n) != NULL) {
                iok_call_next(call);
            }
        }
        world_advance(h->w, SIM_S);
    }
    return i;
}

static void expect_end(struct house *h, struct iok_link *link)
{
    assert_memory_equal(link->got, "HTTP/1.1 408 Request Timeout\r\n", 30);
    sim_end(link);
    house_close(h);
}

static void test_the_least_rate(void **state)
{
    struct house h;
    struct iok_link *link;

    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        link = begin_body(&h, whole);
        assert_int_equal(trickle(&h, link, 100, 60), 60);
        assert_in_range(trickle(&h, link, 50, 60), 18,
                        21); /* half a second behind with each: the timeout, in the end */
        expect_end(&h, link);
    }
}

/* However fast it was before: only as far as one pause between two pieces may last. */
static void test_speed_is_not_saved_up(void **state)
{
    struct house h;
    struct iok_link *link;

    (void)state;
    link = begin_body(&h, false);
    assert_int_equal(trickle(&h, link, 60000, 1), 1);
    assert_in_range(trickle(&h, link, 1, 60), 9, 11);
    expect_end(&h, link);
}

/* Pauses that the least rate leaves time for, and one that is ours: the program takes nothing for a while. */
static void test_pauses(void **state)
{
    static const char zeros[1000];
    struct house h;
    struct iok_link *link;
    struct iok_call *call;
    size_t n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?body_timeout=10s&body_rate=100&max_stream_bytes=64k");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    for (int i = 0; i < 5; i++) {
        world_advance(h.w, 9 * SIM_S);
        sim_arrive_bytes(link, zeros, 900);
    }
    for (int i = 0; i < 80 && link->reading; i++) {
        sim_arrive_bytes(link, zeros, sizeof(zeros));
    }
    assert_false(link->reading);
    world_advance(h.w, 3600 * SIM_S);
    assert_ptr_equal(house_poll(&h), call);
    while (iok_call_message(call, &n) != NULL) {
        iok_call_next(call);
    }
    world_run(h.w);
    assert_true(link->reading);
    world_advance(h.w, 9 * SIM_S);
    assert_int_equal(link->n_got, 0);
    sim_arrive_bytes(link, zeros, 1000);
    world_advance(h.w, 9 * SIM_S);
    assert_int_equal(link->n_got, 0);
    world_advance(h.w, 2 * SIM_S);
    assert_memory_equal(link->got, "HTTP/1.1 408 Request Timeout\r\n", 30);
    sim_end(link);
    house_close(&h);
}

/* A body is not late by the one before it. */
static void test_each_body_has_its_own_time(void **state)
{
    struct house h;
    struct iok_link *link;
    struct iok_call *call;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?body_timeout=10s&body_rate=100");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    for (int i = 0; i < 3; i++) {
        sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
        world_advance(h.w, 8 * SIM_S);
        sim_arrive(link, "x");
        world_advance(h.w, SIM_S);
        sim_arrive(link, "x");
        assert_ptr_equal(house_poll(&h), call);
        house_answer(&h, call, 200, "ok");
        assert_memory_equal(link->got, "HTTP/1.1 200 OK\r\n", 17);
        sim_clear(link);
    }
    house_close(&h);
}

static void test_without_a_least_rate(void **state)
{
    struct house h;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?body_timeout=10s&body_rate=0");
    (void)house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    assert_int_equal(trickle(&h, link, 1, 600), 600);
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_least_rate),
        cmocka_unit_test(test_speed_is_not_saved_up),
        cmocka_unit_test(test_pauses),
        cmocka_unit_test(test_each_body_has_its_own_time),
        cmocka_unit_test(test_without_a_least_rate),
        cmocka_unit_test(test_the_idlest_goes),
        cmocka_unit_test(test_only_idle_ones_go),
        cmocka_unit_test(test_too_many_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
