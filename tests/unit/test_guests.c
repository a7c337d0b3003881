/* test_guests.c - accepted connections on a simulated network: what clients send slowly, in pieces, ahead, too much of, or
 * not to its end, and how long they may take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

#define HEAD "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n"

static void test_byte_by_byte(void **state)
{
    static const char text[] = HEAD "bodyGET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    struct house h;
    struct iok_call *call, *served = NULL;
    struct iok_link *link;
    int n = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    for (size_t i = 0; text[i] != '\0'; i++) {
        sim_arrive_bytes(link, &text[i], 1);
        served = house_poll(&h);
        if (served != NULL) {
            assert_ptr_equal(served, call);
            assert_string_equal(house_request(call), n == 0 ? "POST /p 1 [host: h, content-length: 4] \"body\""
                                                            : "GET /next 1 [host: h] \"\"");
            assert_int_equal(i, n == 0 ? strlen(HEAD) + 3 : strlen(text) - 1);
            house_answer(&h, call, 200, "ok");
            n++;
        }
    }
    assert_int_equal(n, 2);
    house_close(&h);
}

/* Wherever the client breaks off, nothing is served that was not whole, and nothing is left. */
static void test_reset_and_end_at_every_byte(void **state)
{
    static const char text[] = HEAD "body";

    (void)state;
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        for (int how = 0; how < 2; how++) {
            struct house h;
            struct iok_call *call;
            struct iok_link *link;

            house_open(&h, "http://127.0.0.1:8000");
            call = house_call(&h);
            link = sim_client(&h.w->sim);
            if (cut > 0) {
                sim_arrive_bytes(link, text, cut);
            }
            if (how == 0) {
                sim_fail(link, IOK_ERESET);
            } else {
                sim_end(link);
            }
            assert_ptr_equal(house_poll(&h), cut == strlen(text) ? call : NULL);
            assert_int_equal(link->dead, how == 0 || cut < strlen(text));
            house_close(&h);
        }
    }
}

static void test_what_is_sent_ahead_waits(void **state)
{
    struct house h;
    struct iok_call *calls[2], *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    calls[0] = house_call(&h);
    calls[1] = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHo");
    call = house_poll(&h);
    assert_string_equal(house_request(call), "GET /1 1 [host: h] \"\"");
    assert_null(house_poll(&h)); /* although another call waits */
    house_answer(&h, call, 200, "1");
    call = house_poll(&h);
    assert_string_equal(house_request(call), "GET /2 1 [host: h] \"\"");
    sim_arrive(link, "st: h\r\n\r\n");
    assert_null(house_poll(&h));
    house_answer(&h, call, 200, "2");
    call = house_poll(&h);
    assert_string_equal(house_request(call), "GET /3 1 [host: h] \"\"");
    assert_true(call == calls[0] || call == calls[1]);
    house_answer(&h, call, 200, "3");
    house_close(&h);
}

static void test_reading_ahead_is_bounded(void **state)
{
    static char much[20000];
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    memset(much, 'x', sizeof(much));
    memcpy(much, "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n", 52);
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/1");
    assert_ptr_equal(house_poll(&h), call);
    sim_arrive_bytes(link, much, sizeof(much));
    assert_false(link->reading);
    house_answer(&h, call, 200, "1");
    assert_true(link->reading);
    assert_null(house_poll(&h));
    sim_arrive_bytes(link, much + 52, sizeof(much) - 52);
    sim_arrive_bytes(link, much + 52, 104);
    assert_ptr_equal(house_poll(&h), call);
    assert_memory_equal(house_request(call), "POST /2 1", 9);
    house_answer(&h, call, 200, "2");
    house_close(&h);
}

