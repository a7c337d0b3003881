/* test_span.c - spans, numbers and their texts, and the names in err.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "../../src/base/err.h"
#include "../../src/base/span.h"

static void test_eq(void **state)
{
    (void)state;
    assert_true(iok_span_eq(iok_span(NULL, 0), iok_span("", 0)));
    assert_true(iok_span_eq(iok_span_of("abc"), iok_span("abcd", 3)));
    assert_false(iok_span_eq(iok_span_of("abc"), iok_span_of("abd")));
    assert_true(iok_span_eq_nocase(iok_span_of("PiNg"), "pInG"));
    assert_true(iok_span_eq_nocase(iok_span(NULL, 0), ""));
    assert_false(iok_span_eq_nocase(iok_span_of("ping"), "pin"));
    assert_false(iok_span_eq_nocase(iok_span_of("pin"), "ping"));
    assert_false(iok_span_eq_nocase(iok_span("pin\0g", 5), "pin"));
    /* Only letters fold: '[' and '{' differ by the same bit. */
    assert_false(iok_span_eq_nocase(iok_span_of("["), "{"));
}

static void test_find_crlf(void **state)
{
    static const struct {
        const char *text;
        ptrdiff_t at;
    } cases[] = {{"", -1},     {"\r", -1},       {"\n", -1},        {"\n\r", -1},         {"\r\n", 0},
                 {"a\r\n", 1}, {"a\rb\r\nc", 3}, {"\r\r\n\r\n", 1}, {"no end of it", -1}, {"ends so\r", -1}};

    (void)state;
    assert_int_equal(iok_span_find_crlf(iok_span(NULL, 0)), -1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(iok_span_find_crlf(iok_span_of(cases[i].text)), cases[i].at);
    }
    /* Does not look behind the end. */
    assert_int_equal(iok_span_find_crlf(iok_span("ab\r\n", 3)), -1);
}

static void test_i64(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0},
                {"-0", 0},
                {"007", 7},
                {"-12", -12},
                {"9223372036854775807", INT64_MAX},
                {"-9223372036854775808", INT64_MIN}};
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "--1",
                                      "1-",
                                      "1.0",
                                      "0x1",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "18446744073709551616",
                                      "99999999999999999999999"};
    char text[20];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        int64_t value = 42;

        assert_true(iok_span_i64(iok_span_of(good[i].text), &value));
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        int64_t value = 42;

        assert_false(iok_span_i64(iok_span_of(bad[i]), &value));
        assert_int_equal(value, 42);
    }
    assert_int_equal(iok_format_i64(text, INT64_MIN), 20);
    assert_memory_equal(text, "-9223372036854775808", 20);
    assert_int_equal(iok_format_i64(text, INT64_MAX), 19);
    assert_memory_equal(text, "9223372036854775807", 19);
    assert_int_equal(iok_format_i64(text, 0), 1);
    assert_memory_equal(text, "0", 1);
}

static void check_f64(double value, const char *expected)
{
    char text[33] = {0};
    size_t n = iok_format_f64(text, value);

    assert_in_range(n, 1, 32);
    text[n] = '\0';
    if (expected != NULL) {
        assert_string_equal(text, expected);
    }
    if (!isnan(value)) {
        double back = strtod(text, NULL);

        assert_memory_equal(&back, &value, sizeof(value)); /* the sign of zero, too */
    }
}

static void test_f64(void **state)
{
    uint64_t random = 1;

    (void)state;
    check_f64(0.0, "0");
    check_f64(-0.0, "-0");
    check_f64(0.1, "0.1");
    check_f64(-1.5, "-1.5");
    check_f64(100000, "100000");
    check_f64(-123456789012345.0, "-123456789012345");
    check_f64(1e15, "1e+15");
    check_f64(1.0 / 3.0, "0.3333333333333333");
    check_f64(0.1 + 0.2, "0.30000000000000004");
    check_f64(5e-324, "5e-324");
    check_f64(DBL_MAX, "1.7976931348623157e+308");
    check_f64((double)INFINITY, "inf");
    check_f64((double)-INFINITY, "-inf");
    check_f64((double)NAN, "nan");
    for (int i = 0; i < 20000; i++) {
        double value;

        random = random * 6364136223846793005u + 1442695040888963407u;
        memcpy(&value, &random, sizeof(value));
        if (!isnan(value)) {
            check_f64(value, NULL);
        }
    }
}

/* The program may have set a locale with a decimal comma; the wire must not notice. */
static void test_f64_locale(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "ps_AF.UTF-8"};
    char text[32];
    size_t i = 0;

    (void)state;
    while (i < sizeof(names) / sizeof(*names) && setlocale(LC_NUMERIC, names[i]) == NULL) {
        i++;
    }
    if (i == sizeof(names) / sizeof(*names)) {
        skip(); /* no such locale on this machine */
    }
    assert_int_equal(iok_format_f64(text, 1.5e-7), 7);
    assert_memory_equal(text, "1.5e-07", 7);
    setlocale(LC_NUMERIC, "C");
}

static void test_errors(void **state)
{
    struct iok_error err;
    char *long_text = malloc(1000);

    (void)state;
    assert_non_null(long_text);
    assert_string_equal(iok_errno_name(IOK_EURL), "IOK_EURL");
    assert_string_equal(iok_errno_text(IOK_EURL), "bad service URL");
    assert_string_equal(iok_errno_name(1), "unknown");
    assert_string_equal(iok_outcome_name(IOK_MAYBE_EXECUTED), "maybe-executed");
    assert_string_equal(iok_version(), "0.1.0");
    assert_int_equal(iok_err(NULL, IOK_ELIMIT, "nobody asks"), IOK_ELIMIT);
    memset(long_text, 'x', 999);
    long_text[999] = '\0';
    assert_int_equal(iok_err(&err, IOK_EINVAL, "%s", long_text), IOK_EINVAL);
    assert_int_equal(err.code, IOK_EINVAL);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_non_null(strstr(err.file, "test_span.c"));
    assert_true(err.line > 0);
    free(long_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eq),  cmocka_unit_test(test_find_crlf),  cmocka_unit_test(test_i64),
        cmocka_unit_test(test_f64), cmocka_unit_test(test_f64_locale), cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests_name("span", tests, NULL, NULL);
}
