/* test_kernel.c - the deterministic core against a peer that the test plays: what happens to a call, on good days and
 * on bad ones. test_lease.c has the leases. No threads, no sockets, and time passes only when told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "line://10.0.0.1:7000"

static void test_done(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *a = world_submit(w, "one", 0, NULL);
    struct iok_call *b = world_submit(w, "two", 0, NULL);
    struct iok_stamps at;

    (void)state;
    w->sim.now += SIM_MS;
    world_run(w);
    assert_string_equal(link->got, "one\ntwo\n");
    w->sim.now += 2 * SIM_MS;
    sim_arrive(link, "ONE\nTW");
    world_run(w);
    world_pending(w, b);
    sim_arrive(link, "O\n");
    world_run(w);
    world_pending(w, NULL == b ? a : b);
    world_free(w);
    (void)at;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_done)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
