/* test_http_bodies.c - bodies and replies in parts without a lease: whose connection is the call's own for as long as it
 * lasts, and ends with what is broken off. HTTP, against a peer that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "http://10.0.0.1:80?connections=1&timeout=5s&max_stream_bytes=1m"
#define OK "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
#define TIMEOUT_S 6

static struct iok_call *request(struct world *w, const char *method, const char *expect,
                                void (*announce)(struct iok_call *call))
{
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    assert_non_null(call);
    iok_call_text(call, method, strlen(method));
    iok_call_text(call, "/", 1);
    iok_call_null(call);
    if (expect != NULL) {
        iok_call_text(call, "expect", 6);
        iok_call_text(call, expect, strlen(expect));
    }
    if (announce != NULL) {
        announce(call);
    }
    world_hand_in(w, call);
    world_run(w);
    return call;
}

static struct iok_call *part(struct world *w, struct iok_call *call, const char *bytes, bool end)
{
    struct iok_call *one = iok_part_new(call, NULL);

    assert_non_null(one);
    iok_call_bytes(one, bytes, strlen(bytes));
    if (end) {
        iok_part_end(one);
    }
    world_hand_in(w, one);
    world_run(w);
    return one;
}

static void arrive(struct world *w, struct iok_link *link, const char *text)
{
    sim_arrive(link, text);
    world_run(w);
}

/* The connection carries a request as if nothing had happened. NULL: a new one does. */
static void next_goes_well_on(struct world *w, struct iok_link *link)
{
    struct iok_call *call = request(w, "GET", NULL, NULL);

    arrive(w, link != NULL ? link : world_connect(w), OK);
    world_expect(w, call, IOK_DONE, 0, NULL);
    world_free(w);
}

static void next_goes_well(struct world *w)
{
    next_goes_well_on(w, NULL);
}

static void test_credits(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *call, *early = NULL, *one;
    struct iok_link *link;

    (void)state;
    call = request(w, "POST", NULL, iok_call_body);
    early = part(w, call, "abc", false); /* before there is a connection */
    world_pending(w, early);
    link = world_connect(w);
    world_expect(w, early, IOK_DONE, 0, NULL);
    assert_non_null(strstr(link->got, "\r\n\r\n3\r\nabc\r\n"));
    sim_accept(link, 0);
    one = part(w, call, "de", true);
    world_pending(w, one);
    sim_accept(link, 1000);
    world_run(w);
    world_expect(w, one, IOK_DONE, 0, NULL);
    assert_non_null(strstr(link->got, "2\r\nde\r\n0\r\n\r\n"));
    arrive(w, link, OK);
    world_expect(w, call, IOK_DONE, 0, NULL);
    assert_false(link->dead);
    call = request(w, "POST", NULL, iok_call_body); /* on the same */
    one = part(w, call, "", true);
    world_expect(w, one, IOK_DONE, 0, NULL);
    arrive(w, link, OK);
    world_expect(w, call, IOK_DONE, 0, NULL);
    world_free(w);
}

static void test_expect(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "POST", "100-continue", iok_call_body), *one;

    (void)state;
    one = part(w, call, "abc", true);
    world_pending(w, one);
    arrive(w, link, "HTTP/1.1 100 Continue\r\n\r\n");
    world_expect(w, one, IOK_DONE, 0, NULL);
    arrive(w, link, OK);
    world_expect(w, call, IOK_DONE, 0, NULL);
    call = request(w, "POST", "100-continue", iok_call_body);
    one = part(w, call, "abc", true);
    world_advance(w, 900 * SIM_MS);
    world_pending(w, one);
    world_advance(w, 200 * SIM_MS); /* who says nothing wants it, too */
    world_expect(w, one, IOK_DONE, 0, NULL);
    arrive(w, link, "HTTP/1.1 100 Continue\r\n\r\n");
    world_advance(w, 4 * SIM_S);
    world_pending(w, call); /* the deadline counts from the body's end */
    arrive(w, link, OK);
    world_expect(w, call, IOK_DONE, 0, NULL);
    call = request(w, "POST", "100-continue", iok_call_body);
    one = part(w, call, "abc", true);
    arrive(w, link, "HTTP/1.1 417 x\r\ncontent-length: 0\r\n\r\n");
    world_expect(w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
    world_expect(w, call, IOK_DONE, 0, NULL);
    assert_true(link->dead); /* it may wait for the body all the same */
    next_goes_well(w);
}

