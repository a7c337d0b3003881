/* test_hist.c - the histogram: precision over its whole range, percentiles, its size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../../src/base/hist.h"

_Static_assert(sizeof(struct iok_hist) <= 5120, "a service has five of them");

static void near(uint64_t got, uint64_t expected)
{
    uint64_t off = got > expected ? got - expected : expected - got;

    assert_true(off * 100 <= expected * 7);
}

static void test_empty(void **state)
{
    struct iok_hist hist = {0};
    struct iok_phase phase = {1, 1, 1, 1};

    (void)state;
    iok_hist_read(&hist, &phase);
    assert_int_equal(phase.count, 0);
    assert_int_equal(phase.p50_ns, 0);
    assert_int_equal(phase.p99_ns, 0);
    assert_int_equal(phase.max_ns, 0);
}

/* A lone value is its own p50 and p99, within 7%, from 0 to 2^40, and on both sides of each power of two. */
static void test_precision(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 40; bit++) {
        for (int64_t step = -1; step <= 1; step++) {
            uint64_t ns = (uint64_t)((INT64_C(1) << bit) + step);
            struct iok_hist hist = {0};
            struct iok_phase phase;

            iok_hist_add(&hist, ns);
            iok_hist_read(&hist, &phase);
            assert_int_equal(phase.count, 1);
            assert_int_equal(phase.max_ns, ns);
            near(phase.p50_ns, ns);
            near(phase.p99_ns, ns);
            assert_true(phase.p99_ns <= phase.max_ns);
        }
    }
}

static void test_index_is_monotonic(void **state)
{
    uint32_t last = 0;

    (void)state;
    for (uint64_t ns = 0; ns < UINT64_C(1) << 20; ns++) {
        uint32_t index = iok_hist_index(ns);

        assert_true(index == last || index == last + 1);
        last = index;
    }
    assert_int_equal(iok_hist_index(UINT64_MAX), IOK_HIST_BUCKETS - 1);
    assert_int_equal(iok_hist_index((UINT64_C(1) << 40) - 1), IOK_HIST_BUCKETS - 1);
}

static void test_percentiles(void **state)
{
    struct iok_hist hist = {0};
    struct iok_phase phase;

    (void)state;
    for (uint64_t i = 1; i <= 10000; i++) {
        iok_hist_add(&hist, i * 1000);
    }
    iok_hist_read(&hist, &phase);
    assert_int_equal(phase.count, 10000);
    near(phase.p50_ns, 5000000);
    near(phase.p99_ns, 9900000);
    assert_int_equal(phase.max_ns, 10000000);
    /* One slow in a hundred is not in p99; two are. */
    hist = (struct iok_hist){0};
    for (int i = 0; i < 99; i++) {
        iok_hist_add(&hist, 1000);
    }
    iok_hist_add(&hist, 1000000);
    iok_hist_read(&hist, &phase);
    near(phase.p99_ns, 1000);
    iok_hist_add(&hist, 1000000);
    iok_hist_read(&hist, &phase);
    near(phase.p50_ns, 1000);
    near(phase.p99_ns, 1000000);
    assert_int_equal(phase.count, 101);
}

/* What two writers add is read as one. */
static void test_shared(void **state)
{
    struct iok_hist_shared hist = {0};
    struct iok_phase phase;
    int writers[2];

    (void)state;
    for (uint64_t i = 1; i <= 10000; i++) {
        iok_hist_shared_add(&hist, &writers[i % 2], i * 1000);
    }
    iok_hist_shared_read(&hist, &phase);
    assert_int_equal(phase.count, 10000);
    near(phase.p50_ns, 5000000);
    near(phase.p99_ns, 9900000);
    assert_int_equal(phase.max_ns, 10000000);
    iok_hist_read(&hist.own, &phase); /* the first has counters of its own */
    assert_int_equal(phase.count, 5000);
    assert_int_equal(phase.max_ns, 9999000);
    iok_hist_read(&hist.others, &phase);
    assert_int_equal(phase.count, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),       cmocka_unit_test(test_precision), cmocka_unit_test(test_index_is_monotonic),
        cmocka_unit_test(test_percentiles), cmocka_unit_test(test_shared),
    };

    return cmocka_run_group_tests_name("hist", tests, NULL, NULL);
}
