/* test_websocket_open.c - the opening of a WebSocket: requests and replies that are taken, those that are refused and how,
 * and what both roles agree on of permessage-deflate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../kit/websocket.h"

#define FIELDS_MAX 40u

/* "name: value\n" ... as tokens that point into the text. */
static size_t read_fields(const char *text, struct iok_token fields[FIELDS_MAX])
{
    size_t n = 0;
    while (*text != '\0') {
        size_t name = strcspn(text, ":"), line = strcspn(text, "\n");
        assert_true(n + 2 <= FIELDS_MAX && name < line);
        fields[n++] = (struct iok_token){.type = IOK_BYTES, .len = (uint32_t)name, .p = (const uint8_t *)text};
        fields[n++] = (struct iok_token){
            .type = IOK_BYTES, .len = (uint32_t)(line - name - 2), .p = (const uint8_t *)text + name + 2};
        text += line + (text[line] == '\n');
    }
    return n;
}

#define UPGRADE "upgrade: websocket\nconnection: Upgrade\n"
#define VERSION "sec-websocket-version: 13\n"
#define KEY "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n"
#define GOOD UPGRADE VERSION KEY

static int read_request(const char *method, int minor, const char *text, const struct iok_ws_deflate *wish,
                        struct iok_ws_opening *out, struct iok_error *err)
{
    struct iok_token fields[FIELDS_MAX];
    struct iok_ws_request request = {iok_span_of(method), minor, fields, read_fields(text, fields)};
    int status = 0;
    int rc = iok_ws_read_request(err, &request, wish, out, &status);
    assert_true(rc == 0 || (err->code == rc && err->text[0] != '\0'));
    return rc == 0 ? 101 : status;
}

static void test_accept(void **state)
{
    char accept[IOK_WS_ACCEPT_BYTES];
    (void)state;
    assert_true(iok_ws_accept_key(iok_span_of("dGhlIHNhbXBsZSBub25jZQ=="), accept)); /* RFC 6455, 1.3 */
    assert_memory_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", sizeof(accept));
    assert_false(iok_ws_accept_key(iok_span_of("short"), accept));
}

