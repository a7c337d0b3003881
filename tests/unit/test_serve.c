/* test_serve.c - serving calls on a simulated network: which call gets a request, what becomes of it when its client, the
 * program or the listener goes away. test_guests.c has the connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

static void test_a_request_is_answered(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    assert_string_equal(iok_listener_name(h.listener), "http://127.0.0.1:8000");
    call = house_call(&h);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_WAITING);
    link = sim_client(&h.w->sim);
    sim_arrive(link, "GET /a?b HTTP/1.1\r\nHost: h\r\nX-Why: because\r\n\r\n");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    assert_string_equal(house_request(call), "GET /a?b 1 [host: h, x-why: because] \"\"");
    assert_string_equal(iok_call_endpoint(call), "10.0.0.1:5001");
    assert_false(iok_serve_is_encrypted(call));
    house_answer(&h, call, 200, "hello");
    assert_int_equal(iok_serve_state(call), IOK_SERVE_WAITING);
    assert_string_equal(link->got, "HTTP/1.1 200 OK\r\nserver: me\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                   "content-length: 5\r\n\r\nhello");
    assert_null(house_poll(&h));
    house_close(&h);
}

/* A call, a connection and their memory serve any number of requests. */
static void test_nothing_is_allocated_for_a_request(void **state)
{
    struct house h;
    struct iok_link *link;
    unsigned long before = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    house_call(&h);
    link = sim_client(&h.w->sim);
    for (int i = 0; i < 100; i++) {
        struct iok_call *call;

        before = i == 10 ? iok_mem_count() : before;
        sim_arrive(link, "GET / HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nUser-Agent: somebody\r\n\r\n");
        call = house_poll(&h);
        assert_non_null(call);
        assert_string_equal(house_request(call), "GET / 1 [host: h, accept: */*, user-agent: somebody] \"\"");
        house_answer(&h, call, 200, "x");
        sim_clear(link);
    }
    assert_int_equal(iok_mem_count(), before);
    house_close(&h);
}

static void test_requests_wait_for_calls_in_their_order(void **state)
{
    struct house h;
    struct iok_link *links[3];
    struct iok_call *call;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?queue=2&queue_timeout=5s&idle=1h");
    call = house_call(&h);
    for (int i = 0; i < 3; i++) {
        links[i] = sim_client(&h.w->sim);
        house_get(links[i], i == 0 ? "/0" : i == 1 ? "/1" : "/2");
    }
    for (int i = 0; i < 3; i++) {
        char expected[64];

        assert_ptr_equal(house_poll(&h), call);
        snprintf(expected, sizeof(expected), "GET /%d 1 [host: h] \"\"", i);
        assert_string_equal(house_request(call), expected);
        house_answer(&h, call, 200, "ok");
        assert_non_null(strstr(links[i]->got, "200 OK"));
    }
    house_close(&h);
}

static void test_a_full_queue_sheds(void **state)
{
    struct house h;
    struct iok_link *links[3];
    struct iok_listener_stats stats;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?queue=1&queue_timeout=5s&idle=1h");
    house_call(&h);
    for (int i = 0; i < 3; i++) {
        links[i] = sim_client(&h.w->sim);
        house_get(links[i], "/");
    }
    assert_string_equal(links[2]->got, "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"
                                       "date: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n");
    assert_false(links[2]->dead); /* and may ask again */
    world_advance(h.w, 4 * SIM_S);
    assert_string_equal(links[1]->got, "");
    world_advance(h.w, 2 * SIM_S);
    assert_non_null(strstr(links[1]->got, "503"));
    assert_string_equal(links[0]->got, ""); /* the program has it, and its own time */
    iok_listener_stats(h.listener, &stats);
    assert_int_equal(stats.requests, 3);
    assert_int_equal(stats.shed, 2);
    assert_int_equal(stats.inflight, 1);
    assert_int_equal(stats.queued, 0);
    house_close(&h);
}

