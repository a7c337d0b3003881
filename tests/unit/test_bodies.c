/* test_bodies.c - requests with a body and replies in parts: credits, deadlines, what is cut short. PostgreSQL's COPY,
 * against a peer that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "postgresql://me@10.0.0.1/db?sslmode=disable&connections=1&timeout=5s&ping=0&max_stream_bytes=1m"
#define SIGNED_IN "R\0\0\0\10\0\0\0\0K\0\0\0\14\0\0\0\1\2\3\4\5Z\0\0\0\5I"
#define WANTED                                                                                                         \
    "1\0\0\0\4"                                                                                                        \
    "2\0\0\0\4"                                                                                                        \
    "G\0\0\0\7\0\0\0"
#define GIVES                                                                                                          \
    "1\0\0\0\4"                                                                                                        \
    "2\0\0\0\4"                                                                                                        \
    "H\0\0\0\7\0\0\0"
#define COMPLETE "C\0\0\0\13COPY 1\0Z\0\0\0\5I"
#define BROKEN "E\0\0\0\14C57014\0\0Z\0\0\0\5I"
#define ARRIVE(link, text) sim_arrive_bytes((link), text, sizeof(text) - 1)

struct copying {
    struct world *w;
    struct iok_lease *lease;
    struct iok_call *call;
    struct iok_link *link;
};

static struct iok_link *sign_in(struct world *w)
{
    struct iok_link *link = world_connect(w);

    ARRIVE(link, SIGNED_IN);
    world_run(w);
    sim_clear(link);
    return link;
}

static void begin(struct copying *c, void (*announce)(struct iok_call *call))
{
    c->w = world_new(URL);
    (void)sign_in(c->w); /* the shared connection */
    c->lease = iok_lease_new(c->w->port, c->w->service, NULL);
    c->call = iok_call_new(c->w->port, c->w->service, NULL);
    iok_call_text(c->call, "COPY t", 6);
    iok_call_lease(c->call, c->lease);
    announce(c->call);
    world_hand_in(c->w, c->call);
    world_run(c->w);
    c->link = sign_in(c->w);
}

static struct iok_call *part(struct copying *c, const char *bytes, bool end)
{
    struct iok_call *one = iok_part_new(c->call, NULL);

    assert_non_null(one);
    iok_call_bytes(one, bytes, strlen(bytes));
    if (end) {
        iok_part_end(one);
    }
    world_hand_in(c->w, one);
    world_run(c->w);
    return one;
}

static bool has(const struct copying *c, const char *bytes, size_t n)
{
    return memmem(c->link->got, c->link->n_got, bytes, n) != NULL;
}

static void finish(struct copying *c)
{
    iok_lease_free(c->lease);
    world_run(c->w);
    world_free(c->w);
}

/* A part waits until the peer wants it and until its bytes are taken. */
static void test_credits(void **state)
{
    struct copying c;
    struct iok_call *first, *last;

    (void)state;
    begin(&c, iok_call_body);
    first = part(&c, "1\n", false);
    world_pending(c.w, first);
    ARRIVE(c.link, WANTED);
    world_run(c.w);
    world_expect(c.w, first, IOK_DONE, 0, NULL);
    assert_true(has(&c, "d\0\0\0\0061\n", 7));
    sim_accept(c.link, 0);
    last = part(&c, "2\n", true);
    world_pending(c.w, last);
    sim_accept(c.link, 1000);
    world_run(c.w);
    world_expect(c.w, last, IOK_DONE, 0, NULL);
    assert_true(has(&c, "c\0\0\0\4S\0\0\0\4", 10));
    last = part(&c, "3\n", false); /* behind the end */
    world_expect(c.w, last, IOK_NEVER_SENT, IOK_ESTATE, NULL);
    ARRIVE(c.link, COMPLETE);
    world_run(c.w);
    world_expect(c.w, c.call, IOK_DONE, 0, NULL);
    finish(&c);
}

/* The program may take its time, the peer not. */
static void test_deadlines(void **state)
{
    struct copying c;
    struct iok_call *one;

    (void)state;
    begin(&c, iok_call_body);
    ARRIVE(c.link, WANTED);
    world_run(c.w);
    world_advance(c.w, 600 * SIM_S);
    world_pending(c.w, c.call);
    sim_accept(c.link, 0);
    one = part(&c, "1\n", false);
    world_advance(c.w, 6 * SIM_S);
    world_expect(c.w, one, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    one = part(&c, "2\n", false); /* a body has no hole */
    world_expect(c.w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
    sim_accept(c.link, 1000);
    world_run(c.w);
    assert_true(has(&c, "f\0\0\0", 4));
    ARRIVE(c.link, BROKEN);
    world_run(c.w);
    world_expect(c.w, c.call, IOK_DONE, 0, NULL);
    finish(&c);
    begin(&c, iok_call_body); /* and from the end on the reply's deadline counts */
    ARRIVE(c.link, WANTED);
    world_run(c.w);
    world_advance(c.w, 600 * SIM_S);
    one = part(&c, "1\n", true);
    world_expect(c.w, one, IOK_DONE, 0, NULL);
    world_pending(c.w, c.call);
    world_advance(c.w, 6 * SIM_S);
    world_expect(c.w, c.call, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    finish(&c);
}

/* Freed by the program while a part of it is alive; cancelled before the body is wanted; lost. */
static void test_ends(void **state)
{
    struct copying c;
    struct iok_call *one;

    (void)state;
    begin(&c, iok_call_body);
    one = part(&c, "1\n", false);
    iok_abandon(c.call);
    world_run(c.w);
    world_expect(c.w, one, IOK_NEVER_SENT, IOK_ESTATE, NULL);
    ARRIVE(c.link, WANTED);
    world_run(c.w);
    assert_true(has(&c, "f\0\0\0\16cancelled\0S\0\0\0\4", 20));
    ARRIVE(c.link, BROKEN);
    world_run(c.w);
    assert_false(c.link->dead);
    finish(&c);
    begin(&c, iok_call_body);
    ARRIVE(c.link, WANTED);
    world_run(c.w);
    sim_accept(c.link, 0);
    one = part(&c, "1\n", false);
    sim_fail(c.link, IOK_ERESET);
    world_run(c.w);
    world_expect(c.w, one, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_expect(c.w, c.call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    finish(&c);
}

/* Nothing is dropped, the connection pauses, and that is not the peer's fault. */
static void test_slow_reader(void **state)
{
    enum { ROW = 100000 };
    static uint8_t row[5 + ROW] = {'d', 0, 1, 0x86, 0xa4};
    struct copying c;
    unsigned sent = 0, got = 0;
    size_t n;

    (void)state;
    begin(&c, iok_call_parts);
    ARRIVE(c.link, GIVES);
    world_run(c.w);
    while (c.link->reading) {
        sim_arrive_bytes(c.link, row, sizeof(row));
        assert_true(++sent < 100);
    }
    assert_true(sent > 5 && sent < 13);
    world_advance(c.w, 600 * SIM_S);
    world_take(c.w);
    world_pending(c.w, c.call);
    for (const struct iok_token *tokens; (tokens = iok_call_message(c.call, &n)) != NULL; got++) {
        assert_int_equal(n, 1);
        assert_int_equal(tokens->len, ROW);
        iok_call_next(c.call);
        world_run(c.w);
    }
    assert_int_equal(got, sent);
    assert_true(c.link->reading);
    ARRIVE(c.link, "c\0\0\0\4" COMPLETE);
    world_run(c.w);
    world_expect(c.w, c.call, IOK_DONE, 0, NULL);
    finish(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_credits),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_slow_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
