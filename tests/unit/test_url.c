/* test_url.c - service URLs: parts, refusals, secrecy, typed options, the text for people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/base/mem.h"
#include "../../src/base/url.h"

#define SECRET "sEcReT"

static void is(struct iok_span part, const char *text)
{
    assert_true(iok_span_eq(part, iok_span_of(text)));
    assert_string_equal((const char *)part.p, text); /* NUL-terminated, too */
}

static void parse(struct iok_url *url, const char *text)
{
    struct iok_error err = {0};

    if (iok_url_parse(url, text, &err) != 0) {
        fail_msg("%s: %s", text, err.text);
    }
}

static void refuse(const char *text, const char *names)
{
    struct iok_url url;
    struct iok_error err = {0};
    int rc = iok_url_parse(&url, text, &err);

    if (rc == 0) {
        iok_url_deinit(&url);
        fail_msg("accepted: %s", text);
    }
    assert_true(rc == IOK_EURL || rc == IOK_EOPTION);
    assert_int_equal(err.code, rc);
    assert_null(url.storage);
    if (strstr(err.text, names) == NULL) {
        fail_msg("%s: '%s' does not name '%s'", text, err.text, names);
    }
}

static void test_parts(void **state)
{
    struct iok_url url;
    struct iok_span value;

    (void)state;
    parse(&url, "ReDiS://us%65r:p%40ss%3a@Cache.internal:6379/0?a=1&long-name=x%26y&empty=");
    is(url.scheme, "redis");
    is(url.user, "user");
    is(url.password, "p@ss:");
    is(url.host, "Cache.internal");
    is(url.path, "0");
    assert_true(url.has_user);
    assert_true(url.has_password);
    assert_false(url.unix_socket);
    assert_int_equal(url.port, 6379);
    assert_int_equal(url.n_options, 3);
    assert_true(iok_url_option(&url, "long-name", &value));
    is(value, "x&y");
    assert_true(iok_url_option(&url, "empty", &value));
    assert_int_equal(value.n, 0);
    assert_false(iok_url_option(&url, "long", &value));
    iok_url_deinit(&url);
    iok_url_deinit(&url); /* harmless */

    parse(&url, "line://h");
    is(url.host, "h");
    assert_int_equal(url.port, 0);
    assert_int_equal(url.user.n + url.password.n + url.path.n + url.n_options, 0);
    assert_false(url.has_user);
    assert_false(url.has_password);
    iok_url_deinit(&url);
}

static void test_userinfo(void **state)
{
    struct iok_url url;

    (void)state;
    parse(&url, "redis://me@h");
    is(url.user, "me");
    assert_true(url.has_user);
    assert_false(url.has_password);
    iok_url_deinit(&url);

    parse(&url, "redis://:pw@h");
    assert_int_equal(url.user.n, 0);
    is(url.password, "pw");
    assert_true(url.has_password);
    iok_url_deinit(&url);

    parse(&url, "redis://me:a:b@h");
    is(url.password, "a:b");
    iok_url_deinit(&url);

    parse(&url, "redis://me:@h");
    assert_true(url.has_password);
    assert_int_equal(url.password.n, 0);
    iok_url_deinit(&url);
}

static void test_ipv6(void **state)
{
    struct iok_url url;
    char text[100];

    (void)state;
    parse(&url, "redis://[::1]:7000/3");
    is(url.host, "::1");
    assert_int_equal(url.port, 7000);
    iok_url_safe_text(&url, text, sizeof(text));
    assert_string_equal(text, "redis://[::1]:7000/3");
    iok_url_deinit(&url);
    parse(&url, "redis://me:pw@[fe80::1%25eth0]");
    is(url.host, "fe80::1%eth0");
    assert_int_equal(url.port, 0);
    iok_url_safe_text(&url, text, sizeof(text));
    assert_string_equal(text, "redis://me@[fe80::1%25eth0]");
    iok_url_deinit(&url);
}

