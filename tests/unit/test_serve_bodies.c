/* test_serve_bodies.c - bodies of requests in parts, on a simulated network: whole, bounded, broken off, not read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

#define LARGE 200000u

/* A request of LARGE bytes was begun, and given to the call. */
static struct iok_link *begin_upload(struct house *h, struct iok_call *call, const char *fields)
{
    struct iok_link *link = sim_client(&h->w->sim);
    char head[256];

    snprintf(head, sizeof(head), "POST /up HTTP/1.1\r\nHost: h\r\n%s\r\n", fields);
    sim_arrive(link, head);
    assert_ptr_equal(house_poll(h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    assert_true(iok_serve_expects_body(call));
    return link;
}

#define OF_LENGTH "Content-Length: 200000\r\n"
#define IN_CHUNKS "Transfer-Encoding: chunked\r\n"

static char *pattern(size_t n)
{
    char *bytes = malloc(n);

    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (char)(i % 251);
    }
    return bytes;
}

/* Takes the messages that are there, which continue the pattern at *at; true after the last. */
static bool take(struct iok_call *call, const char *bytes, size_t *at)
{
    const struct iok_token *token;
    size_t n;

    while ((token = iok_call_message(call, &n)) != NULL) {
        bool last = token->type == IOK_ARRAY;

        if (!last) {
            assert_int_equal(token->type, IOK_BYTES);
            assert_memory_equal(token->p, bytes + *at, token->len);
            *at += token->len;
        }
        iok_call_next(call);
        if (last) {
            assert_false(iok_serve_expects_body(call));
            return true;
        }
    }
    return false;
}

static void test_a_large_request(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = begin_upload(&h, call, OF_LENGTH);
    assert_string_equal(house_request(call), "POST /up 1 [host: h, content-length: 200000] \"\"");
    assert_null(house_poll(&h));
    sim_arrive_bytes(link, bytes, 1000);
    assert_ptr_equal(house_poll(&h), call); /* news */
    assert_null(house_poll(&h));
    assert_false(take(call, bytes, &at));
    assert_int_equal(at, 1000);
    for (size_t sent = 1000; sent < LARGE; sent += 1990) {
        sim_arrive_bytes(link, bytes + sent, 1990);
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(take(call, bytes, &at), sent + 1990 == LARGE);
    }
    assert_int_equal(at, LARGE);
    house_answer(&h, call, 200, "thanks");
    assert_non_null(strstr(link->got, "thanks"));
    assert_null(strstr(link->got, "connection: close"));
    house_get(link, "/next");
    assert_ptr_equal(house_poll(&h), call);
    assert_false(iok_serve_expects_body(call));
    house_close(&h);
    free(bytes);
}

static void test_chunks_and_a_trailer(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    const struct iok_token *token;
    size_t n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = begin_upload(&h, call, IN_CHUNKS);
    sim_arrive(link, "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    token = iok_call_message(call, &n);
    assert_int_equal(token->len, 5);
    assert_memory_equal(token->p, "abcde", 5);
    iok_call_next(call);
    token = iok_call_message(call, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(token[1].p, "x-sum", 5);
    iok_call_next(call);
    assert_null(iok_call_message(call, &n));
    house_answer(&h, call, 200, "ok");
    assert_false(link->dead);
    house_close(&h);
}

/* Whatever the client sends: reading stops at a bound, and goes on when half is taken. */
static void test_a_program_that_does_not_take_it(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t sent = 0, at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_stream_bytes=64k&body_timeout=5s");
    call = house_call(&h);
    link = begin_upload(&h, call, OF_LENGTH);
    while (link->reading) {
        sim_arrive_bytes(link, bytes + sent, 8000);
        sent += 8000;
        world_run(h.w);
    }
    assert_in_range(sent, 64000, 80000);
    assert_in_range(iok_count_get(&h.w->core->replies.bytes), 60000, 100000);
    world_advance(h.w, 60 * SIM_S); /* the time is ours, and not the client's */
    assert_false(link->dead);
    assert_ptr_equal(house_poll(&h), call);
    assert_false(take(call, bytes, &at));
    world_run(h.w);
    assert_true(link->reading);
    while (sent < LARGE) {
        sim_arrive_bytes(link, bytes + sent, 8000);
        sent += 8000;
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(take(call, bytes, &at), sent == LARGE);
    }
    house_answer(&h, call, 200, "ok");
    assert_false(link->dead);
    house_close(&h);
    free(bytes);
}

static void test_many_small_pieces(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    char *bytes = pattern(LARGE);
    size_t sent = 0, at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = begin_upload(&h, call, OF_LENGTH);
    while (link->reading) {
        sim_arrive_bytes(link, bytes + sent++, 1);
    }
    assert_in_range(sent, 40, 64);
    assert_ptr_equal(house_poll(&h), call);
    assert_false(take(call, bytes, &at));
    assert_int_equal(at, sent);
    world_run(h.w);
    assert_true(link->reading);
    house_close(&h);
    free(bytes);
}

static void test_an_answer_before_the_end(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t n, at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = begin_upload(&h, call, OF_LENGTH);
    sim_arrive_bytes(link, bytes, 50000);
    house_answer(&h, call, 403, "no");
    assert_non_null(strstr(link->got, "403 Forbidden"));
    assert_non_null(strstr(link->got, "connection: close"));
    assert_true(link->shut);
    for (int i = 0; i < 10; i++) { /* dropped, as a client that has to send it all reads only then */
        world_advance(h.w, SIM_S);
        assert_false(link->dead);
        sim_arrive_bytes(link, bytes, 1000);
    }
    world_advance(h.w, 3 * SIM_S);
    assert_true(link->dead);
    link = begin_upload(&h, call, IN_CHUNKS); /* the call has nothing of what came before */
    assert_null(iok_call_message(call, &n));
    sim_arrive(link, "4\r\n");
    sim_arrive_bytes(link, bytes, 4);
    sim_arrive(link, "\r\n0\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    assert_true(take(call, bytes, &at));
    assert_int_equal(at, 4);
    house_answer(&h, call, 200, "ok");
    house_close(&h);
    free(bytes);
}

static void test_a_request_that_breaks_off(void **state)
{
    static const struct {
        const char *sent, *got;
    } cases[] = {
        {"4\r\nabcdX", "HTTP/1.1 400 Bad Request"},
        {"zz\r\n", "HTTP/1.1 400 Bad Request"},
        {"fffffff\r\n", "HTTP/1.1 413 Content Too Large"},
        {"4\r\nab", NULL},
        {"", "HTTP/1.1 408 Request Timeout"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct house h;
        struct iok_call *call;
        struct iok_link *link;

        house_open(&h, "http://127.0.0.1:8000/?max_request=1m&body_timeout=5s");
        call = house_call(&h);
        link = begin_upload(&h, call, IN_CHUNKS);
        if (cases[i].sent[0] == '\0') {
            world_advance(h.w, 6 * SIM_S);
        } else {
            sim_arrive(link, cases[i].sent);
        }
        if (cases[i].got == NULL) {
            sim_end(link);
            assert_true(link->dead);
        } else {
            assert_memory_equal(link->got, cases[i].got, strlen(cases[i].got));
            assert_true(link->shut);
        }
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
        assert_int_equal(iok_submit(call), 0);
        house_get(sim_client(&h.w->sim), "/");
        assert_ptr_equal(house_poll(&h), call);
        assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
        house_close(&h);
    }
}

/* The client is told to send its body when somebody has the request, and not before. */
static void test_expectation(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?queue_timeout=5s");
    call = house_call(&h);
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), call);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n" IN_CHUNKS "\r\n");
    world_run(h.w);
    assert_string_equal(link->got, "");
    house_answer(&h, call, 200, "ok");
    assert_string_equal(link->got, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    sim_clear(link);
    sim_arrive(link, "1\r\nx\r\n0\r\n\r\n");
    house_answer(&h, call, 200, "ok");
    assert_memory_equal(link->got, "HTTP/1.1 200 OK\r\n", 17);
    link = sim_client(&h.w->sim); /* and if nobody takes it, its body is not sent at all */
    iok_call_free(call);
    world_run(h.w);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n" IN_CHUNKS "\r\n");
    world_advance(h.w, 6 * SIM_S);
    assert_memory_equal(link->got, "HTTP/1.1 503 Service Unavailable\r\n", 34);
    house_close(&h);
}

/* Both directions at once: what comes in goes out. */
static void test_an_echo(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    const struct iok_token *token;
    size_t n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = begin_upload(&h, call, IN_CHUNKS);
    house_begin(call, 200, NULL);
    world_run(h.w);
    for (int i = 0; i < 3; i++) {
        char text[8];

        sim_clear(link);
        sim_arrive(link, "2\r\nhi\r\n");
        assert_ptr_equal(house_poll(&h), call);
        token = iok_call_message(call, &n);
        snprintf(text, sizeof(text), "%.*s", (int)token->len, (const char *)token->p);
        iok_call_next(call);
        house_expect_part(&h, house_part(call, text, false), IOK_DONE);
        assert_string_equal(link->got, "2\r\nhi\r\n");
    }
    sim_arrive(link, "0\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_call_message(call, &n)->type, IOK_ARRAY);
    house_expect_part(&h, house_part(call, NULL, true), IOK_DONE);
    assert_false(link->dead);
    house_get(link, "/next");
    assert_ptr_equal(house_poll(&h), call);
    house_close(&h);
}

/* What the program does not read of requests that it answers is dropped, and not in the way of the next. */
static void test_bodies_that_nobody_reads(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    for (int i = 0; i < 100; i++) {
        sim_clear(link);
        sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\n" IN_CHUNKS "\r\n3e8\r\n");
        sim_arrive_bytes(link, bytes, 1000);
        sim_arrive(link, "\r\n0\r\n\r\n");
        assert_ptr_equal(house_poll(&h), call);
        if (i % 2 == 0) {
            house_answer(&h, call, 200, "ok");
        } else {
            house_begin(call, 200, NULL);
            house_expect_part(&h, house_part(call, "ok", true), IOK_DONE);
        }
        assert_memory_equal(link->got, "HTTP/1.1 200 OK", 15);
        while (house_poll(&h) != NULL) {
        }
        assert_int_equal(iok_stream_bytes(call->stream), 0);
    }
    assert_false(link->dead);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\n" OF_LENGTH "\r\n");
    assert_ptr_equal(house_poll(&h), call);
    sim_arrive_bytes(link, bytes, LARGE / 2);
    house_poll(&h);
    assert_false(take(call, bytes, &at));
    assert_int_equal(at, LARGE / 2);
    house_close(&h);
    free(bytes);
}

/* The program has not come to drop what stands of an earlier request when the next one's body is there. */
static void test_a_body_behind_one_that_nobody_reads(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *first, *second;
    size_t sent = 0, at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    first = begin_upload(&h, call, OF_LENGTH);
    while (iok_ring_room(&call->stream->ring) > 17) {
        sim_arrive_bytes(first, bytes, 1);
    }
    sim_arrive_bytes(first, bytes, 8000);
    sim_fail(first, IOK_ERESET);
    second = sim_client(&h.w->sim);
    sim_arrive(second, "POST / HTTP/1.1\r\nHost: h\r\n" OF_LENGTH "\r\n");
    assert_int_equal(iok_submit(call), 0); /* it takes the news of the lost client later */
    world_run(h.w);
    while (second->reading && sent < 30) {
        sim_arrive_bytes(second, bytes + sent++, 1);
    }
    assert_false(second->dead);
    while (house_poll(&h) != NULL) {
    }
    while (sent < LARGE) {
        assert_true(second->reading);
        sim_arrive_bytes(second, bytes + sent++, 1);
        house_poll(&h);
        assert_int_equal(take(call, bytes, &at), sent == LARGE);
        world_run(h.w);
    }
    assert_int_equal(at, LARGE);
    house_answer(&h, call, 200, "ok");
    assert_memory_equal(second->got, "HTTP/1.1 200 OK", 15);
    house_close(&h);
    free(bytes);
}

/* The same while the program answers, and the next request is given to the call before it comes by. */
static void test_a_body_that_comes_behind_its_answer(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *first, *second;
    size_t sent = 0, at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    first = begin_upload(&h, call, OF_LENGTH);
    second = sim_client(&h.w->sim);
    sim_arrive(second, "POST / HTTP/1.1\r\nHost: h\r\n" OF_LENGTH "\r\n");
    world_run(h.w);
    iok_call_array(call, 4);
    iok_call_i64(call, 204);
    iok_call_null(call);
    iok_call_array(call, 0);
    iok_call_null(call);
    assert_int_equal(iok_submit(call), 0);
    while (first->reading) { /* and the kernel does not know of the answer yet */
        sim_arrive_bytes(first, bytes, 1);
    }
    assert_ptr_equal(house_poll(&h), call);
    world_run(h.w);
    while (sent < LARGE) {
        assert_true(second->reading);
        sim_arrive_bytes(second, bytes + sent, 8000);
        sent += 8000;
        house_poll(&h);
        assert_int_equal(take(call, bytes, &at), sent == LARGE);
        world_run(h.w);
    }
    house_answer(&h, call, 200, "ok");
    assert_memory_equal(second->got, "HTTP/1.1 200 OK", 15);
    house_close(&h);
    free(bytes);
}

/* It is told again when what was taken was not enough. */
static void test_a_program_that_takes_one_by_one(void **state)
{
    static char read[6 + 40000 + 8 + 20000];
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t sent = 0, at = 1, n;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_stream_bytes=16m");
    call = house_call(&h);
    link = begin_upload(&h, call, IN_CHUNKS);
    while (sent < 47) {
        sim_arrive(link, "1\r\n");
        sim_arrive_bytes(link, bytes + sent++, 1);
        sim_arrive(link, "\r\n");
    }
    assert_true(link->reading);
    memcpy(read, "9c40\r\n", 6);
    memcpy(read + 6, bytes + sent, 40000);
    memcpy(read + 40006, "\r\n4e20\r\n", 8);
    memcpy(read + 40014, bytes + sent + 40000, 20000);
    sim_arrive_bytes(link, read, sizeof(read)); /* two messages by one read */
    sent += 60000;
    assert_false(link->reading);
    assert_ptr_equal(house_poll(&h), call);
    assert_non_null(iok_call_message(call, &n));
    iok_call_next(call);
    world_run(h.w);
    assert_false(link->reading);
    assert_false(take(call, bytes, &at));
    assert_int_equal(at, sent);
    world_run(h.w);
    assert_true(link->reading);
    house_close(&h);
    free(bytes);
}

/* The client's time goes on when the program has taken enough, even if nothing more comes. */
static void test_a_client_that_stops_behind_a_hold(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t sent = 0, at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?body_timeout=5s&max_stream_bytes=64k");
    call = house_call(&h);
    link = begin_upload(&h, call, OF_LENGTH);
    while (link->reading) {
        sim_arrive_bytes(link, bytes + sent, 8000);
        sent += 8000;
    }
    world_advance(h.w, 60 * SIM_S);
    assert_ptr_equal(house_poll(&h), call);
    assert_false(take(call, bytes, &at));
    world_run(h.w);
    assert_true(link->reading);
    world_advance(h.w, 4 * SIM_S);
    assert_string_equal(link->got, "");
    world_advance(h.w, 2 * SIM_S);
    assert_memory_equal(link->got, "HTTP/1.1 408 Request Timeout\r\n", 30);
    house_close(&h);
    free(bytes);
}

/* The time in our queue is not the client's. */
static void test_a_body_that_waits_in_the_queue(void **state)
{
    char *bytes = pattern(4);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?body_timeout=2s&queue_timeout=30s");
    call = house_call(&h);
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), call);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\n" IN_CHUNKS "\r\n");
    world_advance(h.w, 10 * SIM_S);
    house_answer(&h, call, 200, "first");
    assert_ptr_equal(house_poll(&h), call);
    world_advance(h.w, SIM_S);
    assert_string_equal(link->got, "");
    sim_arrive(link, "4\r\n");
    sim_arrive_bytes(link, bytes, 4);
    sim_arrive(link, "\r\n0\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    assert_true(take(call, bytes, &at));
    house_answer(&h, call, 200, "second");
    assert_memory_equal(link->got, "HTTP/1.1 200 OK", 15);
    house_close(&h);
    free(bytes);
}

/* A client that says all and ends its side, while its request waits, or is answered early. */
static void test_a_client_that_ends_its_side(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    size_t at = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), call);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\n" IN_CHUNKS "\r\n4\r\n");
    sim_arrive_bytes(link, bytes, 4);
    sim_arrive(link, "\r\n0\r\n\r\n");
    sim_end(link);
    assert_false(link->dead);
    house_answer(&h, call, 200, "first");
    assert_ptr_equal(house_poll(&h), call);
    while (house_poll(&h) != NULL) {
    }
    assert_true(take(call, bytes, &at));
    assert_int_equal(at, 4);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_LEFT);
    house_answer(&h, call, 200, "second");
    assert_memory_equal(link->got, "HTTP/1.1 200 OK", 15);
    assert_true(link->dead);
    link = begin_upload(&h, call, OF_LENGTH);
    sim_arrive_bytes(link, bytes, 1000);
    sim_accept(link, 20);
    house_answer(&h, call, 403, "no");
    sim_end(link);
    assert_false(link->dead);
    sim_accept(link, SIZE_MAX);
    assert_string_equal(link->got + link->n_got - 2, "no");
    assert_true(link->dead);
    house_close(&h);
    free(bytes);
}

/* And one that ends before it has said all. */
static void test_a_client_that_ends_too_early(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), call);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "POST / HTTP/1.1\r\nHost: h\r\n" IN_CHUNKS "\r\n4\r\nab");
    sim_end(link);
    house_answer(&h, call, 200, "first");
    world_run(h.w);
    assert_true(link->dead);
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
    house_close(&h);
}

