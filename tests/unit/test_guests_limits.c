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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_idlest_goes),
        cmocka_unit_test(test_only_idle_ones_go),
        cmocka_unit_test(test_too_many_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
