/* test_serve_upgrade.c - answers that change the protocol, on a simulated network: WebSocket, and bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

#define OPENING                                                                                                        \
    "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"      \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" /* RFC 6455, 1.3 */

static void answer_101(struct iok_call *call, enum iok_upgrade_to to, const char *name, const char *value)
{
    iok_serve_upgrade(call, to);
    iok_call_array(call, 4);
    iok_call_i64(call, 101);
    iok_call_null(call);
    iok_call_array(call, name != NULL ? 2 : 0);
    if (name != NULL) {
        iok_call_text(call, name, strlen(name));
        iok_call_text(call, value, strlen(value));
    }
    iok_call_null(call);
    assert_int_equal(iok_submit(call), 0);
}

static struct iok_link *open_websocket(struct house *h, struct iok_call *call)
{
    struct iok_link *link = sim_client(&h->w->sim);

    sim_arrive(link, OPENING "\r\n");
    assert_ptr_equal(house_poll(h), call);
    answer_101(call, IOK_UPGRADE_WEBSOCKET, NULL, NULL);
    world_run(h->w);
    assert_string_equal(link->got, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                                   "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    sim_clear(link);
    return link;
}

/* A client's frame, masked by zeros. */
static void arrive_frame(struct iok_link *link, uint8_t opcode, const char *payload)
{
    uint8_t frame[128] = {(uint8_t)(0x80 | opcode), (uint8_t)(0x80 | strlen(payload))};

    memcpy(frame + 6, payload, strlen(payload));
    sim_arrive_bytes(link, frame, 6 + strlen(payload));
}

static void take_news(struct house *h)
{
    world_run(h->w);
    while (iok_poll(h->w->port) != NULL) {
    }
}

static void expect_text(struct house *h, struct iok_call *call, const char *text)
{
    const struct iok_token *token;
    size_t n;

    take_news(h);
    token = iok_call_message(call, &n);
    assert_non_null(token);
    assert_int_equal(token->type, IOK_TEXT);
    assert_int_equal(token->len, strlen(text));
    assert_memory_equal(token->p, text, token->len);
    iok_call_next(call);
}

static struct iok_call *send_text(struct iok_call *call, const char *text, bool end)
{
    struct iok_call *part = iok_part_new(call, NULL);