static void test_unix(void **state)
{
    struct iok_url url;
    char text[100];

    (void)state;
    parse(&url, "redis+unix:///run/redis.sock?db=2");
    is(url.scheme, "redis");
    is(url.path, "/run/redis.sock");
    assert_true(url.unix_socket);
    assert_int_equal(url.host.n, 0);
    iok_url_safe_text(&url, text, sizeof(text));
    assert_string_equal(text, "redis+unix:///run/redis.sock?db=2");
    iok_url_deinit(&url);

    parse(&url, "unix:///tmp/a%20b");
    is(url.scheme, "unix");
    is(url.path, "/tmp/a b");
    assert_true(url.unix_socket);
    iok_url_deinit(&url);

    parse(&url, "redis+unix://u:p@/run/s");
    is(url.user, "u");
    is(url.password, "p");
    is(url.path, "/run/s");
    iok_url_deinit(&url);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *text, *names;
    } cases[] = {
        {"", "empty"},
        {"redis", "scheme"},
        {"redis:", "scheme"},
        {"redis:/h", "scheme"},
        {"://h", "scheme"},
        {"localhost:6379", "scheme"},
        {"re_dis://h", "scheme"},
        {"redis://h:", "port"},
        {"redis://h:0", "port"},
        {"redis://h:65536", "port"},
        {"redis://h:-1", "port"},
        {"redis://h:6379x", "port"},
        {"redis://[::1", "host"},
        {"redis://[::1]x", "host"},
        {"redis://a,b", "hosts"},
        {"redis://a%0ab", "host"},
        {"redis://a%20b", "host"},
        {"redis://a%zz", "host"},
        {"redis://h/%", "path"},
        {"redis://h/%4", "path"},
        {"redis://h/%00", "path"},
        {"redis://u%x0:p@h", "user"},
        {"redis://h?a=%gg", "value"},
        {"redis://h?%1=b", "name"},
        {"redis://h?a", "option"},
        {"redis://h?=b", "option"},
        {"redis://h?a=1&&b=2", "option"},
        {"redis://h?a=1&b=2&%61=3", "'a'"},
        {"redis://h#x", "fragment"},
        {"redis://h/a b", "blank"},
        {"redis://h/\t", "blank"},
        {"redis://h\n", "blank"},
        {"redis://\x7f", "control"},
        {"redis+unix://h/run/s", "host"},
        {"unix://", "path"},
        {"unix:///", "path"},
    };
    char *text = malloc(IOK_URL_BYTES_MAX + 100);
    size_t n;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        refuse(cases[i].text, cases[i].names);
    }
    refuse(NULL, "empty");
    memset(text, 'x', IOK_URL_BYTES_MAX + 99);
    memcpy(text, "redis://", 8);
    text[IOK_URL_BYTES_MAX + 1] = '\0';
    refuse(text, "8192");
    n = (size_t)sprintf(text, "redis://h?");
    for (unsigned i = 0; i <= IOK_URL_OPTIONS_MAX; i++) {
        n += (size_t)sprintf(text + n, "o%u=1&", i);
    }
    refuse(text, "32 options");
    free(text);
}

/* Someone forgot to escape: wherever the parts then fall, nothing of the password is told. */
static void test_password_is_never_shown(void **state)
{
    static const char *const urls[] = {
        "redis://u:" SECRET "/x@h:1", "redis://u:x/" SECRET "@h",          "redis://:" SECRET "?x@h",
        "redis://:x?" SECRET "@h",    "redis://:x?" SECRET "=1@h",         "redis://u:" SECRET "#x@h",
        "redis://u:x#" SECRET "@h",   "redis://u:" SECRET "%@h",           "redis://u:1/" SECRET "@h",
        "redis://u:1?a=" SECRET "@h", "redis://u:" SECRET "@h:x",          "redis://u:" SECRET "@h,i",
        "redis://u:" SECRET " @h",    "redis://u:" SECRET "@h?a",          "redis://:[" SECRET "@h",
        "redis://u:" SECRET "[@h:p",  "redis+unix://u:" SECRET "@h/run/s", "redis://u:1%2/" SECRET "@h",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
        struct iok_url url;
        struct iok_error err = {0};

        if (iok_url_parse(&url, urls[i], &err) == 0) {
            char text[200];

            iok_url_safe_text(&url, text, sizeof(text));
            if (strstr(text, SECRET) != NULL) {
                fail_msg("%s is shown as %s", urls[i], text);
            }
            iok_url_deinit(&url);
        } else if (strstr(err.text, SECRET) != NULL) {
            fail_msg("%s: %s", urls[i], err.text);
        }
    }
}