static void test_slow_heads(void **state)
{
    struct house h;
    struct iok_link *silent, *slow, *idle, *busy;
    struct iok_call *call;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?header_timeout=10s&idle=60s");
    call = house_call(&h);
    silent = sim_client(&h.w->sim);
    slow = sim_client(&h.w->sim);
    idle = sim_client(&h.w->sim);
    house_get(idle, "/");
    assert_ptr_equal(house_poll(&h), call);
    house_answer(&h, call, 200, "ok");
    for (int i = 0; i < 9; i++) { /* a byte a second does not help */
        sim_arrive_bytes(slow, &"GET / HTTP/1.1"[i], 1);
        world_advance(h.w, SIM_S);
    }
    assert_false(silent->dead || slow->dead);
    busy = sim_client(&h.w->sim);
    house_get(busy, "/");
    assert_ptr_equal(house_poll(&h), call); /* others are not disturbed */
    world_advance(h.w, 2 * SIM_S);
    assert_true(silent->dead);
    assert_string_equal(silent->got, "");
    assert_non_null(strstr(slow->got, "HTTP/1.1 408 Request Timeout\r\n"));
    assert_non_null(strstr(slow->got, "connection: close\r\n"));
    assert_true(slow->shut);
    world_advance(h.w, 3 * SIM_S); /* a moment to read it */
    assert_true(slow->dead);
    world_advance(h.w, 45 * SIM_S);
    assert_false(idle->dead);
    world_advance(h.w, 2 * SIM_S);
    assert_true(idle->dead);
    assert_false(busy->dead); /* the program has its request */
    house_answer(&h, call, 200, "ok");
    world_advance(h.w, 59 * SIM_S);
    assert_false(busy->dead);
    world_advance(h.w, 2 * SIM_S);
    assert_true(busy->dead);
    house_close(&h);
}

static void test_slow_bodies(void **state)
{
    struct house h;
    struct iok_link *link;
    struct iok_call *call;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?header_timeout=2s&body_timeout=5s&body_rate=0");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, HEAD);
    for (int i = 0; i < 3; i++) {
        world_advance(h.w, 4 * SIM_S);
        assert_string_equal(link->got, "");
        sim_arrive(link, "x");
    }
    world_advance(h.w, 6 * SIM_S);
    assert_non_null(strstr(link->got, "408"));
    assert_null(house_poll(&h));
    assert_int_equal(iok_serve_state(call), IOK_SERVE_WAITING);
    house_close(&h);
}

static void test_requests_that_are_refused(void **state)
{
    static const struct {
        const char *sent, *got;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"},
        {"GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported"},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n", "HTTP/1.1 413 Content Too Large"},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400 Bad Request"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct house h;
        struct iok_link *link;
        struct iok_listener_stats stats;

        house_open(&h, "http://127.0.0.1:8000/?max_request=1k");
        house_call(&h);
        link = sim_client(&h.w->sim);
        sim_arrive(link, cases[i].sent);
        assert_memory_equal(link->got, cases[i].got, strlen(cases[i].got));
        assert_null(house_poll(&h));
        assert_false(link->dead); /* it may still be sending, and would lose the answer by a reset */
        assert_true(link->shut);
        sim_arrive(link, "more of it, which nobody reads");
        sim_end(link);
        assert_true(link->dead);
        iok_listener_stats(h.listener, &stats);
        assert_int_equal(stats.refused, 1);
        house_close(&h);
    }
}

static void test_a_refusal_waits_for_the_answer_before(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "GET / HTTP/1.1\r\nHost: h\r\n\r\nnonsense\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    assert_string_equal(link->got, "");
    house_answer(&h, call, 200, "good");
    assert_non_null(strstr(strstr(link->got, "good"), "HTTP/1.1 400"));
    sim_end(link);
    house_close(&h);
}