/* A thread that waits and runs the kernel's loop meanwhile needs no waking. */
static void test_of_equals_the_one_that_leads_is_next(void **state)
{
    struct house h;
    struct iok_port *other;
    struct iok_call *mine, *theirs[2];

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    other = iok_port_new(h.w->kernel, NULL);
    assert_non_null(other);
    theirs[0] = house_call_on(&h, other);
    theirs[1] = house_call_on(&h, other);
    mine = house_call(&h);
    h.w->core->leader = h.w->port;
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), mine);
    house_get(sim_client(&h.w->sim), "/"); /* now it is the busier one */
    assert_non_null(iok_poll(other));
    house_answer(&h, mine, 200, "done");
    house_get(sim_client(&h.w->sim), "/");
    assert_ptr_equal(house_poll(&h), mine);
    h.w->core->leader = NULL;
    iok_call_free(mine);
    iok_call_free(theirs[0]);
    iok_call_free(theirs[1]);
    world_run(h.w);
    assert_null(iok_poll(other));
    iok_core_detach_port(h.w->core, other); /* as the kernel's thread would within iok_port_free */
    iok_port_free(other);
    house_close(&h);
}

static void test_the_least_busy_port_is_next(void **state)
{
    struct house h;
    struct iok_port *other;
    struct iok_call *mine[3], *theirs[3], *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    other = iok_port_new(h.w->kernel, NULL);
    assert_non_null(other);
    for (int i = 0; i < 3; i++) {
        mine[i] = house_call(&h);
        theirs[i] = house_call_on(&h, other);
    }
    for (int i = 0; i < 4; i++) { /* each gets two */
        link = sim_client(&h.w->sim);
        house_get(link, "/");
    }
    assert_non_null(house_poll(&h));
    assert_non_null(house_poll(&h));
    assert_null(house_poll(&h));
    call = iok_poll(other);
    assert_non_null(call);
    assert_non_null(iok_poll(other));
    assert_null(iok_poll(other));
    house_answer(&h, call, 200, "one less");
    house_get(sim_client(&h.w->sim), "/");
    assert_null(house_poll(&h));
    assert_non_null(iok_poll(other));
    for (int i = 0; i < 3; i++) {
        iok_call_free(mine[i]);
        iok_call_free(theirs[i]);
    }
    world_run(h.w);
    assert_null(iok_poll(other));
    iok_core_detach_port(h.w->core, other); /* as the kernel's thread would within iok_port_free */
    iok_port_free(other);
    house_close(&h);
}

static void test_a_client_that_is_gone(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    struct iok_listener_stats stats;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    sim_fail(link, IOK_ERESET);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
    assert_string_equal(house_request(call), "GET / 1 [host: h] \"\""); /* stays as long as the program has it */
    assert_ptr_equal(house_poll(&h), call);
    assert_null(house_poll(&h));
    assert_int_equal(iok_submit(call), 0); /* no answer is needed */
    world_run(h.w);
    link = sim_client(&h.w->sim);
    house_get(link, "/again");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    sim_fail(link, IOK_ERESET);
    house_answer(&h, call, 200, "nobody reads it"); /* before the news was taken */
    house_poll(&h);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_WAITING);
    iok_listener_stats(h.listener, &stats);
    assert_int_equal(stats.gone, 2);
    house_close(&h);
}

static void test_a_client_that_says_no_more(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    sim_end(link);
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_LEFT);
    house_answer(&h, call, 200, "it may still read");
    assert_non_null(strstr(link->got, "it may still read"));
    assert_true(link->dead);
    /* Before the request was given to the program, which then hears it with the request. */
    link = sim_client(&h.w->sim);
    house_get(link, "/first");
    assert_ptr_equal(house_poll(&h), call);
    link = sim_client(&h.w->sim);
    house_get(link, "/second");
    sim_end(link);
    house_answer(&h, call, 200, "first");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_LEFT);
    assert_string_equal(house_request(call), "GET /second 1 [host: h] \"\"");
    house_answer(&h, call, 200, "second");
    assert_true(link->dead);
    house_close(&h);
}

static void test_an_answer_that_cannot_be_sent(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    struct iok_error err;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_submit(call), IOK_EINVAL); /* without any answer */
    house_answer(&h, call, 200, NULL);              /* a field with a line break in its value */
    assert_ptr_equal(house_poll(&h), call);
    assert_string_equal(link->got, "");
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    assert_int_equal(iok_call_error(call, &err), IOK_EINVAL);
    assert_non_null(strstr(err.text, "line break"));
    assert_string_equal(house_request(call), "GET / 1 [host: h] \"\"");
    assert_string_equal(iok_call_endpoint(call), "10.0.0.1:5001");
    house_answer(&h, call, 500, "sorry");
    assert_non_null(strstr(link->got, "HTTP/1.1 500 Internal Server Error"));
    house_get(link, "/next");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_call_error(call, &err), 0);
    house_answer(&h, call, 200, "fine");
    house_close(&h);
}

