/* test_websocket_kernel.c - a client's WebSocket within the kernel, on the simulated network: its opening, messages that
 * the program does not take, and the close that goes out even if the program lets go at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/proto/websocket.h"
#include "simnet.h"

#define URL "http://10.0.0.1?connections=1&leases=1"

struct socket {
    struct world *w;
    struct iok_lease *lease;
    struct iok_call *call;
    struct iok_link *link;
};

/* What the core takes of it before it reads no more. */
static size_t arrive_some(struct iok_link *link, const uint8_t *bytes, size_t left)
{
    size_t used = 0, n;

    while (link->reading && used < left) {
        uint8_t *at = link->events->read_space(link->owner, &n);

        assert_non_null(at);
        n = n < left - used ? n : left - used;
        memcpy(at, bytes + used, n);
        used += n;
        link->events->arrived(link->owner, n);
    }
    return used;
}

/* with: what comes right behind the answer. Gives how much of it is taken. */
static size_t open_with(struct socket *s, const char *options, const void *with, size_t n_with)
{
    char accept[IOK_WS_ACCEPT_BYTES], url[128];
    char *answer = malloc(256 + n_with);
    const char *key;
    size_t n, n_message;

    assert_non_null(answer);
    snprintf(url, sizeof(url), URL "%s", options);
    s->w = world_new(url);
    (void)world_connect(s->w); /* the shared one */
    s->lease = iok_lease_new(s->w->port, s->w->service, NULL);
    s->call = iok_call_new(s->w->port, s->w->service, NULL);
    iok_call_text(s->call, "GET", 3);
    iok_call_text(s->call, "/", 1);
    iok_call_null(s->call);
    iok_call_text(s->call, "upgrade", 7);
    iok_call_text(s->call, "websocket", 9);
    iok_call_body(s->call);
    iok_call_parts(s->call);
    iok_call_lease(s->call, s->lease);
    world_hand_in(s->w, s->call);
    world_run(s->w);
    s->link = world_connect(s->w);
    key = strstr(s->link->got, "sec-websocket-key: ");
    assert_non_null(key);
    assert_true(iok_ws_accept_key(iok_span(key + 19, IOK_WS_KEY_BYTES), accept));
    snprintf(answer, 256,
             "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %.28s\r\n\r\n",
             accept);
    n = strlen(answer);
    if (n_with != 0) {
        memcpy(answer + n, with, n_with);
    }
    n = arrive_some(s->link, (uint8_t *)answer, n + n_with) - n;
    free(answer);
    world_run(s->w);
    world_take(s->w);
    assert_int_equal(iok_call_message(s->call, &n_message)[1].i, 101);
    iok_call_next(s->call);
    sim_clear(s->link);
    return n;
}

static void open_socket(struct socket *s)
{
    (void)open_with(s, "", NULL, 0);
}

static void finish(struct socket *s)
{
    world_run(s->w);
    assert_true(s->link->dead);
    world_free(s->w);
}

/* The program hears of the close, and gives all back, before the kernel comes to send: our own close goes out. */
static void test_last_words(void **state)
{
    struct socket s;
    size_t n;

    (void)state;
    open_socket(&s);
    sim_arrive_bytes(s.link, "\x81\x02hi\x88\x02\x03\xe8", 8);
    world_take(s.w);
    assert_memory_equal(iok_call_message(s.call, &n)->p, "hi", 2);
    iok_call_next(s.call);
    assert_int_equal(iok_call_outcome(s.call), IOK_DONE);
    assert_int_equal(iok_call_reply(s.call, &n)[2].i, IOK_WS_NORMAL);
    iok_call_free(s.call);
    iok_lease_free(s.lease);
    world_run(s.w);
    assert_int_equal(s.link->got[0] & 0xff, 0x88);
    assert_int_equal(s.link->got[1] & 0xff, 0x82);
    finish(&s);
}

/* One read of a peer that has as many of the smallest messages as there is room for. Returns how many. */
static size_t read_tiny(struct iok_link *link, size_t most)
{
    size_t n = 0;
    uint8_t *at = link->events->read_space(link->owner, &n);

    assert_non_null(at);
    n = n / 2 < most ? n / 2 : most;
    for (size_t i = 0; i < n; i++) {
        memcpy(at + 2 * i, "\x82", 2);
    }
    link->events->arrived(link->owner, 2 * n);
    return n;
}