static void test_safe_text(void **state)
{
    struct iok_url url;
    char text[200], small[12];
    size_t n;

    (void)state;
    parse(&url, "redis://me:" SECRET "@h:1/x%0Ay%25?db=1&ssl_password=" SECRET "&name=a%26b%0d");
    n = iok_url_safe_text(&url, text, sizeof(text));
    assert_int_equal(n, strlen(text));
    /* No raw control character, and it reads back as the same URL. */
    assert_string_equal(text, "redis://me@h:1/x%0Ay%25?db=1&name=a%26b%0D");
    assert_int_equal(iok_url_safe_text(&url, small, sizeof(small)), 11);
    assert_string_equal(small, "redis://me@");
    iok_url_deinit(&url);
    parse(&url, "redis://:" SECRET "@h");
    iok_url_safe_text(&url, text, sizeof(text));
    assert_string_equal(text, "redis://h");
    iok_url_deinit(&url);
}

static int option_u64(const char *value, uint64_t *out)
{
    struct iok_url url;
    struct iok_error err = {0};
    char text[100];
    int rc;

    snprintf(text, sizeof(text), "x://h?k=%s", value);
    parse(&url, text);
    rc = iok_url_option_u64(&url, "k", 1, 64, out, &err);
    if (rc != 0) {
        assert_int_equal(rc, IOK_EOPTION);
        assert_non_null(strstr(err.text, "k"));
        assert_non_null(strstr(err.text, "64"));
    }
    iok_url_deinit(&url);
    return rc;
}

static int option_ns(const char *value, uint64_t max, uint64_t *out)
{
    struct iok_url url;
    struct iok_error err = {0};
    char text[100];
    int rc;

    snprintf(text, sizeof(text), "x://h?k=%s", value);
    parse(&url, text);
    rc = iok_url_option_duration(&url, "k", 1000000, max, out, &err);
    assert_true(rc == 0 || rc == IOK_EOPTION);
    iok_url_deinit(&url);
    return rc;
}

static int option_bytes(const char *value, uint64_t *out)
{
    struct iok_url url;
    struct iok_error err = {0};
    char text[100];
    int rc;

    snprintf(text, sizeof(text), "x://h?k=%s", value);
    parse(&url, text);
    rc = iok_url_option_bytes(&url, "k", 1, UINT64_MAX, out, &err);
    assert_true(rc == 0 || rc == IOK_EOPTION);
    iok_url_deinit(&url);
    return rc;
}