/* Neither side would go on: the client sends its body before it reads, and nobody takes that. */
static void test_an_early_answer_while_the_body_is_held_back(void **state)
{
    char *bytes = pattern(LARGE);
    struct house h;
    struct iok_call *call, *made = NULL;
    struct iok_link *link;
    size_t sent = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_stream_bytes=64k");
    call = house_call(&h);
    for (int how = 0; how < 2; how++) {
        link = begin_upload(&h, call, OF_LENGTH);
        for (sent = 0; link->reading; sent += 8000) {
            sim_arrive_bytes(link, bytes + sent, 8000);
        }
        sim_accept(link, 20);
        if (how == 0) {
            house_answer(&h, call, 403, "no");
        } else {
            house_begin(call, 200, "2");
            made = house_part(call, "no", true);
            world_run(h.w);
        }
        for (; sent < LARGE; sent += 8000) {
            assert_true(link->reading);
            sim_arrive_bytes(link, bytes + sent, 8000);
        }
        assert_false(link->dead);
        sim_accept(link, SIZE_MAX);
        assert_string_equal(link->got + link->n_got - 2, "no");
        if (how == 1) {
            house_expect_part(&h, made, IOK_DONE);
        }
    }
    house_close(&h);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_large_request),
        cmocka_unit_test(test_chunks_and_a_trailer),
        cmocka_unit_test(test_a_program_that_does_not_take_it),
        cmocka_unit_test(test_many_small_pieces),
        cmocka_unit_test(test_an_answer_before_the_end),
        cmocka_unit_test(test_a_request_that_breaks_off),
        cmocka_unit_test(test_expectation),
        cmocka_unit_test(test_an_echo),
        cmocka_unit_test(test_bodies_that_nobody_reads),
        cmocka_unit_test(test_a_body_behind_one_that_nobody_reads),
        cmocka_unit_test(test_a_body_that_comes_behind_its_answer),
        cmocka_unit_test(test_a_program_that_takes_one_by_one),
        cmocka_unit_test(test_a_client_that_stops_behind_a_hold),
        cmocka_unit_test(test_a_body_that_waits_in_the_queue),
        cmocka_unit_test(test_a_client_that_ends_its_side),
        cmocka_unit_test(test_a_client_that_ends_too_early),
        cmocka_unit_test(test_an_early_answer_while_the_body_is_held_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