    assert_non_null(part);
    if (text != NULL) {
        iok_call_text(part, text, strlen(text));
    }
    if (end) {
        iok_part_end(part);
    }
    assert_int_equal(iok_submit(part), 0);
    return part;
}

static void expect_sent(struct house *h, struct iok_call *part, enum iok_outcome outcome)
{
    struct iok_call *news;

    world_run(h->w);
    while ((news = iok_poll(h->w->port)) != NULL && news != part) {
    }
    assert_ptr_equal(news, part);
    assert_string_equal(iok_outcome_name(iok_call_outcome(part)), iok_outcome_name(outcome));
    iok_call_free(part);
}

static void test_a_websocket(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = open_websocket(&h, call);
    arrive_frame(link, 1, "hello");
    arrive_frame(link, 1, "again");
    expect_text(&h, call, "hello");
    expect_text(&h, call, "again");
    expect_sent(&h, send_text(call, "hi", false), IOK_DONE);
    assert_memory_equal(link->got, "\x81\x02hi", 4);
    sim_clear(link);
    arrive_frame(link, 9, "p"); /* answered here */
    assert_memory_equal(link->got, "\x8a\x01p", 3);
    sim_clear(link);
    expect_sent(&h, send_text(call, NULL, true), IOK_DONE); /* the program ends it */
    assert_memory_equal(link->got, "\x88\x02\x03\xe8", 4);
    assert_true(link->shut);
    sim_end(link);
    assert_true(link->dead);
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    house_answer(&h, call, 200, "ok");
    house_close(&h);
}

static void take_close(struct iok_call *call, int code)
{
    const struct iok_token *token;
    size_t n;

    token = iok_call_message(call, &n);
    assert_non_null(token);
    assert_int_equal(token->type, IOK_PUSH);
    assert_memory_equal(token[1].p, "close", 5);
    assert_int_equal(token[2].i, code);
    iok_call_next(call);
}

static void test_a_websocket_whose_client_goes(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = open_websocket(&h, call);
    arrive_frame(link, 1, "last words");
    sim_end(link); /* without a word */
    assert_true(link->dead);
    expect_text(&h, call, "last words");
    take_close(call, 1006);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
    assert_int_equal(iok_submit(call), 0);
    house_close(&h);
}

/* What the program has to say of what came before goes out before the answer to the close. */
static void test_a_websocket_that_the_client_closes(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    for (int how = 0; how < 4; how++) {
        call = house_call(&h);
        link = open_websocket(&h, call);
        arrive_frame(link, 1, "first");
        arrive_frame(link, 1, "last");
        arrive_frame(link, 8, "\x03\xe9");
        assert_string_equal(link->got, "");
        assert_true(link->reading && !link->shut && !link->dead);
        expect_text(&h, call, "first");
        world_advance(h.w, 4 * SIM_S);
        expect_text(&h, call, "last");
        expect_sent(&h, send_text(call, "echo", false), IOK_DONE);
        assert_memory_equal(link->got,
                            "\x81\x04"
                            "echo",
                            6);
        assert_int_equal(link->n_got, 6);
        sim_clear(link);
        if (how == 0) { /* it wants to hear more */
            struct iok_call *part = send_text(call, "ok", false);

            take_close(call, 1001);
            expect_sent(&h, part, IOK_DONE);
            assert_memory_equal(link->got, "\x81\x02ok\x88\x02\x03\xe9", 8);
            assert_true(link->dead);
            assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
            expect_sent(&h, send_text(call, "late", true), IOK_NEVER_SENT);
        } else if (how == 1) { /* it ends */
            expect_sent(&h, send_text(call, "bye", true), IOK_DONE);
            assert_memory_equal(link->got,
                                "\x81\x03"
                                "bye\x88\x02\x03\xe9",
                                9);
            assert_true(link->dead);
        } else { /* it does neither for too long, or the client does not wait */
            if (how == 2) {
                world_advance(h.w, 2 * SIM_S);
                assert_memory_equal(link->got, "\x88\x02\x03\xe9", 4);
                assert_true(link->dead);
            } else {
                sim_fail(link, IOK_ERESET);
            }
            take_news(&h);
            assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
            take_close(call, 1001);
            assert_int_equal(iok_submit(call), 0);
        }
        house_get(sim_client(&h.w->sim), "/");
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
        house_answer(&h, call, 200, "ok");
        iok_call_free(call);
        world_run(h.w);
    }
    house_close(&h);
}

/* The kernel learns of all of it in one turn, in its order. */
static void test_a_program_that_is_quicker_than_the_kernel(void **state)
{
    struct house h;
    struct iok_call *call, *part;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = open_websocket(&h, call);
    for (int i = 0; i < 40; i++) {
        arrive_frame(link, 1, "m");
    }
    arrive_frame(link, 8, "\x03\xe8");
    take_news(&h);
    for (int i = 0; i < 40; i++) {
        size_t n;

        assert_non_null(iok_call_message(call, &n));
        iok_call_next(call);
    }
    part = send_text(call, "echo", false);
    take_close(call, 1000);
    expect_sent(&h, part, IOK_DONE);
    assert_memory_equal(link->got,
                        "\x81\x04"
                        "echo\x88\x02\x03\xe8",
                        10);
    assert_true(link->dead);
    house_close(&h);
}

/* A close behind more than is read ahead, and taken slowly. */
static void test_a_close_behind_many_messages(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    int sent = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = open_websocket(&h, call);
    for (; link->reading; sent++) {
        arrive_frame(link, 1, "m");
    }
    for (int i = 0; i < sent; i++) {
        expect_text(&h, call, "m");
        world_run(h.w);
        if (i == 30) {
            assert_true(link->reading);
            arrive_frame(link, 8, "\x03\xe8");
        }
        assert_string_equal(link->got, "");
    }
    expect_sent(&h, send_text(call, "all", false), IOK_DONE);
    sim_accept(link, 2); /* to a client that reads slowly */
    take_close(call, 1000);
    world_run(h.w);
    assert_false(link->dead);
    expect_sent(&h, send_text(call, "late", false), IOK_NEVER_SENT);
    sim_accept(link, SIZE_MAX);
    assert_memory_equal(link->got,
                        "\x81\x03"
                        "all\x88\x02\x03\xe8",
                        9);
    assert_int_equal(link->n_got, 9);
    assert_true(link->dead);
    house_close(&h);
}

static void test_openings_that_are_wrong(void **state)
{
    static const struct {
        const char *request, *name, *value, *why;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", NULL, NULL, "Upgrade: websocket"},
        {OPENING "Content-Length: 1\r\n\r\nx", NULL, NULL, "without a body"},
        {OPENING "\r\n", "Sec-WebSocket-Protocol", "chat", "does not offer"},
        {OPENING "\r\n", "Sec-WebSocket-Accept", "x", "leave out"},
        {OPENING "\r\n", "X-Bad", "a\rb", "line break"},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", NULL, NULL, "HTTP/1.1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct house h;
        struct iok_call *call;
        struct iok_link *link;
        struct iok_error err;

        house_open(&h, "http://127.0.0.1:8000");
        call = house_call(&h);
        link = sim_client(&h.w->sim);
        sim_arrive(link, cases[i].request);
        assert_ptr_equal(house_poll(&h), call);
        answer_101(call, IOK_UPGRADE_WEBSOCKET, cases[i].name, cases[i].value);
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_call_error(call, &err), IOK_EINVAL);
        if (strstr(err.text, cases[i].why) == NULL) {
            fail_msg("expected '%s': %s", cases[i].why, err.text);
        }
        assert_string_equal(link->got, "");
        house_answer(&h, call, 400, "no");
        assert_non_null(strstr(link->got, "HTTP/1.1 400"));
        house_close(&h);
    }
}

