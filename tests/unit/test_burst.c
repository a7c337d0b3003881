/* test_burst.c - bursts: what a program submits between iok_drain_begin and iok_drain_end. When the kernel is told of it,
 * when it leaves it alone, and that nothing of it is ever left behind. */
#include <poll.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "line://10.0.0.1:7000"
#define FOR_EVER (-1)

static bool told(const struct world *w)
{
    struct pollfd fd = {.fd = w->core->wake.fd_read, .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

/* The kernel would sleep, and is not told of anything yet. */
static void sleeps(struct world *w)
{
    assert_true(iok_core_may_sleep(w->core));
    assert_false(told(w));
}

/* n calls more; world_free ends them. */
static void submit(struct world *w, unsigned n)
{
    while (n-- > 0) {
        (void)world_submit(w, "x", FOR_EVER, NULL);
    }
}

static struct world *open_world(void)
{
    struct world *w = world_new(URL);

    world_run(w);
    (void)world_connect(w);
    return w;
}

static void test_told_of_the_first(void **state)
{
    struct world *w = open_world();

    (void)state;
    iok_drain_begin(w->port);
    sleeps(w);
    submit(w, 1);
    assert_true(told(w));
    iok_core_awake(w->core);
    iok_drain_end(w->port);
    world_free(w);
}

static void test_few_are_left_alone(void **state)
{
    struct world *w = open_world();

    (void)state;
    iok_drain_begin(w->port);
    for (unsigned i = 0; i < IOK_BURST_CALLS - 1; i++) {
        submit(w, 1);
        assert_true(iok_core_may_sleep(w->core));
        iok_core_awake(w->core);
    }
    submit(w, 1);
    assert_false(iok_core_may_sleep(w->core));
    world_run(w);
    assert_int_equal(sim_last(&w->sim)->n_got, 2 * IOK_BURST_CALLS);
    iok_drain_end(w->port);
    world_free(w);
}

/* What it left alone while it could not know of more to come, it is told of at the end. */
static void test_told_at_the_end(void **state)
{
    struct world *w = open_world();

    (void)state;
    iok_drain_begin(w->port);
    submit(w, 1); /* the kernel is awake: nothing to write */
    sleeps(w);
    iok_drain_end(w->port);
    assert_true(told(w));
    iok_core_awake(w->core);
    assert_false(iok_core_may_sleep(w->core)); /* outside of a burst nothing is left alone */
    world_run(w);
    assert_int_equal(sim_last(&w->sim)->n_got, 2);
    world_free(w);
}

static void test_empty_burst_tells_nothing(void **state)
{
    struct world *w = open_world();

    (void)state;
    sleeps(w);
    iok_drain_begin(w->port);
    iok_drain_end(w->port);
    assert_false(told(w));
    iok_core_awake(w->core);
    world_free(w);
}

/* The program computes in the midst of a burst. */
static void test_naps_are_short(void **state)
{
    struct world *w = open_world();
    uint64_t before;

    (void)state;
    world_run(w);
    before = iok_core_deadline(w->core);
    iok_drain_begin(w->port);
    submit(w, 1);
    assert_true(iok_core_may_sleep(w->core));
    assert_true(iok_core_deadline(w->core) <= w->sim.now + SIM_MS);
    iok_core_awake(w->core);
    w->sim.now += SIM_MS;
    iok_core_round(w->core); /* whatever woke it, a round takes all */
    assert_int_equal(sim_last(&w->sim)->n_got, 2);
    assert_true(iok_core_may_sleep(w->core));
    assert_true(iok_core_deadline(w->core) <= w->sim.now + SIM_MS); /* what it submits next may not be told */
    iok_core_awake(w->core);
    iok_drain_end(w->port);
    world_run(w);
    assert_true(iok_core_deadline(w->core) >= before);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told_of_the_first), cmocka_unit_test(test_few_are_left_alone),
        cmocka_unit_test(test_told_at_the_end),   cmocka_unit_test(test_empty_burst_tells_nothing),
        cmocka_unit_test(test_naps_are_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