static void test_expect_and_old_clients(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_string_equal(link->got, "HTTP/1.1 100 Continue\r\n\r\n");
    sim_arrive(link, "ab");
    assert_ptr_equal(house_poll(&h), call);
    house_answer(&h, call, 200, "1");
    assert_false(link->dead);
    sim_arrive(link, "GET / HTTP/1.0\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    sim_clear(link);
    house_answer(&h, call, 200, "2");
    assert_non_null(strstr(link->got, "connection: close\r\n"));
    assert_true(link->dead);
    house_close(&h);
}

static void test_so_many_requests_and_connections(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *first, *second;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_requests=2&max_connections=2");
    call = house_call(&h);
    first = sim_client(&h.w->sim);
    second = sim_client(&h.w->sim);
    assert_false(h.w->sim.door.accepting);
    for (int i = 0; i < 2; i++) {
        house_get(first, "/");
        assert_ptr_equal(house_poll(&h), call);
        assert_false(first->dead);
        house_answer(&h, call, 200, "ok");
    }
    assert_non_null(strstr(first->got, "connection: close\r\n"));
    assert_true(first->dead);
    assert_true(h.w->sim.door.accepting);
    sim_fail(second, IOK_ERESET);
    house_close(&h);
}

static void test_no_descriptor_left(void **state)
{
    struct house h;
    struct iok_error err;
    struct iok_listener_stats stats;

    (void)state;
    iok_err(&err, IOK_ESYSTEM, "no connection can be accepted: too many open files");
    house_open(&h, "http://127.0.0.1:8000");
    house_call(&h);
    for (int i = 0; i < 2; i++) {
        h.w->sim.door.accepting = false;
        h.w->sim.door.events->starved(h.w->sim.door.owner, &err);
        world_run(h.w);
        assert_false(h.w->sim.door.accepting);
        world_advance(h.w, 150 * SIM_MS); /* tried again, and not in a busy loop */
        assert_true(h.w->sim.door.accepting);
    }
    iok_listener_stats(h.listener, &stats);
    assert_int_equal(stats.starved, 2);
    assert_string_equal(stats.last_failure, err.text);
    house_close(&h);
}

/* RFC 9112, 2.2: some clients send one behind a body. It begins no request. */
static void test_an_empty_line_behind_a_request(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?header_timeout=5s&idle=60s");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_arrive(link, HEAD "body\r\n");
    assert_ptr_equal(house_poll(&h), call);
    house_answer(&h, call, 200, "ok");
    sim_clear(link);
    world_advance(h.w, 50 * SIM_S);
    assert_string_equal(link->got, "");
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    house_answer(&h, call, 200, "ok");
    sim_clear(link);
    sim_arrive(link, "\r\n");
    world_advance(h.w, 61 * SIM_S);
    assert_string_equal(link->got, ""); /* it is idle, and ends as such */
    assert_true(link->dead);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "\r\nG");
    world_advance(h.w, 6 * SIM_S);
    assert_memory_equal(link->got, "HTTP/1.1 408 Request Timeout\r\n", 30);
    house_close(&h);
}

/* One request in a house whose n-th allocation fails: it is answered, or its connection closed. */
static bool play_failing(unsigned long n)
{
    static char head[3000];
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    bool failed;

    memset(head, 'x', sizeof(head) - 1);
    memcpy(head, "GET / HTTP/1.1\r\nHost: h\r\nX-Long: ", 33);
    memcpy(head + sizeof(head) - 1 - 4, "\r\n\r\n", 4);
    house_open(&h, "http://127.0.0.1:8000");
    house_call(&h);
    iok_mem_fail_at(n);
    link = sim_client(&h.w->sim);
    if (!link->dead) {
        sim_arrive(link, head);
        world_run(h.w);
        call = iok_poll(h.w->port);
        if (call != NULL) {
            house_answer(&h, call, 200, "ok");
        }
    }
    failed = n > iok_mem_count();
    iok_mem_fail_at(0);
    assert_true(link->dead || link->n_got > 0);
    house_close(&h);
    return !failed;
}

static void test_without_memory(void **state)
{
    unsigned long n = 1;

    (void)state;
    while (play_failing(n)) {
        n++;
    }
    assert_true(n > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_reset_and_end_at_every_byte),
        cmocka_unit_test(test_what_is_sent_ahead_waits),
        cmocka_unit_test(test_reading_ahead_is_bounded),
        cmocka_unit_test(test_slow_heads),
        cmocka_unit_test(test_slow_bodies),
        cmocka_unit_test(test_requests_that_are_refused),
        cmocka_unit_test(test_a_refusal_waits_for_the_answer_before),
        cmocka_unit_test(test_expect_and_old_clients),
        cmocka_unit_test(test_so_many_requests_and_connections),
        cmocka_unit_test(test_no_descriptor_left),
        cmocka_unit_test(test_an_empty_line_behind_a_request),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
