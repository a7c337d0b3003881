/* test_serve_answers.c - answers in parts, on a simulated network: whole, to slow clients, to none, broken off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

static void test_an_answer_in_parts(void **state)
{
    static const struct {
        const char *request, *length, *got;
        bool closes;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", NULL,
         "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "5", "content-length: 5\r\n@\r\n\r\nabcde", false},
        {"GET / HTTP/1.0\r\n\r\n", NULL, "connection: close\r\n\r\nabcde", true},
        {"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "5", "content-length: 5\r\n@\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "5",
         "content-length: 5\r\n@\r\nconnection: close\r\n\r\nabcde", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct house h;
        struct iok_call *call, *a, *b;
        struct iok_link *link;
        char expected[256] = "HTTP/1.1 200 OK\r\n";
        const char *date = "date: Sun, 06 Nov 1994 08:49:37 GMT", *mark = strchr(cases[i].got, '@');

        house_open(&h, "http://127.0.0.1:8000");
        call = house_call(&h);
        link = sim_client(&h.w->sim);
        sim_arrive(link, cases[i].request);
        assert_ptr_equal(house_poll(&h), call);
        house_begin(call, 200, cases[i].length);
        a = house_part(call, "abc", false);
        house_expect_part(&h, a, IOK_DONE);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
        b = house_part(call, "de", true);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_WAITING);
        house_expect_part(&h, b, IOK_DONE);
        snprintf(expected + 17, sizeof(expected) - 17, "%s%.*s%s%s", mark != NULL ? "" : date,
                 mark != NULL ? (int)(mark - cases[i].got) : 2, mark != NULL ? cases[i].got : "\r\n",
                 mark != NULL ? date : cases[i].got, mark != NULL ? mark + 1 : "");
        assert_string_equal(link->got, expected);
        assert_int_equal(link->dead, cases[i].closes);
        if (!cases[i].closes) {
            house_get(link, "/next");
            assert_ptr_equal(house_poll(&h), call);
            house_answer(&h, call, 200, "next");
        }
        house_close(&h);
    }
}

/* RFC 9110, 15.3: whatever the program gives, and however long it says that this is. */
static void test_statuses_without_a_body(void **state)
{
    static const struct {
        int status;
        const char *got;
    } cases[] = {
        {204, "HTTP/1.1 204 No Content\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"},
        {205, "HTTP/1.1 205 Reset Content\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct house h;
        struct iok_call *call;
        struct iok_link *link;

        house_open(&h, "http://127.0.0.1:8000");
        call = house_call(&h);
        link = sim_client(&h.w->sim);
        house_get(link, "/");
        assert_ptr_equal(house_poll(&h), call);
        house_begin(call, cases[i % 2].status, i < 2 ? "5" : NULL);
        house_expect_part(&h, house_part(call, "hello", true), IOK_DONE);
        assert_string_equal(link->got, cases[i % 2].got);
        house_get(link, "/next");
        assert_ptr_equal(house_poll(&h), call);
        house_close(&h);
    }
}

/* A part's end is the credit for the next: with a client that does not read there is none. */
static void test_parts_to_a_slow_client(void **state)
{
    struct house h;
    struct iok_call *call, *made;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?write_timeout=10s");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    sim_accept(link, 0);
    house_begin(call, 200, "6");
    made = house_part(call, "abc", false);
    assert_null(house_poll(&h));
    world_advance(h.w, 9 * SIM_S);
    sim_accept(link, SIZE_MAX);
    house_expect_part(&h, made, IOK_DONE);
    world_advance(h.w, 60 * SIM_S); /* the program takes its time */
    assert_false(link->dead);
    sim_accept(link, 0);
    made = house_part(call, "def", true);
    world_run(h.w);
    world_advance(h.w, 11 * SIM_S);
    assert_true(link->dead);
    house_expect_part(&h, made, IOK_MAYBE_EXECUTED);
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), call);
    house_close(&h);
}

