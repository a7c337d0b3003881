/* test_url.c - service URLs: what is understood, what is refused and with which words, and what people get to see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../../src/base/url.h"

static void expect(struct iok_span part, const char *text)
{
    assert_int_equal(part.n, strlen(text));
    if (part.n != 0) {
        assert_string_equal((const char *)part.p, text); /* NUL-terminated, too */
    }
}

static void test_whole(void **state)
{
    struct iok_span value;
    struct iok_error err;
    struct iok_url url;
    char text[200];

    (void)state;
    assert_int_equal(
        iok_url_parse(&url, "Redis://us%65r:p%40ss:w@Cache.internal:6380/7?a=1&b=x%26y&c=&my_password=z", &err), 0);
    expect(url.scheme, "redis");
    expect(url.user, "user");
    expect(url.password, "p@ss:w");
    expect(url.hosts[0].name, "Cache.internal");
    expect(url.path, "7");
    assert_int_equal(url.hosts[0].port, 6380);
    assert_true(url.has_user && url.has_password && !url.unix_socket);
    assert_int_equal(url.n_options, 4);
    assert_true(iok_url_option(&url, "b", &value));
    expect(value, "x&y");
    assert_true(iok_url_option(&url, "c", &value));
    expect(value, "");
    assert_false(iok_url_option(&url, "d", &value));
    (void)iok_url_safe_text(&url, text, sizeof(text));
    assert_null(strstr(text, "p@ss"));
    assert_null(strstr(text, "my_password"));
    assert_non_null(strstr(text, "redis://user@Cache.internal:6380/7"));
    for (size_t cap = 1; cap < sizeof(text); cap++) {
        size_t n = iok_url_safe_text(&url, text, cap);

        assert_true(n < cap && strlen(text) == n);
    }
    iok_url_deinit(&url);
    iok_url_deinit(&url); /* does nothing */
}

static void test_forms(void **state)
{
    struct iok_error err;
    struct iok_url url;
    char text[100];

    (void)state;
    assert_int_equal(iok_url_parse(&url, "line://[::1]:7", &err), 0);
    expect(url.hosts[0].name, "::1");
    assert_int_equal(url.hosts[0].port, 7);
    (void)iok_url_safe_text(&url, text, sizeof(text));
    assert_string_equal(text, "line://[::1]:7");
    iok_url_deinit(&url);

    assert_int_equal(iok_url_parse(&url, "redis+unix://:pw@/run/redis.sock?db=1", &err), 0);
    expect(url.scheme, "redis");
    expect(url.path, "/run/redis.sock");
    expect(url.password, "pw");
    assert_true(url.unix_socket && !url.has_user && url.has_password);
    (void)iok_url_safe_text(&url, text, sizeof(text));
    assert_string_equal(text, "redis+unix:///run/redis.sock?db=1");
    iok_url_deinit(&url);

    assert_int_equal(iok_url_parse(&url, "unix:///a%20b", &err), 0);
    expect(url.path, "/a b");
    iok_url_deinit(&url);

    assert_int_equal(iok_url_parse(&url, "redis://h", &err), 0);
    assert_int_equal(url.hosts[0].port, 0);
    assert_int_equal(url.path.n, 0);
    iok_url_deinit(&url);
}

static void test_bad(void **state)
{
    static const struct {
        const char *url;
        int code;
        const char *names;
    } cases[] = {
        {NULL, IOK_EURL, "empty"},
        {"", IOK_EURL, "empty"},
        {"redis", IOK_EURL, "no scheme"},
        {"redis:/h", IOK_EURL, "no scheme"},
        {"://h", IOK_EURL, "no scheme"},
        {"re dis://h", IOK_EURL, "byte 2"},
        {"r_d://h", IOK_EURL, "bad scheme"},
        {"redis://h:0", IOK_EURL, "bad port"},
        {"redis://h:65536", IOK_EURL, "1 to 65535"},
        {"redis://h:", IOK_EURL, "bad port"},
        {"redis://user:pw", IOK_EURL, "@host"},
        {"redis://[h]", IOK_EURL, "IPv6 in brackets"},
        {"redis://[]", IOK_EURL, "IPv6 in brackets"},
        {"redis://[::1", IOK_EURL, "']'"},
        {"redis://[::1]x", IOK_EURL, "']'"},
        {"redis://a,", IOK_EURL, "empty host"},
        {"redis://,a", IOK_EURL, "empty host"},
        {"redis://a,,b", IOK_EURL, "empty host"},
        {"redis://a,b:0", IOK_EURL, "bad port"},
        {"redis://a,b_!", IOK_EURL, "bad host"},
        {"redis://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", IOK_EURL, "more than 16 hosts"},
        {"redis://%2F", IOK_EURL, "bad host"},
        {"redis://h/%4", IOK_EURL, "escape in the path"},
        {"redis://h/%zz", IOK_EURL, "escape"},
        {"redis://u%00@h", IOK_EURL, "not 00"},
        {"redis://h?a", IOK_EOPTION, "name=value"},
        {"redis://h?=1", IOK_EOPTION, "name=value"},
        {"redis://h?a=1&a=2", IOK_EOPTION, "twice"},
        {"redis://h#x", IOK_EURL, "fragment"},
        {"redis://h?a=1#x", IOK_EURL, "fragment"},
        {"redis+unix://host/p", IOK_EURL, "no host"},
        {"unix://", IOK_EURL, "no path"},
        {"redis://h\x7f", IOK_EURL, "control"},
    };
    char many[1000] = "redis://h?", *at = many + strlen(many);
    char *longest = calloc(1, IOK_URL_BYTES_MAX + 2);
    struct iok_error err;
    struct iok_url url;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(iok_url_parse(&url, cases[i].url, &err), cases[i].code);
        if (err.code != cases[i].code || strstr(err.text, cases[i].names) == NULL) {
            fail_msg("%s: %s", cases[i].url, err.text);
        }
    }
    for (unsigned i = 0; i <= IOK_URL_OPTIONS_MAX; i++) {
        at += sprintf(at, "o%u=1&", i);
    }
    assert_int_equal(iok_url_parse(&url, many, &err), IOK_EURL);
    assert_non_null(longest);
    memset(longest, 'a', IOK_URL_BYTES_MAX + 1);
    assert_int_equal(iok_url_parse(&url, longest, &err), IOK_EURL);
    free(longest);
    assert_int_equal(iok_url_parse(&url, "redis://u:secr%et@h", &err), IOK_EURL);
    assert_null(strstr(err.text, "secr"));
    assert_int_equal(iok_url_parse(&url, "redis://user:secret", &err), IOK_EURL);
    assert_null(strstr(err.text, "secret"));
    assert_int_equal(iok_url_parse(&url, "redis://h?a%0a%1b=1&a%0a%1b=2", &err), IOK_EOPTION);
    assert_non_null(strstr(err.text, "'a?\?'")); /* one line, whatever it quotes */
    iok_mem_fail_at(1);
    assert_int_equal(iok_url_parse(&url, "redis://h", &err), IOK_ENOMEM);
    iok_mem_fail_at(0);
}