static void test_a_subprotocol_and_a_bad_message(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, OPENING "Sec-WebSocket-Protocol: a, b\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    answer_101(call, IOK_UPGRADE_WEBSOCKET, "sec-websocket-protocol", "b");
    world_run(h.w);
    assert_non_null(strstr(link->got, "sec-websocket-protocol: b\r\n"));
    expect_sent(&h, send_text(call, "\xff", false), IOK_NEVER_SENT); /* no UTF-8: and the others go on */
    sim_clear(link);
    expect_sent(&h, send_text(call, "x", false), IOK_DONE);
    assert_memory_equal(link->got, "\x81\x01x", 3);
    house_close(&h);
}

static void test_a_client_that_is_silent(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?ws_ping=20s");
    call = house_call(&h);
    link = open_websocket(&h, call);
    world_advance(h.w, 19 * SIM_S);
    assert_string_equal(link->got, "");
    world_advance(h.w, 2 * SIM_S);
    assert_memory_equal(link->got, "\x89\x00", 2);
    arrive_frame(link, 10, "");
    world_advance(h.w, 19 * SIM_S);
    assert_false(link->dead);
    world_advance(h.w, 2 * SIM_S); /* asked once more, and then given up */
    assert_false(link->dead);
    world_advance(h.w, 20 * SIM_S);
    assert_true(link->dead);
    while (house_poll(&h) != NULL) {
    }
    assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
    house_close(&h);
}

/* What is not taken is not read. */
static void test_messages_are_bounded(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    int sent = 0, taken = 0;
    size_t n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = open_websocket(&h, call);
    while (link->reading) {
        arrive_frame(link, 1, "m");
        sent++;
    }
    assert_in_range(sent, 40, 64);
    for (;;) {
        world_run(h.w);
        while (iok_poll(h.w->port) != NULL) {
        }
        if (iok_call_message(call, &n) == NULL) {
            break;
        }
        iok_call_next(call);
        taken++;
    }
    assert_int_equal(taken, sent);
    world_run(h.w);
    assert_true(link->reading);
    house_close(&h);
}

static void test_bytes(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    const struct iok_token *token;
    size_t n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: own\r\n\r\nearly");
    assert_ptr_equal(house_poll(&h), call);
    answer_101(call, IOK_UPGRADE_RAW, "Upgrade", "own");
    world_run(h.w);
    assert_string_equal(link->got, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nUpgrade: own\r\n\r\n");
    sim_clear(link);
    assert_ptr_equal(house_poll(&h), call);
    token = iok_call_message(call, &n);
    assert_int_equal(token->type, IOK_BYTES);
    assert_memory_equal(token->p, "early", 5);
    iok_call_next(call);
    sim_end(link);
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_call_message(call, &n)->type, IOK_ARRAY);
    iok_call_next(call);
    assert_false(link->dead); /* it may still read */
    world_advance(h.w, 3600 * SIM_S);
    expect_sent(&h, send_text(call, "late", false), IOK_DONE);
    expect_sent(&h, send_text(call, "r", true), IOK_DONE);
    assert_string_equal(link->got, "later");
    assert_true(link->dead);
    house_close(&h);
}

