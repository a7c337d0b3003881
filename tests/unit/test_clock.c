/* test_clock.c - the time between two looks at the clock: never ahead, never far behind, and not used in doubt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../../src/base/clock.h"

#define MS UINT64_C(1000000)
#define TICKS_A_MS UINT64_C(2500000) /* 2.5 GHz */

/* Looks at ms, when the counter is where it should be, and moved by so many ticks. */
static void look(struct iok_clock *clock, uint64_t ms, int64_t moved)
{
    uint64_t ticks = (uint64_t)((int64_t)(ms * TICKS_A_MS) + moved);

    iok_clock_looked(clock, ticks - 50, ms * MS, ticks);
}

static struct iok_clock known(void)
{
    struct iok_clock clock = {.trusted = true};

    look(&clock, 1000, 0);
    look(&clock, 1010, 0);
    look(&clock, 1020, 0);
    return clock;
}

static void test_needs_two_measurements(void **state)
{
    struct iok_clock clock = {.trusted = true};

    (void)state;
    look(&clock, 1000, 0);
    assert_int_equal(iok_clock_at(&clock, clock.ticks + 1000), 0);
    look(&clock, 1010, 0);
    assert_int_equal(iok_clock_at(&clock, clock.ticks + 1000), 0);
    look(&clock, 1020, 0);
    assert_int_not_equal(iok_clock_at(&clock, clock.ticks + 1000), 0);
}

static void test_is_never_ahead(void **state)
{
    struct iok_clock clock = known();

    (void)state;
    for (uint64_t ticks = 0; ticks < IOK_CLOCK_STRETCH_TICKS; ticks += 7) {
        uint64_t right = 1020 * MS + ticks * MS / TICKS_A_MS, at = iok_clock_at(&clock, clock.ticks + ticks);

        assert_true(at <= right);
        assert_true(right - at <= 1 + ticks * MS / TICKS_A_MS / 200);
    }
}

static void test_ends_with_its_stretch(void **state)
{
    struct iok_clock clock = known();

    (void)state;
    assert_int_equal(iok_clock_at(&clock, clock.ticks + IOK_CLOCK_STRETCH_TICKS), 0);
    assert_int_equal(iok_clock_at(&clock, clock.ticks - 1), 0); /* a counter that went back */
}

/* A machine that slept, or came to another processor: the rate is in doubt until it is as before twice. */
static void test_a_jump_of_the_counter(void **state)
{
    struct iok_clock clock = known();
    int64_t jump = (int64_t)(5 * TICKS_A_MS);

    (void)state;
    look(&clock, 1030, jump);
    assert_int_equal(iok_clock_at(&clock, clock.ticks + 1000), 0);
    look(&clock, 1040, jump);
    assert_int_equal(iok_clock_at(&clock, clock.ticks + 1000), 0);
    look(&clock, 1050, jump);
    assert_int_not_equal(iok_clock_at(&clock, clock.ticks + 1000), 0);
}

/* A thread that was set aside in the midst of a look does not know its moment. */
static void test_a_look_that_took_long(void **state)
{
    struct iok_clock clock = known();
    uint64_t ticks = 1025 * TICKS_A_MS;

    (void)state;
    iok_clock_looked(&clock, ticks - IOK_CLOCK_STRETCH_TICKS, 1025 * MS, ticks);
    assert_int_equal(clock.ns, 1020 * MS);
    assert_int_equal(iok_clock_at(&clock, ticks + 10), 0);
}

static void test_not_trusted(void **state)
{
    struct iok_clock clock = {.trusted = false};

    (void)state;
    for (uint64_t ms = 1000; ms < 1100; ms += 10) {
        look(&clock, ms, 0);
        assert_int_equal(iok_clock_at(&clock, ms * TICKS_A_MS + 1), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_needs_two_measurements), cmocka_unit_test(test_is_never_ahead),
        cmocka_unit_test(test_ends_with_its_stretch),  cmocka_unit_test(test_a_jump_of_the_counter),
        cmocka_unit_test(test_a_look_that_took_long),  cmocka_unit_test(test_not_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
