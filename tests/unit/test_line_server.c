/* test_line_server.c - the line codec's server role where it meets what is wrong. The kit plays it against the client's
 * role with every transcript, see tests/proto. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../kit/kit.h"

static void open_server(struct kit_host *host)
{
    bool tls;

    *host = (struct kit_host){.server = true};
    kit_host_open(host, iok_proto_find(iok_span_of("line"), &tls), "line://h:1", 1 << 20);
}

static void test_bad_answers(void **state)
{
    struct iok_token token = {.type = IOK_TEXT, .len = 3, .p = (const uint8_t *)"a\nb"};
    struct kit_host host;

    (void)state;
    open_server(&host);
    kit_host_recv(&host, iok_span_of("asked\n"));
    assert_string_equal(host.events.p, "request bytes \"asked\"\n");
    kit_host_answer(&host, &token, 1);
    kit_host_answer(&host, &token, 0);
    token.type = IOK_NULL;
    kit_host_answer(&host, &token, 1);
    assert_non_null(strstr(host.events.p, "refused IOK_EINVAL \"a line cannot hold a newline\""));
    assert_non_null(strstr(host.events.p, "refused IOK_EINVAL \"a line message takes one"));
    assert_non_null(strstr(host.events.p, "refused IOK_ETYPE"));
    assert_int_equal(host.sent.n, 0);
    assert_int_equal(host.n_requests, 1); /* it may still be answered */
    token = (struct iok_token){.type = IOK_TEXT, .len = 1, .p = (const uint8_t *)"a"};
    kit_host_answer(&host, &token, 1);
    assert_string_equal(host.sent.p, "a\n");
    assert_true(kit_host_close(&host));
}

static void test_bad_requests(void **state)
{
    struct kit_host host;
    char *line = calloc(1, 70000);

    (void)state;
    assert_non_null(line);
    memset(line, 'x', 69999);
    open_server(&host);
    kit_host_recv(&host, iok_span_of("half"));
    assert_int_equal(host.events.n, 0);
    kit_host_recv(&host, iok_span_of(line));
    assert_int_equal(host.failed, IOK_ELIMIT);
    assert_true(kit_host_close(&host));
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_answers),
        cmocka_unit_test(test_bad_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