static void test_a_program_that_lets_go(void **state)
{
    struct house h;
    struct iok_call *call, *other;
    struct iok_link *link;
    struct iok_error err;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    iok_call_free(call); /* with the request in hand */
    world_run(h.w);
    assert_non_null(strstr(link->got, "HTTP/1.1 500 Internal Server Error"));
    assert_false(link->dead);
    assert_null(house_poll(&h));
    assert_int_equal(iok_port_calls(h.w->port), 0);
    call = house_call(&h); /* that waits */
    other = house_call(&h);
    iok_cancel(call);
    world_run(h.w);
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_CLOSED);
    assert_int_equal(iok_call_error(call, &err), IOK_ECANCELLED);
    iok_call_free(call);
    sim_clear(link);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), other);
    iok_cancel(other); /* with a request in hand */
    assert_int_equal(iok_submit(other), IOK_EINVAL);
    world_run(h.w);
    assert_ptr_equal(house_poll(&h), other);
    assert_int_equal(iok_call_outcome(other), IOK_NEVER_SENT);
    assert_non_null(strstr(link->got, "500"));
    iok_call_free(other);
    house_close(&h);
}

/* A call is let go while a request is on its way to it: another takes the request, which nobody has seen. */
static void test_a_request_that_crosses_a_cancel(void **state)
{
    struct house h;
    struct iok_call *first, *second;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    first = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    second = house_call(&h);
    iok_cancel(first); /* before its request was taken */
    assert_ptr_equal(iok_poll(h.w->port), NULL);
    for (int i = 0; i < 2; i++) {
        struct iok_call *call = house_poll(&h);

        assert_true(call == first || call == second);
        assert_int_equal(iok_serve_state(call), call == first ? IOK_SERVE_CLOSED : IOK_SERVE_REQUEST);
    }
    assert_string_equal(house_request(second), "GET / 1 [host: h] \"\"");
    iok_call_free(first);
    house_answer(&h, second, 200, "second");
    assert_non_null(strstr(link->got, "second"));
    sim_clear(link);
    house_get(link, "/later");
    iok_call_free(second); /* and now there is no other: it waits for one */
    world_run(h.w);
    assert_string_equal(link->got, "");
    first = house_call(&h);
    assert_ptr_equal(house_poll(&h), first);
    assert_string_equal(house_request(first), "GET /later 1 [host: h] \"\"");
    house_close(&h);
}

static void test_a_listener_that_drains(void **state)
{
    struct house h;
    struct iok_call *call, *idle;
    struct iok_link *link, *long_idle, *resting, *busy;
    struct iok_error err;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    idle = house_call(&h);
    long_idle = sim_client(&h.w->sim);
    world_run(h.w);
    world_advance(h.w, 1100 * SIM_MS);
    call = house_call(&h);
    resting = sim_client(&h.w->sim);
    busy = sim_client(&h.w->sim);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    iok_listener_close(h.listener, h.w->port, 10000);
    world_run(h.w);
    assert_false(h.w->sim.door.open);
    assert_true(long_idle->dead);
    assert_false(link->dead);
    assert_null(house_poll(&h));
    house_get(busy, "/on-its-way"); /* when the listener was closed */
    assert_ptr_equal(house_poll(&h), idle);
    house_answer(&h, idle, 200, "in time");
    assert_non_null(strstr(busy->got, "connection: close\r\n"));
    assert_true(busy->dead);
    assert_false(resting->dead);
    world_advance(h.w, 1100 * SIM_MS);
    assert_true(resting->dead);
    house_answer(&h, call, 200, "the last");
    assert_non_null(strstr(link->got, "connection: close\r\n"));
    assert_true(link->dead);
    for (int i = 0; i < 2; i++) {
        struct iok_call *ended = house_poll(&h);

        assert_true(ended == call || ended == idle);
        assert_int_equal(iok_serve_state(ended), IOK_SERVE_CLOSED);
        assert_int_equal(iok_call_error(ended, &err), IOK_ECLOSED);
        iok_call_free(ended);
    }
    call = house_call(&h); /* one more comes too late */
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_call_error(call, &err), IOK_ECLOSED);
    house_close(&h);
}

