/* test_timer.c - the wheel against a naive model: an array that is searched. A failure names its seed; IOK_SEED=n plays
 * it again.
 *
 * Invariant: at every advance exactly those timers fire whose tick has come, in the order of their ticks; and next
 * never names a time later than the first of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "../../src/kernel/timer.h"

#define TICK (UINT64_C(1) << IOK_TICK_SHIFT)
#define TIMERS 64u
#define STEPS 3000u

static uint64_t seed, random_state;

static uint64_t any(uint64_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return (random_state >> 24) % below;
}

/* From nothing to days, as many short ones as long ones. */
static uint64_t any_span(void)
{
    return any(UINT64_C(1) << (1 + any(39))) << any(11);
}

struct model {
    struct iok_wheel wheel;
    struct iok_timer timers[TIMERS];
    uint64_t due[TIMERS]; /* in ticks; 0: not set */
    uint64_t now;
};

static uint64_t tick_of(uint64_t ns)
{
    return (ns + TICK - 1) >> IOK_TICK_SHIFT;
}

static void set(struct model *m, uint64_t i, uint64_t deadline)
{
    uint64_t next = (m->now >> IOK_TICK_SHIFT) + 1; /* what is past fires with the next tick */

    iok_timer_set(&m->wheel, &m->timers[i], deadline);
    m->due[i] = tick_of(deadline) < next ? next : tick_of(deadline);
    assert_true(iok_timer_is_set(&m->timers[i]));
}

static uint64_t first_due(const struct model *m)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; i < TIMERS; i++) {
        first = m->due[i] != 0 && m->due[i] < first ? m->due[i] : first;
    }
    return first;
}

static void advance(struct model *m, uint64_t now)
{
    struct iok_timer *timer;
    uint64_t next = iok_wheel_next(&m->wheel);

    if (first_due(m) == UINT64_MAX) {
        assert_true(next == UINT64_MAX);
    } else {
        assert_true(next <= first_due(m) << IOK_TICK_SHIFT && next > m->now - m->now % TICK);
    }
    m->now = now;
    while ((timer = iok_wheel_expire(&m->wheel, now)) != NULL) {
        size_t i = (size_t)(timer - m->timers);

        if (m->due[i] != first_due(m) || m->due[i] > now >> IOK_TICK_SHIFT) {
            fail_msg("IOK_SEED=%llu: timer of tick %llu fired at tick %llu, the first due is %llu",
                     (unsigned long long)seed, (unsigned long long)m->due[i],
                     (unsigned long long)(now >> IOK_TICK_SHIFT), (unsigned long long)first_due(m));
        }
        assert_false(iok_timer_is_set(timer));
        m->due[i] = 0;
    }
    if (first_due(m) <= now >> IOK_TICK_SHIFT) {
        fail_msg("IOK_SEED=%llu: at tick %llu the timer of tick %llu did not fire", (unsigned long long)seed,
                 (unsigned long long)(now >> IOK_TICK_SHIFT), (unsigned long long)first_due(m));
    }
}

static void play(uint64_t start)
{
    struct model *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->now = start;
    iok_wheel_init(&m->wheel, start);
    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t i = any(TIMERS), next;

        switch (any(8)) {
        case 0:
        case 1:
        case 2:
            set(m, i, m->now + any_span());
            break;
        case 3:
            set(m, i, m->now - any(m->now < 1000 * TICK ? m->now + 1 : 1000 * TICK)); /* past */
            break;
        case 4:
            iok_timer_stop(&m->wheel, &m->timers[i]);
            m->due[i] = 0;
            break;
        case 5: /* as the loop does it */
            next = iok_wheel_next(&m->wheel);
            advance(m, next == UINT64_MAX ? m->now : next);
            break;
        default:
            advance(m, m->now + any_span() / 8);
            break;
        }
    }
    free(m);
}

static void test_model(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 40; run++, seed++) {
        random_state = seed;
        play(any(UINT64_C(1) << 45));
    }
}

/* All 64^4 ticks, 4.9 hours, the top level has turned once; a deadline across that point must not wait for a turn. */
static void test_across_the_top(void **state)
{
    uint64_t turn = TICK << 24;

    (void)state;
    for (uint64_t before = 1; before < 5000; before += 7) {
        struct iok_wheel wheel;
        struct iok_timer timer = {.kind = 0};

        iok_wheel_init(&wheel, turn - before * TICK);
        iok_timer_set(&wheel, &timer, turn + 3 * TICK);
        assert_true(iok_wheel_next(&wheel) <= turn + 3 * TICK);
        assert_null(iok_wheel_expire(&wheel, turn + 2 * TICK));
        assert_ptr_equal(iok_wheel_expire(&wheel, turn + 3 * TICK), &timer);
    }
    for (unsigned run = 0; run < 20; run++, seed++) {
        random_state = seed;
        play(turn - any(TICK << 10));
    }
}

static void test_far_and_past(void **state)
{
    struct iok_wheel wheel;
    struct iok_timer timer = {.kind = 0};
    uint64_t now = 5 * TICK + 1;

    (void)state;
    iok_wheel_init(&wheel, now);
    assert_true(iok_wheel_next(&wheel) == UINT64_MAX);
    iok_timer_stop(&wheel, &timer); /* does nothing */
    iok_timer_set(&wheel, &timer, UINT64_MAX);
    for (unsigned i = 0; i < 1000; i++) {
        now += TICK << 18;
        assert_null(iok_wheel_expire(&wheel, now));
    }
    iok_timer_set(&wheel, &timer, 1);
    assert_ptr_equal(iok_wheel_expire(&wheel, now + TICK), &timer);
    iok_timer_set(&wheel, &timer, now + 3 * TICK - 7); /* rounded up: never early */
    assert_null(iok_wheel_expire(&wheel, now + 3 * TICK - 8 - now % TICK));
    assert_ptr_equal(iok_wheel_expire(&wheel, now + 4 * TICK), &timer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_across_the_top),
        cmocka_unit_test(test_far_and_past),
    };
    const char *given = getenv("IOK_SEED");

    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