static void test_a_client_that_goes_amid_an_answer(void **state)
{
    struct house h;
    struct iok_call *call, *made;
    struct iok_link *link;

    (void)state;
    for (int how = 0; how < 3; how++) {
        house_open(&h, "http://127.0.0.1:8000");
        call = house_call(&h);
        link = sim_client(&h.w->sim);
        house_get(link, "/");
        assert_ptr_equal(house_poll(&h), call);
        house_begin(call, 200, NULL);
        made = house_part(call, "abc", false);
        house_expect_part(&h, made, IOK_DONE);
        sim_fail(link, IOK_ERESET);
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
        made = house_part(call, "def", false);
        house_expect_part(&h, made, IOK_NEVER_SENT);
        if (how == 0) {
            house_expect_part(&h, house_part(call, NULL, true), IOK_NEVER_SENT);
        } else if (how == 1) {
            assert_int_equal(iok_submit(call), 0);
        } else {
            made = iok_part_new(call, NULL);
            iok_part_fail(made, "no");
            assert_int_equal(iok_submit(made), 0);
            house_expect_part(&h, made, IOK_NEVER_SENT);
        }
        house_get(sim_client(&h.w->sim), "/");
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
        house_answer(&h, call, 200, "ok");
        house_close(&h);
    }
}

static void test_answers_that_are_broken_off(void **state)
{
    struct house h;
    struct iok_call *call, *made;
    struct iok_link *link;

    (void)state;
    for (int how = 0; how < 5; how++) {
        house_open(&h, "http://127.0.0.1:8000");
        call = house_call(&h);
        link = sim_client(&h.w->sim);
        house_get(link, "/");
        assert_ptr_equal(house_poll(&h), call);
        house_begin(call, 200, "5");
        made = house_part(call, "abc", false);
        house_expect_part(&h, made, IOK_DONE);
        if (how == 0) { /* too much, too little */
            house_expect_part(&h, house_part(call, "defg", true), IOK_NEVER_SENT);
        } else if (how == 1) {
            house_expect_part(&h, house_part(call, "d", true), IOK_NEVER_SENT);
        } else if (how == 2) {
            made = iok_part_new(call, NULL);
            iok_part_fail(made, "cannot go on");
            assert_int_equal(iok_submit(made), 0);
            house_expect_part(&h, made, IOK_DONE);
        } else if (how == 3) {
            iok_call_free(call);
            world_run(h.w);
        } else { /* a part that is cancelled while it goes out */
            sim_accept(link, 0);
            made = house_part(call, "de", true);
            world_run(h.w);
            iok_abandon(made);
            world_run(h.w);
        }
        assert_true(link->dead); /* nobody takes it for whole */
        while (house_poll(&h) != NULL) {
        }
        if (how == 3) {
            call = house_call(&h);
        }
        house_get(sim_client(&h.w->sim), "/");
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
        house_answer(&h, call, 200, "ok");
        house_close(&h);
    }
}

static void test_a_head_that_cannot_be_sent(void **state)
{
    struct house h;
    struct iok_call *call, *made;
    struct iok_link *link;
    struct iok_error err;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    house_begin(call, 200, "five");
    made = house_part(call, "abcde", true);
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_call_error(call, &err), IOK_EINVAL);
    house_expect_part(&h, made, IOK_NEVER_SENT);
    assert_string_equal(link->got, "");
    house_answer(&h, call, 500, "sorry");
    assert_non_null(strstr(link->got, "500"));
    house_close(&h);
}

/* A call that is given up when its answer is complete, and not out: the client gets it all, and its parts end. */
static void test_a_call_that_is_freed_behind_its_last_part(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct house h;
        struct iok_call *call, *made;
        struct iok_link *link;

        house_open(&h, "http://127.0.0.1:8000");
        call = house_call(&h);
        link = sim_client(&h.w->sim);
        house_get(link, "/");
        assert_ptr_equal(house_poll(&h), call);
        sim_accept(link, 0);
        house_begin(call, 200, "6");
        made = house_part(call, "abcdef", true);
        assert_null(house_poll(&h));
        iok_call_free(call);
        if (how == 0) { /* at once, or in a later turn */
            world_run(h.w);
        }
        if (how < 2) {
            iok_abandon(made);
        } else {
            house_expect_part(&h, made, IOK_DONE);
        }
        while (house_poll(&h) != NULL) {
        }
        assert_int_equal(iok_port_calls(h.w->port), 0);
        sim_accept(link, SIZE_MAX);
        world_run(h.w);
        assert_string_equal(link->got + link->n_got - 10, "\r\n\r\nabcdef");
        assert_false(link->dead);
        house_close(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_in_parts),
        cmocka_unit_test(test_statuses_without_a_body),
        cmocka_unit_test(test_parts_to_a_slow_client),
        cmocka_unit_test(test_a_client_that_goes_amid_an_answer),
        cmocka_unit_test(test_answers_that_are_broken_off),
        cmocka_unit_test(test_a_head_that_cannot_be_sent),
        cmocka_unit_test(test_a_call_that_is_freed_behind_its_last_part),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