static void test_a_drain_has_an_end(void **state)
{
    struct house h;
    struct iok_call *call;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    iok_listener_close(h.listener, h.w->port, 3000);
    world_run(h.w);
    world_advance(h.w, 2900 * SIM_MS);
    assert_false(link->dead);
    world_advance(h.w, 200 * SIM_MS);
    assert_true(link->dead);
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
    house_answer(&h, call, 200, "too late");
    assert_ptr_equal(house_poll(&h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_CLOSED);
    house_close(&h);
}

static void released(void *arg)
{
    ++*(int *)arg;
}

static void large_answer(struct iok_call *call, char *body, size_t n, int *count)
{
    iok_call_array(call, 4);
    iok_call_i64(call, 200);
    iok_call_null(call);
    iok_call_array(call, 0);
    iok_call_ref(call, body, n, released, count);
}

/* At the port's bound of bytes a large answer is refused at once, and a small one takes its place. */
static void test_an_answer_over_the_ports_bound(void **state)
{
    static char body[20000];
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    struct iok_error err;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    h.w->port->bytes_left = 10000;
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    large_answer(call, body, sizeof(body), &count);
    assert_int_equal(iok_submit(call), IOK_EOVERLOAD);
    assert_int_equal(count, 1); /* given back */
    assert_int_equal(iok_call_error(call, &err), IOK_EOVERLOAD);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    h.w->port->bytes_max = 10000; /* then it is told that waiting would not help */
    large_answer(call, body, sizeof(body), &count);
    assert_int_equal(iok_submit(call), IOK_ELIMIT);
    assert_int_equal(iok_call_error(call, &err), IOK_ELIMIT);
    assert_int_equal(count, 2);
    h.w->port->bytes_left = 0;
    house_answer(&h, call, 503, "small");
    assert_non_null(strstr(link->got, "HTTP/1.1 503 "));
    assert_non_null(strstr(link->got, "small"));
    house_close(&h);
}

/* What an answer refers to is lent until its bytes are out, or little enough is left to be copied. */
static void test_a_large_answer_to_a_slow_client(void **state)
{
    size_t n = 300000;
    char *body = calloc(1, n);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?write_timeout=5s");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_accept(link, 100000);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    large_answer(call, body, n, &count);
    assert_int_equal(iok_submit(call), 0);
    world_run(h.w);
    assert_null(house_poll(&h));
    assert_int_equal(count, 0);
    world_advance(h.w, 4 * SIM_S);
    sim_accept(link, 150000); /* 50,000 and the head are left: a copy */
    world_run(h.w);
    assert_null(house_poll(&h));
    assert_int_equal(count, 1);
    house_get(sim_client(&h.w->sim), "/other"); /* the call is free for others */
    assert_ptr_equal(house_poll(&h), call);
    house_answer(&h, call, 200, "x");
    sim_accept(link, SIZE_MAX);
    world_run(h.w);
    assert_int_equal(link->n_got, n + strlen("HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                             "content-length: 300000\r\n\r\n"));
    assert_false(link->dead);
    house_close(&h);
    free(body);
}

/* The program can see that calls are held by answers which nobody reads, and make more. */
static void test_how_many_calls_wait(void **state)
{
    struct house h;
    size_t n = 300000;
    char *body = calloc(1, n);
    struct iok_call *taken;
    struct iok_link *slow;
    uint64_t begun;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    for (int i = 0; i < 3; i++) {
        house_call(&h);
    }
    slow = sim_client(&h.w->sim);
    house_get(slow, "/");
    taken = house_poll(&h);
    assert_int_equal(iok_serve_others(taken, &begun), 2);
    assert_int_equal(begun, 3);
    sim_accept(slow, 1000);
    large_answer(taken, body, n, &count);
    assert_int_equal(iok_submit(taken), 0);
    world_run(h.w);
    assert_int_equal(iok_serve_state(taken), IOK_SERVE_WAITING); /* but it has no place in the queue yet */
    house_get(sim_client(&h.w->sim), "/");
    taken = house_poll(&h);
    assert_int_equal(iok_serve_others(taken, &begun), 1);
    house_answer(&h, taken, 200, "read"); /* it is back */
    house_call(&h);
    house_get(sim_client(&h.w->sim), "/");
    taken = house_poll(&h);
    assert_int_equal(iok_serve_others(taken, &begun), 2);
    assert_int_equal(begun, 4);
    house_close(&h);
    assert_int_equal(count, 1);
    free(body);
}

static void test_a_client_that_does_not_read(void **state)
{
    size_t n = 300000;
    char *body = calloc(1, n);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    struct iok_listener_stats stats;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?write_timeout=5s");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_accept(link, 1000);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    large_answer(call, body, n, &count);
    assert_int_equal(iok_submit(call), 0);
    world_advance(h.w, 4900 * SIM_MS);
    assert_false(link->dead);
    sim_accept(link, 1000); /* progress: the time starts again */
    world_advance(h.w, 4900 * SIM_MS);
    assert_false(link->dead);
    world_advance(h.w, 200 * SIM_MS);
    assert_true(link->dead);
    assert_null(house_poll(&h));
    assert_int_equal(count, 1);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_WAITING);
    iok_listener_stats(h.listener, &stats);
    assert_int_equal(stats.timeouts, 1);
    house_close(&h);
    free(body);
}

/* The news that a client has left stands in the ring when the answer is submitted: it does not give the answer back. */
static void test_old_news_do_not_free_an_answer(void **state)
{
    size_t n = 300000;
    char *body = calloc(1, n);
    struct house h;
    struct iok_call *call;
    struct iok_link *link;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    sim_accept(link, 1000);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    sim_end(link);
    large_answer(call, body, n, &count);
    assert_int_equal(iok_submit(call), 0);
    assert_null(house_poll(&h)); /* the news, which tell nothing any more */
    assert_int_equal(count, 0);
    world_run(h.w);
    assert_null(house_poll(&h));
    assert_int_equal(count, 0);
    sim_accept(link, SIZE_MAX);
    world_run(h.w);
    assert_null(house_poll(&h));
    assert_int_equal(count, 1);
    assert_true(link->dead);
    house_close(&h);
    free(body);
}

static void get_native(struct house *h, const char *request, const char *status, const char *body)
{
    struct iok_link *link = sim_client(&h->w->sim);

    sim_arrive(link, request);
    world_run(h->w);
    assert_memory_equal(link->got, status, strlen(status));
    if (strstr(link->got, body) == NULL) {
        fail_msg("no %s in %s", body, link->got);
    }
    sim_fail(link, IOK_ERESET);
}

static void test_answers_of_the_kernel_thread(void **state)
{
    struct house h;
    struct iok_error err;
    struct iok_listener_stats stats;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    assert_int_equal(iok_listener_answer(h.listener, "/robots.txt", 200, "text/plain", "none", 4, &err), 0);
    assert_int_equal(iok_listener_answer(h.listener, "robots", 200, "text/plain", "", 0, &err), IOK_EINVAL);
    house_call(&h);
    assert_int_equal(iok_listener_answer(h.listener, "/late", 200, "text/plain", "", 0, &err), IOK_ESTATE);
    get_native(&h, "GET /robots.txt?x HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK", "\r\n\r\nnone");
    get_native(&h, "HEAD /robots.txt HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK", "content-length: 4");
    assert_null(house_poll(&h));
    sim_arrive(sim_client(&h.w->sim), "POST /robots.txt HTTP/1.1\r\nHost: h\r\n\r\n"); /* the program's */
    assert_non_null(house_poll(&h));
    iok_listener_stats(h.listener, &stats);
    assert_int_equal(stats.native, 2);
    house_close(&h);
}

#define HEALTH "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"

/* What a program does not take shows, whether it is a request or a probe. */
static void test_health_and_shedding(void **state)
{
    struct house h;
    struct iok_link *link;
    struct iok_call *call;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?health=/healthz&health_pickup=2s&shed=3s&idle=1h");
    house_call(&h);
    call = house_call(&h);
    get_native(&h, HEALTH, "HTTP/1.1 200 OK", "\"status\": \"ok\"");
    world_advance(h.w, SIM_S); /* the probe is not taken */
    get_native(&h, HEALTH, "HTTP/1.1 200 OK", "\"pickup_ms\": 1000");
    world_advance(h.w, 1500 * SIM_MS);
    get_native(&h, HEALTH, "HTTP/1.1 503", "\"status\": \"stalled\"");
    link = sim_client(&h.w->sim);
    house_get(link, "/"); /* given all the same */
    assert_string_equal(link->got, "");
    world_advance(h.w, SIM_S);
    house_get(sim_client(&h.w->sim), "/"); /* and now no more */
    link = sim_last(&h.w->sim);
    assert_memory_equal(link->got, "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n", 50);
    assert_non_null(house_poll(&h)); /* it is back */
    sim_clear(link);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h) != NULL ? call : NULL, call);
    get_native(&h, HEALTH, "HTTP/1.1 200 OK", "\"inflight\": 2");
    house_close(&h);
}