static void test_options(void **state)
{
    struct iok_error err;
    struct iok_url url;
    uint64_t n = 7;
    bool flag = false;

    (void)state;
    assert_int_equal(iok_url_parse(&url, "r://h?n=42&ms=250ms&s=2&m=1.5m&k=64k&g=1g&y=YES&no=0&bad=-1&word=x", &err),
                     0);
    assert_int_equal(iok_url_option_u64(&url, "absent", 1, 9, &n, &err), 0);
    assert_int_equal(n, 7);
    assert_int_equal(iok_url_option_u64(&url, "n", 1, 42, &n, &err), 0);
    assert_int_equal(n, 42);
    assert_int_equal(iok_url_option_u64(&url, "n", 1, 41, &n, &err), IOK_EOPTION);
    assert_non_null(strstr(err.text, "n=42: expected a whole number from 1 to 41"));
    assert_int_equal(iok_url_option_u64(&url, "bad", 0, 41, &n, &err), IOK_EOPTION);
    assert_int_equal(iok_url_option_duration(&url, "ms", 0, UINT64_MAX, &n, &err), 0);
    assert_int_equal(n, 250000000);
    assert_int_equal(iok_url_option_duration(&url, "s", 0, UINT64_MAX, &n, &err), 0);
    assert_int_equal(n, 2000000000);
    assert_int_equal(iok_url_option_duration(&url, "m", 0, UINT64_MAX, &n, &err), 0);
    assert_int_equal(n, 90000000000);
    assert_int_equal(iok_url_option_duration(&url, "word", 0, UINT64_MAX, &n, &err), IOK_EOPTION);
    assert_int_equal(iok_url_option_duration(&url, "bad", 0, UINT64_MAX, &n, &err), IOK_EOPTION);
    assert_int_equal(iok_url_option_duration(&url, "s", 0, 1000000000, &n, &err), IOK_EOPTION);
    assert_int_equal(iok_url_option_bytes(&url, "k", 0, UINT64_MAX, &n, &err), 0);
    assert_int_equal(n, 65536);
    assert_int_equal(iok_url_option_bytes(&url, "g", 0, UINT64_MAX, &n, &err), 0);
    assert_int_equal(n, 1073741824);
    assert_int_equal(iok_url_option_bytes(&url, "ms", 0, UINT64_MAX, &n, &err), IOK_EOPTION);
    assert_int_equal(iok_url_option_bool(&url, "y", &flag, &err), 0);
    assert_true(flag);
    assert_int_equal(iok_url_option_bool(&url, "no", &flag, &err), 0);
    assert_false(flag);
    assert_int_equal(iok_url_option_bool(&url, "word", &flag, &err), IOK_EOPTION);
    iok_url_deinit(&url);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"timeout", "connect_timeout", "ping", NULL};

    (void)state;
    assert_string_equal(iok_nearest(iok_span_of("timeuot"), names), "timeout");
    assert_string_equal(iok_nearest(iok_span_of("pin"), names), "ping");
    assert_string_equal(iok_nearest(iok_span_of("conect_timeout"), names), "connect_timeout");
    assert_null(iok_nearest(iok_span_of("colour"), names));
    assert_null(iok_nearest(iok_span_of(""), names));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),   cmocka_unit_test(test_forms),   cmocka_unit_test(test_bad),
        cmocka_unit_test(test_options), cmocka_unit_test(test_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
