/* test_serve_proxy.c - the PROXY protocol in front of requests, on a simulated network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

#define GET "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
#define V2 "\r\n\r\n\0\r\nQUIT\n"

static const struct {
    const char *bytes;
    size_t n;
    const char *client; /* NULL: refused */
    bool encrypted;
} cases[] = {
#define CASE(bytes, client, encrypted)                                                                                 \
    {                                                                                                                  \
        bytes, sizeof(bytes) - 1, client, encrypted                                                                    \
    }
    CASE("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n", "192.0.2.7:56324", false),
    CASE("PROXY TCP6 2001:db8::7 2001:db8::1 5 443\r\n", "[2001:db8::7]:5", false),
    CASE("PROXY UNKNOWN\r\n", "unknown", false),
    CASE("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "unknown", false),
    CASE(V2 "\x21\x00\x00\x00", "unknown", false),
    CASE(V2 "\x21\x00\x00\x08\x20\x00\x05\x01\x00\x00\x00\x00", "unknown", true),
    CASE(V2 "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\xdc\x04\x01\xbb", "192.0.2.7:56324", false),
    CASE(V2 "\x21\x11\x00\x14\xc0\x00\x02\x07\xc0\x00\x02\x01\xdc\x04\x01\xbb\x20\x00\x05\x01\x00\x00\x00\x00",
         "192.0.2.7:56324", true),
    CASE(
        V2
        "\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x05\0\x06",
        "[2001:db8::7]:5", false),
    CASE(V2 "\x20\x00\x00\x00", "10.0.0.1:5001", false),
    CASE("GET", NULL, false),
    CASE("PROXY TCP4 nowhere 192.0.2.1 56324 443\r\n", NULL, false),
    CASE("PROXY TCP4 2001:db8::7 192.0.2.1 56324 443\r\n", NULL, false),
    CASE("PROXY TCP4 192.0.2.7 192.0.2.1 66324 443\r\n", NULL, false),
    CASE("PROXY TCP5 192.0.2.7 192.0.2.1 6632 443\r\n", NULL, false),
    CASE(
        "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443 and more words than one hundred and seven bytes, as nobody has to take "
        "them",
        NULL, false),
    CASE(V2 "\x31\x11\x00\x00", NULL, false),
    CASE(V2 "\x21\x11\x00\x04\xc0\x00\x02\x07", NULL, false),
    CASE(V2 "\x21\x11\xff\xff", NULL, false),
};

/* Whole, and byte by byte. */
static void test_what_a_proxy_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int cut = 0; cut < 2; cut++) {
            struct house h;
            struct iok_call *call;
            struct iok_link *link;

            house_open(&h, "http://127.0.0.1:8000/?proxy=yes&proxy_from=10.0.0.0/29,::1");
            call = house_call(&h);
            link = sim_client(&h.w->sim);
            for (size_t at = 0; at < cases[i].n && !link->dead; at += cut ? 1 : cases[i].n) {
                sim_arrive_bytes(link, cases[i].bytes + at, cut ? 1 : cases[i].n);
            }
            assert_int_equal(link->dead, cases[i].client == NULL);
            if (!link->dead) {
                sim_arrive(link, GET);
                assert_ptr_equal(house_poll(&h), call);
                assert_string_equal(iok_call_endpoint(call), cases[i].client);
                assert_int_equal(iok_serve_is_encrypted(call), cases[i].encrypted);
                house_answer(&h, call, 200, "ok");
            }
            house_close(&h);
        }
    }
}

static void test_who_may_say_so(void **state)
{
    struct house h;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?proxy=yes&proxy_from=10.0.0.0/31&handshake_timeout=3s");
    house_call(&h);
    link = sim_client(&h.w->sim); /* 10.0.0.1 */
    assert_false(link->dead);
    assert_true(sim_client(&h.w->sim)->dead); /* 10.0.0.2 */
    world_advance(h.w, 4 * SIM_S);
    assert_true(link->dead); /* it did not say anything */
    house_close(&h);
}

static void test_bad_options(void **state)
{
    static const char *const urls[] = {"http://127.0.0.1:8000/?proxy=yes&proxy_from=10.0.0.0/33",
                                       "http://127.0.0.1:8000/?proxy=yes&proxy_from=there",
                                       "http://127.0.0.1:8000/?proxy_from=10.0.0.1"};
    struct world *w = world_new(NULL);
    struct iok_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        assert_null(iok_listener_new(w->port, urls[i], &err));
        assert_int_equal(err.code, IOK_EOPTION);
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_proxy_says),
        cmocka_unit_test(test_who_may_say_so),
        cmocka_unit_test(test_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