/* Whatever came before: the time of what is opened begins. */
static void test_a_silent_client_of_a_slow_program(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link = NULL;
    size_t n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?ws_ping=20s");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, OPENING "\r\n");
    assert_ptr_equal(house_poll(&h), call);
    world_advance(h.w, 15 * SIM_S); /* what was armed for the head fires meanwhile */
    answer_101(call, IOK_UPGRADE_WEBSOCKET, NULL, NULL);
    world_run(h.w);
    sim_clear(link);
    world_advance(h.w, 21 * SIM_S);
    assert_memory_equal(link->got, "\x89\x00", 2);
    arrive_frame(link, 10, "");
    while (link->reading) { /* the same after a hold */
        arrive_frame(link, 1, "m");
    }
    sim_clear(link);
    world_advance(h.w, 3600 * SIM_S);
    assert_string_equal(link->got, "");
    take_news(&h);
    while (iok_call_message(call, &n) != NULL) {
        iok_call_next(call);
    }
    world_run(h.w);
    assert_true(link->reading);
    world_advance(h.w, 21 * SIM_S);
    assert_memory_equal(link->got, "\x89\x00", 2);
    world_advance(h.w, 21 * SIM_S);
    assert_true(link->dead);
    house_close(&h);
}

/* What the protocol itself sends has its own time, from then on. */
static void test_a_pong_to_a_slow_client(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?write_timeout=5s&ws_ping=0");
    call = house_call(&h);
    link = open_websocket(&h, call);
    world_advance(h.w, 60 * SIM_S);
    sim_accept(link, 0);
    arrive_frame(link, 9, "p");
    world_advance(h.w, 4 * SIM_S);
    assert_false(link->dead);
    sim_accept(link, SIZE_MAX);
    assert_memory_equal(link->got, "\x8a\x01p", 3);
    sim_accept(link, 0);
    arrive_frame(link, 9, "p");
    world_advance(h.w, 6 * SIM_S);
    assert_true(link->dead);
    house_close(&h);
}

/* A reset would take the close away: so what the client still sends is read, for a moment. */
static void test_a_websocket_that_fails(void **state)
{
    struct house h;
    struct iok_call *call, *part;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    for (int how = 0; how < 3; how++) {
        call = house_call(&h);
        link = open_websocket(&h, call);
        arrive_frame(link, 3, "no such opcode");
        assert_memory_equal(link->got + 2, "\x03\xea", 2);
        assert_true(link->shut);
        assert_false(link->dead);
        take_news(&h);
        take_close(call, 1002);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE); /* although the connection is still there */
        if (how == 0) {
            assert_int_equal(iok_submit(call), 0);
        } else {
            expect_sent(&h, send_text(call, "to nobody", false), IOK_NEVER_SENT);
            part = send_text(call, NULL, true);
            expect_sent(&h, part, IOK_NEVER_SENT);
        }
        house_get(sim_client(&h.w->sim), "/");
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
        house_answer(&h, call, 200, "ok");
        assert_false(link->dead);
        if (how == 1) {
            world_advance(h.w, 3 * SIM_S);
        } else {
            sim_end(link);
        }
        assert_true(link->dead);
        iok_call_free(call);
        world_run(h.w);
    }
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_websocket),
        cmocka_unit_test(test_a_websocket_whose_client_goes),
        cmocka_unit_test(test_a_websocket_that_the_client_closes),
        cmocka_unit_test(test_a_program_that_is_quicker_than_the_kernel),
        cmocka_unit_test(test_a_close_behind_many_messages),
        cmocka_unit_test(test_openings_that_are_wrong),
        cmocka_unit_test(test_a_subprotocol_and_a_bad_message),
        cmocka_unit_test(test_a_client_that_is_silent),
        cmocka_unit_test(test_messages_are_bounded),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_a_silent_client_of_a_slow_program),
        cmocka_unit_test(test_a_pong_to_a_slow_client),
        cmocka_unit_test(test_a_websocket_that_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
