/* test_span.c - numbers and text by pointer and length: every boundary, and the way there and back. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../src/base/span.h"

static void test_eq(void **state)
{
    (void)state;
    assert_true(iok_span_eq(iok_span(NULL, 0), iok_span_of("")));
    assert_true(iok_span_eq(iok_span("a\0b", 3), iok_span("a\0b", 3)));
    assert_false(iok_span_eq(iok_span("a\0b", 3), iok_span("a\0c", 3)));
    assert_false(iok_span_eq(iok_span_of("ab"), iok_span_of("a")));
    assert_true(iok_span_eq_nocase(iok_span_of("SeT"), "set"));
    assert_false(iok_span_eq_nocase(iok_span_of("se"), "set"));
    assert_false(iok_span_eq_nocase(iok_span_of("sets"), "set"));
    assert_false(iok_span_eq_nocase(iok_span("set\0", 4), "set"));
    assert_false(iok_span_eq_nocase(iok_span_of("@"), "`")); /* only letters */
    assert_true(iok_span_eq_nocase(iok_span(NULL, 0), ""));
}

static void test_crlf(void **state)
{
    (void)state;
    assert_int_equal(iok_span_find_crlf(iok_span_of("ab\r\ncd\r\n")), 2);
    assert_int_equal(iok_span_find_crlf(iok_span_of("\r\n")), 0);
    assert_int_equal(iok_span_find_crlf(iok_span_of("\r\r\n")), 1);
    assert_int_equal(iok_span_find_crlf(iok_span_of("a\rb\nc")), -1);
    assert_int_equal(iok_span_find_crlf(iok_span_of("ab\r")), -1);
    assert_int_equal(iok_span_find_crlf(iok_span(NULL, 0)), -1);
    assert_int_equal(iok_span_find_crlf(iok_span("a\r\n", 2)), -1); /* the end counts, not the NUL */
}

static void test_i64(void **state)
{
    static const int64_t values[] = {
        0, 1, -1, 9, 10, -10, 99, 1000000007, INT32_MIN, INT64_MAX, INT64_MIN, INT64_MAX - 1, INT64_MIN + 1};
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1a",
                                      "0x1",
                                      "--1",
                                      "1.0",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "99999999999999999999999"};

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        char text[20], expected[32];
        size_t n = iok_format_i64(text, values[i]);
        int64_t back = 42;

        assert_int_equal(n, snprintf(expected, sizeof(expected), "%lld", (long long)values[i]));
        assert_memory_equal(text, expected, n);
        assert_true(iok_span_i64(iok_span(text, n), &back));
        assert_true(back == values[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        int64_t untouched = 42;

        assert_false(iok_span_i64(iok_span_of(bad[i]), &untouched));
        assert_int_equal(untouched, 42);
    }
    assert_false(iok_span_i64(iok_span("1\0", 2), &(int64_t){0}));
}

static void expect_f64(double value, const char *expected)
{
    char text[32] = "";
    size_t n = iok_format_f64(text, value);

    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, n);
}

static void test_f64(void **state)
{
    static const double values[] = {
        0.1,  1.0 / 3,           1e300, -1e-300, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 123456789.125,
        1e15, 999999999999999.0, -1e22, 0.3};

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        char text[33];
        size_t n = iok_format_f64(text, values[i]);

        assert_true(n <= 32);
        text[n] = '\0';
        assert_true(strtod(text, NULL) == values[i]);
    }
    expect_f64(0.1, "0.1");
    expect_f64(3, "3");
    expect_f64(-7, "-7");
    expect_f64(0, "0");
    expect_f64(-0.0, "-0");
    expect_f64((double)INFINITY, "inf");
    expect_f64(-(double)INFINITY, "-inf");
    expect_f64((double)NAN, "nan");
    expect_f64(1e21, "1e+21");
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") != NULL) { /* where it is installed */
        expect_f64(1.5, "1.5");
        (void)setlocale(LC_NUMERIC, "C");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eq),
        cmocka_unit_test(test_crlf),
        cmocka_unit_test(test_i64),
        cmocka_unit_test(test_f64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