/* The smallest messages there are, as many as the peer likes: at the bound nothing more is read, and none is lost. */
static void test_tiny_messages(void **state)
{
    enum { MESSAGES = 20000 };
    struct socket s;
    size_t n, sent = 0, seen = 0;

    (void)state;
    open_socket(&s);
    while (seen < MESSAGES) {
        size_t before = seen;

        while (s.link->reading && sent < MESSAGES) {
            sent += read_tiny(s.link, MESSAGES - sent);
        }
        world_pending(s.w, s.call);
        assert_true(sent - seen <= 2048);
        while (iok_call_message(s.call, &n) != NULL) {
            assert_int_equal(iok_call_message(s.call, &n)->len, 0);
            iok_call_next(s.call);
            seen++;
        }
        assert_true(seen > before);
        world_run(s.w);
    }
    sim_arrive_bytes(s.link, "\x88", 2);
    world_run(s.w);
    world_expect(s.w, s.call, IOK_DONE, 0, NULL);
    iok_lease_free(s.lease);
    finish(&s);
}

/* In the same read as the answer, more of the smallest messages than a stream holds: no more is read than fits. */
static void test_tiny_messages_behind_the_answer(void **state)
{
    enum { MESSAGES = 8000 };
    static uint8_t frames[2 * MESSAGES + 2];
    struct socket s;
    size_t n, seen = 0, used;

    (void)state;
    for (size_t i = 0; i < MESSAGES; i++) {
        memcpy(frames + 2 * i, "\x82", 2);
    }
    memcpy(frames + (size_t)2 * MESSAGES, "\x88", 2);
    used = open_with(&s, "", frames, sizeof(frames));
    assert_in_range(used, 2, 2 * 2048);
    while (seen < MESSAGES) {
        world_take(s.w);
        assert_non_null(iok_call_message(s.call, &n));
        while (iok_call_message(s.call, &n) != NULL) {
            iok_call_next(s.call);
            seen++;
        }
        world_run(s.w);
        used += arrive_some(s.link, frames + used, sizeof(frames) - used);
    }
    assert_int_equal(seen, MESSAGES);
    world_run(s.w);
    world_expect(s.w, s.call, IOK_DONE, 0, NULL);
    iok_lease_free(s.lease);
    finish(&s);
}

/* The kernel pings, whatever the program does; the answers are not told, and one that does not come is the end. */
static void test_heartbeat(void **state)
{
    static const char pong[] = "\x8a\x08iokernel", other[] = "\x8a\x05hello";
    struct socket s;
    size_t n;

    (void)state;
    (void)open_with(&s, "&ping=10s&ping_timeout=2s", NULL, 0);
    for (int i = 0; i < 3; i++) {
        for (int second = 0; s.link->n_got == 0; second++) {
            assert_true(second < 20);
            world_advance(s.w, SIM_S);
        }
        assert_int_equal(s.link->n_got, 14);
        assert_int_equal(s.link->got[0] & 0xff, 0x89);
        assert_int_equal(s.link->got[1] & 0xff, 0x88);
        sim_clear(s.link);
        world_pending(s.w, s.call);
        sim_arrive_bytes(s.link, i == 0 ? pong : i == 1 ? other : "\x82", i == 0 ? 10 : i == 1 ? 7 : 2);
        world_run(s.w);
        world_take(s.w);
        assert_int_equal(iok_call_message(s.call, &n) != NULL, i > 0);
        if (i > 0) {
            iok_call_next(s.call);
        }
    }
    world_advance(s.w, 30 * SIM_S);
    assert_true(s.link->dead);
    world_take(s.w);
    assert_int_equal(iok_call_outcome(s.call), IOK_DONE);
    assert_int_equal(iok_call_reply(s.call, &n)[2].i, IOK_WS_ABNORMAL);
    assert_non_null(strstr((const char *)iok_call_reply(s.call, &n)[3].p, "no answer to a ping"));
    iok_call_free(s.call);
    iok_lease_free(s.lease);
    finish(&s);
}

/* However it is lost, the program hears that it is over, and not that a request has failed. */
static void test_lost(void **state)
{
    for (int how = 0; how < 3; how++) {
        struct socket s;
        size_t n;

        (void)state;
        open_socket(&s);
        sim_arrive_bytes(s.link, "\x81\x02hi\x01\x02yo", how == 1 ? 6 : 8); /* and amid a message */
        sim_fail(s.link, how == 2 ? 0 : IOK_ERESET);
        world_run(s.w);
        world_take(s.w);
        assert_memory_equal(iok_call_message(s.call, &n)->p, "hi", 2);
        iok_call_next(s.call);
        assert_int_equal(iok_call_outcome(s.call), IOK_DONE);
        assert_int_equal(iok_call_reply(s.call, &n)[2].i, IOK_WS_ABNORMAL);
        assert_int_equal(iok_call_reply(s.call, &n)[4].type, IOK_BOOL);
        assert_int_equal(iok_call_reply(s.call, &n)[4].i, 0);
        iok_call_free(s.call);
        iok_lease_free(s.lease);
        finish(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_tiny_messages),
        cmocka_unit_test(test_tiny_messages_behind_the_answer),
        cmocka_unit_test(test_heartbeat),
        cmocka_unit_test(test_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