static void test_a_required_service(void **state)
{
    struct house h;
    struct iok_service *service;
    struct iok_error err;
    struct iok_link *link;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?health=/healthz&idle=1h");
    service = iok_service_new(h.w->port, "line://10.0.0.9:7", &err);
    assert_non_null(service);
    world_run(h.w);
    link = sim_last(&h.w->sim);
    assert_int_equal(iok_listener_require(h.listener, service, &err), 0);
    house_call(&h);
    get_native(&h, HEALTH, "HTTP/1.1 503", "\"service\": \"line\"");
    sim_connect(link);
    world_run(h.w);
    get_native(&h, HEALTH, "HTTP/1.1 200 OK", "\"ok\"");
    iok_service_close(service, h.w->port);
    iok_service_unref(service);
    world_run(h.w);
    get_native(&h, HEALTH, "HTTP/1.1 503", "service down");
    house_close(&h);
}

static void test_a_kernel_that_stops(void **state)
{
    struct house h;
    struct iok_call *call, *idle;
    struct iok_link *link;
    struct iok_error err;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000");
    idle = house_call(&h);
    call = house_call(&h);
    link = sim_client(&h.w->sim);
    house_get(link, "/");
    assert_ptr_equal(house_poll(&h), call);
    iok_core_stop(h.w->core);
    assert_true(link->dead);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_GONE);
    iok_call_array(call, 4);
    assert_int_equal(iok_submit(call), 0);
    for (int i = 0; i < 4; i++) { /* the ended one, news, and the other */
        struct iok_call *news = iok_poll(h.w->port);

        if (news != NULL && iok_serve_state(news) == IOK_SERVE_CLOSED) {
            assert_int_equal(iok_call_error(news, &err), IOK_ECLOSED);
            assert_true(news == call || news == idle);
            iok_call_free(news);
        }
    }
    assert_int_equal(iok_port_calls(h.w->port), 0);
    iok_listener_unref(h.listener);
    iok_port_free(h.w->port);
    bare_kernel_free(h.w->kernel);
    sim_deinit(&h.w->sim);
    free(h.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_answered),
        cmocka_unit_test(test_nothing_is_allocated_for_a_request),
        cmocka_unit_test(test_requests_wait_for_calls_in_their_order),
        cmocka_unit_test(test_a_full_queue_sheds),
        cmocka_unit_test(test_the_least_busy_port_is_next),
        cmocka_unit_test(test_of_equals_the_one_that_leads_is_next),
        cmocka_unit_test(test_a_client_that_is_gone),
        cmocka_unit_test(test_a_client_that_says_no_more),
        cmocka_unit_test(test_an_answer_that_cannot_be_sent),
        cmocka_unit_test(test_a_program_that_lets_go),
        cmocka_unit_test(test_a_request_that_crosses_a_cancel),
        cmocka_unit_test(test_a_listener_that_drains),
        cmocka_unit_test(test_a_drain_has_an_end),
        cmocka_unit_test(test_an_answer_over_the_ports_bound),
        cmocka_unit_test(test_a_large_answer_to_a_slow_client),
        cmocka_unit_test(test_how_many_calls_wait),
        cmocka_unit_test(test_a_client_that_does_not_read),
        cmocka_unit_test(test_old_news_do_not_free_an_answer),
        cmocka_unit_test(test_answers_of_the_kernel_thread),
        cmocka_unit_test(test_health_and_shedding),
        cmocka_unit_test(test_a_required_service),
        cmocka_unit_test(test_a_kernel_that_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