/* However a body is broken off, its connection ends, the server is not blamed, and nothing is left of it. */
static void test_broken_off(void **state)
{
    for (int how = 0; how < 6; how++) {
        struct world *w = world_new(URL);
        struct iok_link *link = world_connect(w);
        struct iok_call *call = request(w, "POST", how == 5 ? "100-continue" : NULL, iok_call_body), *one, *other;
        int code = IOK_ECANCELLED;

        (void)state;
        one = part(w, call, "abc", false);
        sim_accept(link, 0);
        other = part(w, call, "def", false);
        if (how == 0) { /* the call is cancelled */
            iok_cancel(call);
        } else if (how == 1 || how == 5) { /* a part that is under way, or waits for its go */
            iok_cancel(other);
        } else if (how == 2) { /* the same, in time */
            world_advance(w, TIMEOUT_S * SIM_S);
            code = IOK_ETIMEOUT;
        } else if (how == 3) { /* by a word */
            struct iok_call *word = iok_part_new(call, NULL);
            iok_part_fail(word, "why");
            world_hand_in(w, word);
            world_run(w);
            world_expect(w, word, IOK_DONE, 0, NULL);
        } else { /* the program has gone */
            iok_abandon(call);
        }
        world_run(w);
        assert_true(link->dead);
        if (how == 5) {
            world_expect(w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
            world_expect(w, other, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
        } else {
            bool cut = how == 1 || how == 2;

            world_expect(w, one, IOK_DONE, 0, NULL);
            world_expect(w, other, IOK_MAYBE_EXECUTED, cut ? code : IOK_ESTATE, NULL);
        }
        if (how != 4) {
            one = part(w, call, "ghi", false);
            world_expect(w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
            world_expect(w, call, IOK_MAYBE_EXECUTED, code, NULL);
        }
        next_goes_well(w);
    }
}

static void test_wrong_length(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = iok_call_new(w->port, w->service, NULL), *one;

    (void)state;
    iok_call_text(call, "POST", 4);
    iok_call_text(call, "/", 1);
    iok_call_null(call);
    iok_call_text(call, "content-length", 14);
    iok_call_i64(call, 5);
    iok_call_body(call);
    world_hand_in(w, call);
    world_run(w);
    one = part(w, call, "abc", true);
    world_expect(w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_EINVAL, NULL);
    assert_true(link->dead);
    next_goes_well(w);
}

/* An answer ends the body: what is not sent yet is dropped, and the connection takes no other request. */
static void test_early_answer(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "POST", NULL, iok_call_body), *one;

    (void)state;
    sim_accept(link, 0);
    one = part(w, call, "abc", false);
    arrive(w, link, "HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n");
    world_expect(w, one, IOK_MAYBE_EXECUTED, IOK_ESTATE, NULL);
    one = part(w, call, "def", false);
    world_expect(w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
    world_expect(w, call, IOK_DONE, 0, NULL);
    assert_true(link->dead);
    next_goes_well(w);
}

/* What was used up is not sent again, nor is what was given out asked for again; the rest is. */
static void test_repeats(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "PUT", NULL, iok_call_body), *one;
    size_t n;

    (void)state;
    one = part(w, call, "abc", false);
    world_expect(w, one, IOK_DONE, 0, NULL);
    sim_fail(link, IOK_ERESET);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    call = request(w, "PUT", "100-continue", iok_call_body); /* nothing of its body is */
    one = part(w, call, "abc", true);
    world_advance(w, SIM_S);
    link = world_connect(w);
    sim_fail(link, IOK_ERESET);
    world_advance(w, SIM_S);
    link = world_connect(w);
    arrive(w, link, "HTTP/1.1 100 Continue\r\n\r\n");
    world_expect(w, one, IOK_DONE, 0, NULL);
    arrive(w, link, OK);
    world_expect(w, call, IOK_DONE, 0, NULL);
    call = request(w, "GET", NULL, iok_call_parts);
    sim_fail(link, IOK_ERESET);
    world_advance(w, SIM_S);
    link = world_connect(w);
    arrive(w, link, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
    world_take(w);
    assert_int_equal(iok_call_message(call, &n)[1].i, 200);
    iok_call_next(call);
    assert_int_equal(iok_call_message(call, &n)->p[0], 'o');
    sim_fail(link, IOK_ERESET);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_free(w);
}

/* A reader that is slow stops its connection and no other, and its deadline. */
static void test_slow_reader(void **state)
{
    static char piece[100001];
    struct world *w = world_new(URL "&retries=0");
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "GET", NULL, iok_call_parts);
    unsigned sent = 0;
    size_t n, got = 0;
    struct iok_error err;

    (void)state;
    memset(piece, 'x', sizeof(piece) - 1);
    arrive(w, link, "HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n");
    while (link->reading) {
        sim_arrive_bytes(link, piece, sizeof(piece) - 1);
        assert_true(++sent < 100);
    }
    assert_true(sent > 5 && sent < 13);
    world_advance(w, 600 * SIM_S);
    world_take(w);
    world_pending(w, call);
    for (const struct iok_token *tokens; (tokens = iok_call_message(call, &n)) != NULL;) {
        got += tokens->type == IOK_BYTES ? tokens->len : 0;
        iok_call_next(call);
        world_run(w);
    }
    assert_int_equal(got, sent * (sizeof(piece) - 1));
    assert_true(link->reading);
    world_advance(w, TIMEOUT_S * SIM_S); /* now it is the server's time */
    world_take(w);
    assert_int_equal(iok_call_error(call, &err), IOK_ETIMEOUT);
    assert_string_equal(err.text, "nothing more of a reply within 5 s");
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    next_goes_well(w);
}

/* The credit for a stream that has ended, and was freed, before the kernel gets to know of it. */
static void test_late_credit(void **state)
{
    static char piece[100001];
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "GET", NULL, iok_call_parts);
    size_t n;

    (void)state;
    memset(piece, 'x', sizeof(piece) - 1);
    arrive(w, link, "HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n");
    while (link->reading) {
        sim_arrive_bytes(link, piece, sizeof(piece) - 1);
    }
    world_take(w);
    while (iok_call_message(call, &n) != NULL) {
        iok_call_next(call);
    }
    iok_abandon(call);
    world_run(w);
    assert_true(link->dead);
    next_goes_well(w);
}

/* ---- behind a 101 ---- */

struct raw {
    struct world *w;
    struct iok_lease *lease;
    struct iok_call *call;
    struct iok_link *link;
};

static void upgrade(struct raw *r)
{
    size_t n;

    r->w = world_new(URL "&leases=1");
    (void)world_connect(r->w); /* the shared one */
    r->lease = iok_lease_new(r->w->port, r->w->service, NULL);
    r->call = iok_call_new(r->w->port, r->w->service, NULL);
    iok_call_text(r->call, "GET", 3);
    iok_call_text(r->call, "/", 1);
    iok_call_null(r->call);
    iok_call_text(r->call, "upgrade", 7);
    iok_call_text(r->call, "echo", 4);
    iok_call_body(r->call);
    iok_call_parts(r->call);
    iok_call_lease(r->call, r->lease);
    world_hand_in(r->w, r->call);
    world_run(r->w);
    r->link = world_connect(r->w);
    arrive(r->w, r->link, "HTTP/1.1 101 x\r\n\r\nhello");
    world_take(r->w);
    assert_int_equal(iok_call_message(r->call, &n)[1].i, 101);
    iok_call_next(r->call);
}

static void gives(struct raw *r, const char *bytes)
{
    size_t n;
    const struct iok_token *token;

    world_take(r->w);
    token = iok_call_message(r->call, &n);
    assert_non_null(token);
    assert_int_equal(token->len, strlen(bytes));
    assert_memory_equal(token->p, bytes, token->len);
    iok_call_next(r->call);
}

static void finish(struct raw *r)
{
    iok_lease_free(r->lease);
    world_run(r->w);
    next_goes_well_on(r->w, r->w->sim.links[0].dead ? NULL : &r->w->sim.links[0]);
}

static void test_raw_we_end_first(void **state)
{
    struct raw r;

    (void)state;
    upgrade(&r);
    gives(&r, "hello");
    world_advance(r.w, 600 * SIM_S); /* as long as the two like */
    sim_clear(r.link);
    world_expect(r.w, part(r.w, r.call, "abc", false), IOK_DONE, 0, NULL);
    sim_accept(r.link, 1);
    world_pending(r.w, part(r.w, r.call, "de", true));
    assert_string_equal(r.link->got, "abcd");
    assert_false(r.link->shut); /* all has to be out first */
    sim_accept(r.link, 100);
    world_run(r.w);
    assert_string_equal(r.link->got, "abcde");
    assert_true(r.link->shut);
    world_advance(r.w, 600 * SIM_S);
    arrive(r.w, r.link, "more");
    gives(&r, "more");
    world_pending(r.w, r.call);
    iok_service_want_pump(r.w->service);
    world_run(r.w);
    assert_int_equal(sim_live_links(&r.w->sim), 1); /* the shared one was idle, and this needs no other */
    sim_end(r.link);
    world_run(r.w);
    world_expect(r.w, r.call, IOK_DONE, 0, NULL);
    assert_true(r.link->dead);
    finish(&r);
}

static void test_raw_peer_ends_first(void **state)
{
    struct raw r;

    (void)state;
    upgrade(&r);
    gives(&r, "hello");
    sim_end(r.link);
    world_run(r.w);
    gives(&r, "");
    world_pending(r.w, r.call);
    sim_accept(r.link, 1);
    world_pending(r.w, part(r.w, r.call, "abc", true));
    assert_false(r.link->dead);
    sim_accept(r.link, 100);
    world_run(r.w);
    assert_true(r.link->shut && r.link->dead);
    world_expect(r.w, r.call, IOK_DONE, 0, NULL);
    finish(&r);
    upgrade(&r); /* both at once: its end comes while ours is on its way */
    sim_accept(r.link, 0);
    world_pending(r.w, part(r.w, r.call, "abc", true));
    sim_end(r.link);
    world_run(r.w);
    world_pending(r.w, r.call);
    assert_false(r.link->dead);
    sim_accept(r.link, 100);
    world_run(r.w);
    gives(&r, "hello");
    world_expect(r.w, r.call, IOK_DONE, 0, NULL);
    finish(&r);
}

static void test_raw_other_ends(void **state)
{
    struct raw r;

    (void)state;
    upgrade(&r);
    sim_fail(r.link, IOK_ERESET);
    world_run(r.w);
    world_expect(r.w, r.call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    finish(&r);
    upgrade(&r);
    sim_fail(r.link, 0); /* at once in both directions */
    world_run(r.w);
    world_expect(r.w, r.call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    finish(&r);
    upgrade(&r);
    iok_cancel(r.call);
    world_run(r.w);
    world_expect(r.w, r.call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_true(r.link->dead);
    finish(&r);
    upgrade(&r);
    iok_lease_free(r.lease);
    world_run(r.w);
    world_expect(r.w, r.call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_true(r.link->dead);
    next_goes_well_on(r.w, &r.w->sim.links[0]);
}

static void test_raw_needs_a_lease(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    (void)state;
    iok_call_text(call, "GET", 3);
    iok_call_text(call, "/", 1);
    iok_call_null(call);
    iok_call_text(call, "Upgrade", 7);
    iok_call_text(call, "echo", 4);
    iok_call_body(call);
    iok_call_parts(call);
    world_hand_in(w, call);
    world_run(w);
    world_expect(w, call, IOK_NEVER_SENT, IOK_EUNSAFE, NULL);
    next_goes_well_on(w, link);
}

static void announce_both(struct iok_call *call)
{
    iok_call_body(call);
    iok_call_parts(call);
}

/* The head of an answer may come while the body is still being sent: the time until its end is the program's. */
static void test_answer_beside_the_body(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "POST", NULL, announce_both), *one;

    (void)state;
    one = part(w, call, "abc", false);
    world_expect(w, one, IOK_DONE, 0, NULL);
    arrive(w, link, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
    world_advance(w, 2 * TIMEOUT_S * SIM_S);
    world_pending(w, call);
    one = part(w, call, "de", true);
    world_expect(w, one, IOK_DONE, 0, NULL);
    world_advance(w, (TIMEOUT_S - 2) * SIM_S);
    world_pending(w, call);
    world_advance(w, TIMEOUT_S * SIM_S); /* from then on it is the server's */
    world_take(w);
    while (iok_call_message(call, &(size_t){0}) != NULL) {
        iok_call_next(call);
    }
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    next_goes_well(w);
}

/* The second in which the server may say that it wants the body is no deadline of the call once its connection is lost. */
static void test_expect_and_lost(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = request(w, "PUT", "100-continue", iok_call_body);

    (void)state;
    sim_fail(link, IOK_ERESET);
    world_advance(w, 4 * SIM_S);
    world_pending(w, call);
    world_advance(w, 2 * SIM_S);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL); /* it names what kept it from going on */
    call = iok_call_new(w->port, w->service, NULL);              /* without a deadline there is none at all */
    iok_call_text(call, "PUT", 3);
    iok_call_text(call, "/", 1);
    iok_call_null(call);
    iok_call_text(call, "expect", 6);
    iok_call_text(call, "100-continue", 12);
    iok_call_body(call);
    iok_call_timeout(call, -1);
    world_hand_in(w, call);
    world_run(w);
    link = world_connect(w);
    sim_fail(link, IOK_ERESET);
    world_advance(w, 10 * SIM_S);
    world_pending(w, call);
    iok_abandon(call);
    world_run(w);
    world_take(w);
    next_goes_well(w);
}

/* A server that says so takes no more requests, from a lease either. */
static void test_lease_and_close(void **state)
{
    struct world *w = world_new(URL "&leases=1");
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
    struct iok_link *link;

    (void)state;
    world_connect(w);
    for (int i = 0; i < 2; i++) {
        struct iok_call *call = iok_call_new(w->port, w->service, NULL);

        iok_call_text(call, "GET", 3);
        iok_call_text(call, "/", 1);
        iok_call_lease(call, lease);
        world_hand_in(w, call);
        world_run(w);
        if (i == 0) {
            link = world_connect(w);
            arrive(w, link, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
            world_expect(w, call, IOK_DONE, 0, NULL);
            sim_clear(link);
        } else {
            world_expect(w, call, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
            assert_int_equal(link->n_got, 0);
        }
    }
    iok_lease_free(lease);
    next_goes_well_on(w, &w->sim.links[0]);
}

/* Parked calls have the clock of the program, and not that of the network. */
static void announce_for_ever(struct iok_call *call)
{
    iok_call_body(call);
    iok_call_timeout(call, -1);
}

/* A call that waits for room on its port has its parts behind it; of one that is lost then, nothing is sent. */
static void test_parked(void **state)
{
    for (int how = 0; how < 5; how++) {
        struct world *w = world_new(URL "&overload=wait");
        struct iok_link *link = world_connect(w);
        struct iok_call *first, *call, *one, *other;

        (void)state;
        w->port->calls_max = 2;
        first = request(w, "GET", NULL, NULL);
        other = request(w, "GET", NULL, NULL);
        call = request(w, "POST", NULL, announce_for_ever);
        one = part(w, call, "abc", false);
        assert_int_equal(w->port->n_parked, 2);
        if (how == 1) {
            iok_cancel(one);
        } else if (how == 2) { /* where the call has left it behind */
            iok_abandon(other);
            world_run(w);
            world_take(w);
            world_run(w);
            assert_int_equal(w->port->n_parked, 1);
            assert_int_equal(w->port->n_counted, 2);
            iok_cancel(one);
            world_run(w);
            other = NULL;
        } else if (how == 3) {
            iok_abandon(one);
            one = NULL;
        } else if (how == 4) {
            iok_abandon(call);
            call = NULL;
        }
        arrive(w, link, OK);
        world_expect(w, first, IOK_DONE, 0, NULL);
        world_run(w);
        if (other != NULL) {
            arrive(w, link, OK);
            world_expect(w, other, IOK_DONE, 0, NULL);
            world_run(w);
        }
        if (how == 0) {
            world_expect(w, one, IOK_DONE, 0, NULL);
            one = part(w, call, "de", true);
            world_expect(w, one, IOK_DONE, 0, NULL);
            assert_non_null(strstr(link->got, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
            arrive(w, link, OK);
            world_expect(w, call, IOK_DONE, 0, NULL);
        } else {
            assert_null(strstr(link->got, "abc"));
            if (one != NULL) {
                world_expect(w, one, IOK_NEVER_SENT, how == 4 ? IOK_ESTATE : IOK_ECANCELLED, NULL);
            }
            if (call != NULL) {
                world_expect(w, call, how == 2 ? iok_call_outcome(call) : IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
            }
        }
        assert_int_equal(w->port->n_parked, 0);
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_credits),          cmocka_unit_test(test_expect),
        cmocka_unit_test(test_broken_off),       cmocka_unit_test(test_wrong_length),
        cmocka_unit_test(test_early_answer),     cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_slow_reader),      cmocka_unit_test(test_late_credit),
        cmocka_unit_test(test_raw_we_end_first), cmocka_unit_test(test_raw_peer_ends_first),
        cmocka_unit_test(test_raw_other_ends),   cmocka_unit_test(test_raw_needs_a_lease),
        cmocka_unit_test(test_parked),           cmocka_unit_test(test_answer_beside_the_body),
        cmocka_unit_test(test_expect_and_lost),  cmocka_unit_test(test_lease_and_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