static void test_requests(void **state)
{
    static const struct {
        const char *method, *fields;
        int minor, status;
    } cases[] = {
        {"GET", GOOD, 1, 101},
        {"GET", "upgrade: h2c, WebSocket\nconnection: keep-alive, upgrade\n" VERSION KEY, 1, 101},
        {"GET", "upgrade: h2c\nupgrade: websocket\nconnection: keep-alive\nconnection: UPGRADE\n" VERSION KEY, 1, 101},
        {"GET", GOOD "content-length: 0\n", 1, 101},
        {"GET", GOOD "sec-websocket-protocol: a, b\nsec-websocket-protocol: c\n", 1, 101},
        {"GET", GOOD "sec-websocket-extensions: \n", 1, 101},
        {"GET", GOOD "sec-websocket-extensions: foo; bar=\"a,b;\\\"c\"; baz, , other\n", 1, 101},
        {"POST", GOOD, 1, 400},
        {"GET", GOOD, 0, 400},
        {"GET", "connection: Upgrade\n" VERSION KEY, 1, 400},
        {"GET", "upgrade: websocket\n" VERSION KEY, 1, 400},
        {"GET", "upgrade: websocket\nconnection: close\n" VERSION KEY, 1, 400},
        {"GET", UPGRADE KEY, 1, 400},
        {"GET", UPGRADE KEY VERSION VERSION, 1, 400},
        {"GET", UPGRADE KEY "sec-websocket-version: 8\n", 1, 426},
        {"GET", UPGRADE "sec-websocket-version: 14\n", 1, 426},
        {"GET", UPGRADE KEY "sec-websocket-version: 13, 8\n", 1, 426},
        {"GET", UPGRADE VERSION, 1, 400},
        {"GET", UPGRADE VERSION KEY KEY, 1, 400},
        {"GET", UPGRADE VERSION "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=\n", 1, 400},
        {"GET", UPGRADE VERSION "sec-websocket-key: dGhlIHNhbXBsZSBub25jZSE=\n", 1, 400},
        {"GET", UPGRADE VERSION "sec-websocket-key: !GhlIHNhbXBsZSBub25jZQ==\n", 1, 400},
        {"GET", GOOD "content-length: 5\n", 1, 400},
        {"GET", GOOD "transfer-encoding: chunked\n", 1, 400},
        {"GET", GOOD "sec-websocket-protocol: a b\n", 1, 400},
        {"GET", GOOD "sec-websocket-extensions: permessage-deflate; =\n", 1, 400},
        {"GET", GOOD "sec-websocket-extensions: permessage-deflate client_max_window_bits\n", 1, 400},
        {"GET", GOOD "sec-websocket-extensions: a; b=\n", 1, 400},
        {"GET", GOOD "sec-websocket-extensions: a; b=\"c\n", 1, 400},
        {"GET", GOOD "sec-websocket-extensions: a; b=\"c\\\n", 1, 400},
        {"GET", GOOD "sec-websocket-extensions: ;\n", 1, 400},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct iok_ws_opening opening;
        struct iok_error err;
        int status = read_request(cases[i].method, cases[i].minor, cases[i].fields,
                                  &(struct iok_ws_deflate){.on = true}, &opening, &err);
        if (status != cases[i].status)
            fail_msg("%d instead of %d (%s):\n%s", status, cases[i].status, status != 101 ? err.text : "",
                     cases[i].fields);
        if (status == 101)
            assert_memory_equal(opening.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", sizeof(opening.accept));
        assert_false(opening.deflate.on);
        assert_int_equal(opening.n_extensions, 0);
    }
}

static void test_is_asked_for(void **state)
{
    struct iok_token fields[FIELDS_MAX];
    struct iok_ws_request request = {.fields = fields};
    (void)state;
    request.n = read_fields("upgrade: h2c, WEBSOCKET\n", fields);
    assert_true(iok_ws_is_asked_for(&request));
    request.n = read_fields("upgrade: h2c\nx-upgrade: websocket\n", fields);
    assert_false(iok_ws_is_asked_for(&request));
    request.n = 0;
    assert_false(iok_ws_is_asked_for(&request));
}

static void test_protocols(void **state)
{
    struct iok_token fields[FIELDS_MAX];
    struct iok_ws_request request = {.fields = fields};
    struct iok_ws_protocols at = {0};
    struct iok_span protocol;
    const char *wanted[] = {"chat", "superchat", "v2.x"};
    (void)state;
    request.n = read_fields("a: b\nsec-websocket-protocol: chat, , superchat\nsec-websocket-protocol: v2.x\n", fields);
    for (size_t i = 0; i < 3; i++) {
        assert_true(iok_ws_next_protocol(&request, &at, &protocol));
        assert_true(iok_span_eq(protocol, iok_span_of(wanted[i])));
        assert_true(iok_ws_offers(&request, iok_span_of(wanted[i])));
    }
    assert_false(iok_ws_next_protocol(&request, &at, &protocol));
    assert_false(iok_ws_offers(&request, iok_span_of("Chat")));
    assert_false(iok_ws_offers(&request, iok_span_of("")));
}

#define PMD "permessage-deflate"
#define S_NC "; server_no_context_takeover"
#define C_NC "; client_no_context_takeover"
#define S_B "; server_max_window_bits"
#define C_B "; client_max_window_bits"

/* What a server makes of offers; and the client that made them takes its answer, and agrees. */
static void test_negotiation(void **state)
{
    static const struct {
        const char *offer;
        struct iok_ws_deflate wish;
        const char *answer;
        struct iok_ws_deflate agreed;
    } cases[] = {
        {PMD, {.on = true}, PMD, {true, false, false, 15, 15}},
        {PMD, {.on = false}, "", {0}},
        {"x-webkit-deflate-frame, " PMD C_B, {.on = true}, PMD, {true, false, false, 15, 15}},
        {PMD C_B, {true, false, false, 12, 11}, PMD S_B "=12" C_B "=11", {true, false, false, 12, 11}},
        {PMD C_B "=10", {true, false, false, 12, 11}, PMD S_B "=12" C_B "=10", {true, false, false, 12, 10}},
        {PMD, {true, false, false, 12, 11}, PMD S_B "=12", {true, false, false, 12, 15}},
        {PMD S_B "=9", {true, false, false, 12, 0}, PMD S_B "=9", {true, false, false, 9, 15}},
        {PMD S_B "=15", {.on = true}, PMD S_B "=15", {true, false, false, 15, 15}},
        {PMD S_B "=\"10\"", {.on = true}, PMD S_B "=10", {true, false, false, 10, 15}},
        {PMD S_B "=8" C_B "=8", {.on = true}, PMD S_B "=8" C_B "=8", {true, false, false, 8, 8}},
        {PMD S_NC, {.on = true}, PMD S_NC, {true, true, false, 15, 15}},
        {PMD C_NC, {.on = true}, PMD C_NC, {true, false, true, 15, 15}},
        {PMD, {true, true, true, 0, 0}, PMD S_NC C_NC, {true, true, true, 15, 15}},
        /* what is wrong is passed over */
        {PMD "; unknown", {.on = true}, "", {0}},
        {PMD S_NC "=1", {.on = true}, "", {0}},
        {PMD S_NC S_NC, {.on = true}, "", {0}},
        {PMD S_B, {.on = true}, "", {0}},
        {PMD S_B "=7", {.on = true}, "", {0}},
        {PMD S_B "=16", {.on = true}, "", {0}},
        {PMD S_B "=08", {.on = true}, "", {0}},
        {PMD S_B "=+9", {.on = true}, "", {0}},
        {PMD S_B "=9.0", {.on = true}, "", {0}},
        {PMD S_B "=\"\"", {.on = true}, "", {0}},
        {PMD C_B "=99", {.on = true}, "", {0}},
        {PMD C_B "=10" C_B "=10", {.on = true}, "", {0}},
        {"Permessage-Deflate", {.on = true}, "", {0}},
        {PMD S_B "=7, " PMD "; x, " PMD S_B "=10, " PMD S_B "=9",
         {.on = true},
         PMD S_B "=10",
         {true, false, false, 10, 15}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[600];
        struct iok_ws_opening opening;
        struct iok_error err;
        snprintf(text, sizeof(text), GOOD "sec-websocket-extensions: %s\n", cases[i].offer);
        assert_int_equal(read_request("GET", 1, text, &cases[i].wish, &opening, &err), 101);
        if (opening.n_extensions != strlen(cases[i].answer) ||
            memcmp(opening.extensions, cases[i].answer, opening.n_extensions) != 0)
            fail_msg("%s: %.*s", cases[i].offer, (int)opening.n_extensions, opening.extensions);
        assert_memory_equal(&opening.deflate, &cases[i].agreed, sizeof(opening.deflate));
    }
}

static const struct iok_host no_host;
static uint64_t fixed(struct iok_io *io)
{
    (void)io;
    return 7;
}

static void test_offers(void **state)
{
    static const struct {
        struct iok_ws_deflate wish;
        const char *offer;
    } cases[] = {
        {{.on = false}, ""},
        {{.on = true}, PMD C_B},
        {{true, true, true, 15, 15}, PMD S_NC C_NC C_B},
        {{true, false, false, 10, 9}, PMD S_B "=10" C_B "=9"},
        {{true, true, true, 10, 10}, PMD S_NC C_NC S_B "=10" C_B "=10"},
    };
    char at[IOK_WS_EXTENSION_BYTES], key[IOK_WS_KEY_BYTES], accept[IOK_WS_ACCEPT_BYTES];
    struct iok_host host = no_host;
    struct iok_io io = {.host = &host};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t n = iok_ws_write_offer(&cases[i].wish, at);
        assert_int_equal(n, strlen(cases[i].offer));
        assert_memory_equal(at, cases[i].offer, n);
    }
    host.random = fixed;
    assert_int_equal(iok_ws_make_key(&io, key), 0);
    assert_true(iok_ws_accept_key(iok_span(key, sizeof(key)), accept));
}

#define REPLY UPGRADE "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n"
#define EXTENSIONS "sec-websocket-extensions: "

static void test_replies(void **state)
{
    static const struct {
        const char *fields;
        struct iok_ws_deflate wish;
        int rc;
        struct iok_ws_deflate agreed;
    } cases[] = {
        {REPLY, {.on = true}, 0, {0}},
        {"upgrade: WebSocket\nconnection: upgrade\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n", {0}, 0, {0}},
        {"connection: upgrade\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n", {0}, IOK_EPROTO, {0}},
        {"upgrade: websocket\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n", {0}, IOK_EPROTO, {0}},
        {"upgrade: h2c\nconnection: upgrade\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n",
         {0},
         IOK_EPROTO,
         {0}},
        {UPGRADE, {0}, IOK_EPROTO, {0}},
        {UPGRADE "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\n", {0}, IOK_EPROTO, {0}},
        {REPLY "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n", {0}, IOK_EPROTO, {0}},
        {REPLY "sec-websocket-protocol: chat\n", {0}, 0, {0}},
        {REPLY "sec-websocket-protocol: other\n", {0}, IOK_EPROTO, {0}},
        {REPLY "sec-websocket-protocol: chat, v2\n", {0}, IOK_EPROTO, {0}},
        {REPLY "sec-websocket-protocol: chat\nsec-websocket-protocol: chat\n", {0}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD "\n", {.on = true}, 0, {true, false, false, 15, 15}},
        {REPLY EXTENSIONS PMD "\n", {.on = false}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD "\n" EXTENSIONS PMD "\n", {.on = true}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD ", foo\n", {.on = true}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS "foo\n", {.on = true}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS "foo bar\n", {.on = true}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD "; foo\n", {.on = true}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD C_B "\n", {.on = true}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD C_B "=10" S_B "=11" S_NC C_NC "\n", {.on = true}, 0, {true, true, true, 11, 10}},
        {REPLY EXTENSIONS PMD C_B "=12\n", {true, false, true, 0, 10}, 0, {true, false, true, 15, 10}},
        {REPLY EXTENSIONS PMD "\n", {true, true, false, 0, 0}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD S_NC "\n", {true, true, false, 0, 0}, 0, {true, true, false, 15, 15}},
        {REPLY EXTENSIONS PMD "\n", {true, false, false, 10, 0}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD S_B "=11\n", {true, false, false, 10, 0}, IOK_EPROTO, {0}},
        {REPLY EXTENSIONS PMD S_B "=9\n", {true, false, false, 10, 0}, 0, {true, false, false, 9, 15}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct iok_token fields[FIELDS_MAX];
        struct iok_ws_opening opening;
        struct iok_error err;
        size_t n = read_fields(cases[i].fields, fields);
        int rc = iok_ws_read_reply(&err, fields, n, "dGhlIHNhbXBsZSBub25jZQ==", iok_span_of("v2, chat"), &cases[i].wish,
                                   &opening);
        if (rc != cases[i].rc)
            fail_msg("%s instead of %d:\n%s", rc != 0 ? err.text : "taken", cases[i].rc, cases[i].fields);
        if (rc == 0)
            assert_memory_equal(&opening.deflate, &cases[i].agreed, sizeof(opening.deflate));
        if (rc == 0 && strstr(cases[i].fields, "chat") != NULL)
            assert_true(iok_span_eq(opening.protocol, iok_span_of("chat")));
    }
}

/* Whatever one role of ours offers, the other answers so that the first takes it, and both agree on the same. */
static void test_both_roles(void **state)
{
    static const uint8_t bits[] = {0, 8, 9, 12, 15};
    (void)state;
    for (unsigned i = 0; i < 16 * 625; i++) {
        struct iok_ws_deflate client = {true, i & 1, (i & 2) != 0, bits[i / 16 % 5], bits[i / 80 % 5]};
        struct iok_ws_deflate server = {true, (i & 4) != 0, (i & 8) != 0, bits[i / 400 % 5], bits[i / 2000 % 5]};
        struct iok_ws_opening at_server, at_client;
        struct iok_token fields[FIELDS_MAX];
        struct iok_error err;
        char offer[IOK_WS_EXTENSION_BYTES], text[600];
        int n = (int)iok_ws_write_offer(&client, offer);
        snprintf(text, sizeof(text), GOOD EXTENSIONS "%.*s\n", n, offer);
        assert_int_equal(read_request("GET", 1, text, &server, &at_server, &err), 101);
        snprintf(text, sizeof(text), UPGRADE "sec-websocket-accept: %.28s\n" EXTENSIONS "%.*s\n", at_server.accept,
                 (int)at_server.n_extensions, at_server.extensions);
        size_t n_fields = read_fields(text, fields);
        int rc =
            iok_ws_read_reply(&err, fields, n_fields, "dGhlIHNhbXBsZSBub25jZQ==", iok_span_of(""), &client, &at_client);
        if (rc != 0)
            fail_msg("%s:\n%s", err.text, text);
        assert_memory_equal(&at_server.deflate, &at_client.deflate, sizeof(at_client.deflate));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept),    cmocka_unit_test(test_requests),    cmocka_unit_test(test_is_asked_for),
        cmocka_unit_test(test_protocols), cmocka_unit_test(test_negotiation), cmocka_unit_test(test_offers),
        cmocka_unit_test(test_replies),   cmocka_unit_test(test_both_roles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