static void test_numbers(void **state)
{
    static const char *const bad[] = {"", "0", "65", "-1", "1.5", "x", "1x", "99999999999999999999"};
    uint64_t n = 7;

    (void)state;
    assert_int_equal(option_u64("64", &n), 0);
    assert_int_equal(n, 64);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(option_u64(bad[i], &n), IOK_EOPTION);
        assert_int_equal(n, 64);
    }
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"250ms", 250000000}, {"2s", 2000000000},  {"1m", 60000000000}, {"3", 3000000000},
                {"1.5s", 1500000000}, {"0.25", 250000000}, {"1ms", 1000000}};
    static const char *const bad[] = {"",
                                      "ms",
                                      "-1s",
                                      "1x",
                                      "1%20s",
                                      "0",
                                      "0.5ms",
                                      "1e3",
                                      "0x10",
                                      "1.s.",
                                      ".5s",
                                      "inf",
                                      "nan",
                                      "1ss",
                                      "999999999999999999999999h",
                                      "18446744073709551616"};
    uint64_t ns = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(option_ns(good[i].text, UINT64_MAX, &ns), 0);
        assert_true(ns == good[i].ns);
    }
    ns = 7;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        if (option_ns(bad[i], UINT64_MAX, &ns) == 0) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_int_equal(ns, 7);
    }
    assert_int_equal(option_ns("2m", 60000000000, &ns), IOK_EOPTION);
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") != NULL) {
        assert_int_equal(option_ns("1.5s", UINT64_MAX, &ns), 0);
        assert_int_equal(ns, 1500000000);
        setlocale(LC_NUMERIC, "C");
    }
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"1", 1}, {"64k", 65536}, {"16m", 16777216}, {"1g", 1073741824}};
    static const char *const bad[] = {"", "0", "k", "1kb", "-1", "0x10", "18446744073709551616", "99999999999999g"};
    uint64_t bytes = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(option_bytes(good[i].text, &bytes), 0);
        assert_true(bytes == good[i].bytes);
    }
    bytes = 7;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(option_bytes(bad[i], &bytes), IOK_EOPTION);
        assert_int_equal(bytes, 7);
    }
}

static void test_bools_and_defaults(void **state)
{
    struct iok_url url;
    struct iok_error err = {0};
    bool flag = false;
    uint64_t n = 5;

    (void)state;
    parse(&url, "x://h?yes=Yes&no=0&bad=maybe");
    assert_int_equal(iok_url_option_bool(&url, "yes", &flag, &err), 0);
    assert_true(flag);
    assert_int_equal(iok_url_option_bool(&url, "no", &flag, &err), 0);
    assert_false(flag);
    assert_int_equal(iok_url_option_bool(&url, "bad", &flag, &err), IOK_EOPTION);
    assert_non_null(strstr(err.text, "bad"));
    assert_int_equal(iok_url_option_bool(&url, "absent", &flag, &err), 0);
    assert_int_equal(iok_url_option_u64(&url, "absent", 1, 2, &n, &err), 0);
    assert_int_equal(iok_url_option_duration(&url, "absent", 1, 2, &n, &err), 0);
    assert_int_equal(iok_url_option_bytes(&url, "absent", 1, 2, &n, &err), 0);
    assert_int_equal(n, 5);
    iok_url_deinit(&url);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"timeout", "connections", "role", "db", NULL};
    static const char *const none[] = {NULL};
    char long_name[300];

    (void)state;
    assert_string_equal(iok_nearest(iok_span_of("timout"), names), "timeout");
    assert_string_equal(iok_nearest(iok_span_of("connection"), names), "connections");
    assert_string_equal(iok_nearest(iok_span_of("rolle"), names), "role");
    assert_null(iok_nearest(iok_span_of("banana"), names));
    assert_null(iok_nearest(iok_span_of("dc"), names)); /* a third of two is none */
    assert_null(iok_nearest(iok_span_of("timeout"), none));
    memset(long_name, 'x', sizeof(long_name));
    assert_null(iok_nearest(iok_span(long_name, sizeof(long_name)), names));
}

static void test_every_allocation_fails(void **state)
{
    struct iok_url url;
    struct iok_error err;
    unsigned long n = 1;
    int rc;

    (void)state;
    for (;; n++) {
        iok_mem_fail_at(n);
        rc = iok_url_parse(&url, "redis://u:p@h:1/2?a=b", &err);
        if (rc == 0) {
            break;
        }
        assert_int_equal(rc, IOK_ENOMEM);
        assert_null(url.storage);
    }
    assert_true(n > 1);
    iok_mem_fail_at(0);
    iok_url_deinit(&url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_userinfo),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_password_is_never_shown),
        cmocka_unit_test(test_safe_text),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bools_and_defaults),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_every_allocation_fails),
    };

    return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
