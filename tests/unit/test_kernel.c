/* test_kernel.c - the deterministic core against a peer that the test plays: what happens to a call, on good days and
 * on bad ones. test_lease.c has the leases. No threads, no sockets, and time passes only when told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "line://10.0.0.1:7000"

static uint64_t count(const struct iok_count *counter)
{
    return iok_count_get(counter);
}

/* A call in flight, and a connection that carries it. */
static struct iok_call *in_flight(struct world *w, const char *text, int64_t timeout_ms)
{
    struct iok_call *call = world_submit(w, text, timeout_ms, NULL);

    world_run(w);
    return call;
}

static void test_done(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *a = world_submit(w, "one", 0, NULL);
    struct iok_call *b = world_submit(w, "two", 0, NULL);
    struct iok_stamps at;
    uint64_t start = w->sim.now;

    (void)state;
    w->sim.now += SIM_MS;
    world_run(w);
    assert_string_equal(link->got, "one\ntwo\n"); /* one write for both */
    w->sim.now += 2 * SIM_MS;
    sim_arrive(link, "ONE\nTW");
    world_run(w);
    world_pending(w, b);
    iok_call_stamps(a, &at);
    assert_int_equal(at.taken - start, SIM_MS);
    assert_int_equal(at.sent - start, SIM_MS);
    assert_int_equal(at.first_byte - start, 3 * SIM_MS);
    assert_int_equal(at.complete - start, 3 * SIM_MS);
    assert_string_equal(iok_call_endpoint(a), "10.0.0.1:7000");
    world_expect(w, a, IOK_DONE, 0, "ONE");
    sim_arrive(link, "O\n");
    world_run(w);
    world_expect(w, b, IOK_DONE, 0, "TWO");
    assert_int_equal(count(&w->service->ended[IOK_DONE]), 2);
    world_free(w);
}

static void test_ready_call(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    (void)state;
    iok_call_ready(call);
    world_hand_in(w, call);
    world_run(w);
    world_pending(w, call);
    world_connect(w);
    world_expect(w, call, IOK_DONE, 0, NULL);
    assert_string_equal(sim_last(&w->sim)->got, "");
    world_free(w);
}

static void test_bad_call_harms_no_other(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *good = in_flight(w, "good", 0);
    struct iok_call *bad = in_flight(w, "a\nb", 0);

    (void)state;
    world_expect(w, bad, IOK_NEVER_SENT, IOK_EINVAL, NULL);
    sim_arrive(link, "GOOD\n");
    world_expect(w, good, IOK_DONE, 0, "GOOD");
    world_free(w);
}

static void test_deadline_in_queue(void **state)
{
    struct world *w = world_new(URL "?max_inflight=1&connect_timeout=1h");
    struct iok_call *early = in_flight(w, "early", 100);
    struct iok_call *first, *second;

    (void)state;
    world_advance(w, 99 * SIM_MS);
    world_pending(w, early);
    world_advance(w, 3 * SIM_MS);
    world_expect(w, early, IOK_NEVER_SENT, IOK_ETIMEOUT, NULL);
    world_connect(w);
    first = in_flight(w, "first", 0);
    second = in_flight(w, "second", 50);
    world_advance(w, 53 * SIM_MS);
    world_expect(w, second, IOK_NEVER_SENT, IOK_ETIMEOUT, NULL);
    assert_string_equal(sim_last(&w->sim)->got, "first\n");
    world_pending(w, first);
    world_free(w);
}

static void test_deadline_in_flight(void **state)
{
    struct world *w = world_new(URL "?timeout=200ms");
    struct iok_link *link = world_connect(w);
    struct iok_call *late = in_flight(w, "late", 0);
    struct iok_call *next = in_flight(w, "next", 10000);

    (void)state;
    world_advance(w, 199 * SIM_MS);
    world_pending(w, late);
    world_advance(w, 3 * SIM_MS);
    world_expect(w, late, IOK_MAYBE_EXECUTED, IOK_ETIMEOUT, NULL);
    sim_arrive(link, "LATE\nNEXT\n"); /* the tombstone swallows its own reply, and only that */
    world_expect(w, next, IOK_DONE, 0, "NEXT");
    assert_false(link->dead);
    assert_int_equal(count(&w->service->cancelled), 1);
    world_free(w);
}

/* What is longer than a call can say is the longest that it can; what is below 0 has no end. */
static void test_longest_deadlines(void **state)
{
    struct world *w = world_new(URL "?timeout=200ms");
    struct iok_call *longest = world_submit(w, "longest", INT64_MAX, NULL);
    struct iok_call *endless = world_submit(w, "endless", INT64_MIN, NULL);

    (void)state;
    world_run(w);
    assert_int_equal(longest->deadline_ns, longest->submitted + (uint64_t)INT32_MAX * SIM_MS);
    assert_int_equal(endless->deadline_ns, 0);
    iok_abandon(longest);
    iok_abandon(endless);
    world_free(w);
}

/* A port refers once to the service of most of its calls, whichever of them ends first, and to others for each call. */
static void test_references_to_services(void **state)
{
    struct world *w = world_new(URL);
    struct iok_service *other = iok_service_new(w->port, URL, NULL);
    struct iok_call *calls[6];
    uint64_t before, before_other;

    (void)state;
    world_run(w);
    before = count(&w->service->refs);
    before_other = count(&other->refs);
    for (int i = 0; i < 6; i++) {
        calls[i] = iok_call_new(w->port, i % 2 == 0 ? w->service : other, NULL);
    }
    assert_int_equal(count(&w->service->refs), before + 1);
    assert_int_equal(count(&other->refs), before_other + 3);
    for (int i = 0; i < 5; i++) {
        iok_call_free(calls[i]);
    }
    assert_int_equal(count(&w->service->refs), before);
    assert_int_equal(count(&other->refs), before_other + 1);
    calls[0] = iok_call_new(w->port, other, NULL); /* the place is free: it is this one's now */
    calls[1] = iok_call_new(w->port, other, NULL);
    assert_int_equal(count(&other->refs), before_other + 2);
    iok_call_free(calls[5]); /* which has a reference of its own */
    iok_call_free(calls[0]);
    assert_int_equal(count(&other->refs), before_other + 1);
    iok_call_free(calls[1]);
    assert_int_equal(count(&other->refs), before_other);
    iok_service_close(other, w->port);
    iok_service_unref(other);
    world_free(w);
}

static void test_cancel_before_send(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *waits = in_flight(w, "waits", 0), *here;

    (void)state;
    assert_int_equal(count(&w->service->queued_now), 1);
    iok_cancel(waits);
    world_run(w);
    world_expect(w, waits, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    assert_int_equal(count(&w->service->queued_now), 0);
    here = world_submit(w, "here", 0, NULL);
    iok_cancel(here); /* submitted and cancelled in one turn */
    world_run(w);
    world_expect(w, here, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    world_connect(w);
    assert_string_equal(sim_last(&w->sim)->got, "");
    world_free(w);
}

static void test_cancel_in_flight(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *a = in_flight(w, "a", 0), *b = in_flight(w, "b", 0), *c = in_flight(w, "c", 0);

    (void)state;
    iok_cancel(b);
    iok_cancel(b);
    world_run(w);
    world_expect(w, b, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    sim_arrive(link, "A\nB\nC\n");
    world_expect(w, a, IOK_DONE, 0, "A");
    world_expect(w, c, IOK_DONE, 0, "C");
    assert_false(link->dead);
    world_free(w);
}

static void test_cancel_after_end(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = in_flight(w, "a", 0);

    (void)state;
    sim_arrive(link, "A\n");
    iok_cancel(call); /* the reply is in the ring already */
    world_run(w);
    world_expect(w, call, IOK_DONE, 0, "A");
    world_free(w);
}

/* redis, as it begins a reply before all of it is there: then the rest must be read and dropped. */
static void test_cancel_in_mid_reply(void **state)
{
    const char *const get[] = {"GET", "k", NULL};
    struct world *w = world_new("redis://10.0.0.1:7000?protocol=2");
    struct iok_link *link = world_connect(w);
    struct iok_call *cut, *next;

    (void)state;
    for (const char *at = link->got; (at = strstr(at, "*")) != NULL; at++) {
        sim_arrive(link, "+OK\r\n"); /* to each step of the sign-in */
    }
    cut = world_command(w, NULL, get);
    next = world_command(w, NULL, get);
    sim_arrive(link, "$10\r\n01234");
    world_run(w);
    world_pending(w, cut);
    iok_cancel(cut);
    world_run(w);
    world_expect(w, cut, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    sim_arrive(link, "56789\r\n$1\r\nx\r\n");
    world_expect(w, next, IOK_DONE, 0, "x");
    assert_false(link->dead);
    world_free(w);
}

/* A tombstone takes room on its connection until it is answered; then what waited goes on. */
static void test_queue_moves_after_tombstone(void **state)
{
    struct world *w = world_new(URL "?max_inflight=1");
    struct iok_link *link = world_connect(w);
    struct iok_call *cut = in_flight(w, "cut", 0), *next = in_flight(w, "next", 0);

    (void)state;
    iok_cancel(cut);
    world_run(w);
    world_expect(w, cut, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    assert_string_equal(link->got, "cut\n");
    sim_arrive(link, "CUT\n");
    world_run(w);
    assert_string_equal(link->got, "cut\nnext\n");
    sim_arrive(link, "NEXT\n");
    world_expect(w, next, IOK_DONE, 0, "NEXT");
    world_free(w);
}

static struct iok_link *reconnect(struct world *w)
{
    unsigned before = w->sim.n_links;

    world_advance(w, 20 * SIM_MS); /* the first delay is at most 10 ms */
    assert_int_equal(w->sim.n_links, before + 1);
    return world_connect(w);
}

static void test_lost_before_handed_over(void **state)
{
    struct world *w = world_new(URL "?retries=0");
    struct iok_link *link = world_connect(w);
    struct iok_call *out, *half, *none;

    (void)state;
    sim_accept(link, 6);
    out = in_flight(w, "out", 0);
    half = in_flight(w, "half", 0); /* 2 of its 5 bytes */
    none = in_flight(w, "none", 0);
    assert_string_equal(link->got, "out\nha");
    sim_fail(link, IOK_ERESET);
    world_run(w);
    world_expect(w, out, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL); /* no repeats: retries=0 */
    world_pending(w, half);
    link = reconnect(w);
    assert_string_equal(link->got, "half\nnone\n"); /* in their order, and from their first byte */
    sim_arrive(link, "HALF\nNONE\n");
    world_expect(w, half, IOK_DONE, 0, "HALF");
    world_expect(w, none, IOK_DONE, 0, "NONE");
    assert_int_equal(count(&w->service->retries), 2);
    world_free(w);
}

static void test_repeatable_is_repeated(void **state)
{
    struct world *w = world_new(URL "?retries=2");
    struct iok_link *link = world_connect(w);
    struct iok_call *call = in_flight(w, "again", 0);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(link->got, "again\n");
        sim_fail(link, i == 0 ? IOK_ERESET : 0);
        world_run(w);
        world_pending(w, call);
        link = reconnect(w);
    }
    sim_fail(link, IOK_ERESET); /* the third attempt was the last */
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_free(w);
}

static void test_not_repeatable(void **state)
{
    const char *const incr[] = {"INCR", "k", NULL}, *const get[] = {"GET", "k", NULL};
    struct world *w = world_new("redis://10.0.0.1:7000?protocol=2");
    struct iok_link *link = world_connect(w);
    struct iok_call *write, *read;

    (void)state;
    for (const char *at = link->got; (at = strstr(at, "*")) != NULL; at++) {
        sim_arrive(link, "+OK\r\n");
    }
    write = world_command(w, NULL, incr);
    read = world_command(w, NULL, get);
    sim_fail(link, 0);
    world_run(w);
    world_expect(w, write, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_pending(w, read);
    world_free(w);
}

/* Delays between two attempts: the first from 5 to 10 ms, doubling, at most 2 s, each with jitter. */
static void test_backoff(void **state)
{
    struct world *w = world_new(URL);
    uint64_t step = 10 * SIM_MS, longest = 0;
    bool differ = false;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        unsigned before = w->sim.n_links;
        uint64_t start = w->sim.now, delay;

        sim_fail(sim_last(&w->sim), IOK_EREFUSED);
        world_run(w);
        while (w->sim.n_links == before) {
            assert_true(w->sim.now - start < 3 * SIM_S);
            world_advance(w, SIM_MS / 4);
        }
        delay = w->sim.now - start;
        assert_true(delay >= step / 2 && delay < step + 2 * SIM_MS); /* the wheel turns in ticks of 1.05 ms */
        differ |= step == 2 * SIM_S && delay / SIM_MS != longest / SIM_MS;
        longest = delay;
        step = step * 2 < 2 * SIM_S ? step * 2 : 2 * SIM_S;
    }
    assert_true(differ);
    assert_int_equal(count(&w->service->connect_failures), 20);
    world_connect(w);
    sim_fail(sim_last(&w->sim), IOK_ERESET); /* it had been well: from the start again */
    world_run(w);
    reconnect(w);
    world_free(w);
}

static void test_refused_until_deadline(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *call = in_flight(w, "a", 300);
    struct iok_error err;
    uint64_t start = w->sim.now;

    (void)state;
    while (w->sim.now - start < 303 * SIM_MS) {
        if (!sim_last(&w->sim)->dead) {
            sim_fail(sim_last(&w->sim), IOK_EREFUSED);
        }
        world_advance(w, SIM_MS);
    }
    while (iok_poll(w->port) != NULL) {
    }
    assert_int_equal(iok_call_error(call, &err), IOK_EREFUSED);
    assert_non_null(strstr(err.text, "refused by 10.0.0.1:7000"));
    world_expect(w, call, IOK_NEVER_SENT, IOK_EREFUSED, NULL);
    world_free(w);
}

static void test_cannot_open(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *call = in_flight(w, "a", 0);

    (void)state;
    w->sim.cannot_open = true;
    sim_fail(sim_last(&w->sim), IOK_EREFUSED);
    world_advance(w, SIM_S);
    assert_true(count(&w->service->connect_failures) > 3);
    w->sim.cannot_open = false;
    world_advance(w, 2 * SIM_S);
    sim_arrive(world_connect(w), "A\n");
    world_expect(w, call, IOK_DONE, 0, "A");
    world_free(w);
}

static void test_overload(void **state)
{
    struct world *w = world_new(URL "?max_inflight=2&max_queued=3");
    struct iok_call *calls[8];
    struct iok_link *link;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        calls[i] = in_flight(w, "x", 0); /* no connection yet: all of them wait */
    }
    for (unsigned i = 5; i < 8; i++) {
        world_expect(w, calls[i], IOK_NEVER_SENT, IOK_EOVERLOAD, NULL);
    }
    link = world_connect(w);
    assert_string_equal(link->got, "x\nx\n");
    calls[5] = in_flight(w, "y", 0);
    world_expect(w, calls[5], IOK_NEVER_SENT, IOK_EOVERLOAD, NULL);
    sim_arrive(link, "X\n");
    world_run(w);
    calls[5] = in_flight(w, "z", 0);
    sim_arrive(link, "X\n");
    world_run(w);
    sim_arrive(link, "X\nX\n");
    world_run(w);
    sim_arrive(link, "X\nZ\n");
    for (unsigned i = 0; i < 5; i++) {
        world_expect(w, calls[i], IOK_DONE, 0, "X");
    }
    world_expect(w, calls[5], IOK_DONE, 0, "Z");
    world_free(w);
}

static void test_service_close(void **state)
{
    struct world *w = world_new(URL "?max_inflight=1");
    struct iok_link *link = world_connect(w);
    struct iok_call *sent = in_flight(w, "sent", 0), *waits = in_flight(w, "waits", 0), *after;

    (void)state;
    iok_service_close(w->service, w->port);
    iok_service_close(w->service, w->port);
    world_run(w);
    world_expect(w, sent, IOK_MAYBE_EXECUTED, IOK_ECLOSED, NULL);
    world_expect(w, waits, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
    assert_true(link->closed_by_us);
    after = in_flight(w, "after", 0);
    world_expect(w, after, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
    world_advance(w, 10 * SIM_S);
    assert_int_equal(sim_live_links(&w->sim), 0);
    world_free(w);
}

static void test_kernel_stops(void **state)
{
    struct world *w = world_new(URL "?max_inflight=1");
    struct iok_call *sent, *waits, *untaken;

    (void)state;
    world_connect(w);
    sent = in_flight(w, "sent", 0);
    waits = in_flight(w, "waits", 0);
    iok_core_stop(w->core);
    untaken = world_submit(w, "untaken", 0, NULL);
    world_expect(w, sent, IOK_MAYBE_EXECUTED, IOK_ECLOSED, NULL);
    world_expect(w, waits, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
    world_expect(w, untaken, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
    world_free(w);
}

/* A large argument is sent by reference, in as many pieces as the peer takes. */
static void test_partial_sends(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    char big[10001] = "";
    struct iok_call *a, *b;

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    sim_accept(link, 0);
    a = in_flight(w, big, 0);
    b = in_flight(w, "b", 0);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(link->n_got, 101 * i);
        sim_accept(link, 101);
        world_run(w);
    }
    world_pending(w, a);
    assert_int_equal(a->stamps.sent, 0);
    sim_accept(link, SIZE_MAX);
    world_run(w);
    assert_int_equal(link->n_got, 10003);
    assert_memory_equal(link->got, big, 10000);
    assert_string_equal(link->got + 10000, "\nb\n");
    assert_true(a->stamps.sent != 0);
    sim_arrive(link, "A\nB\n");
    world_expect(w, a, IOK_DONE, 0, "A");
    world_expect(w, b, IOK_DONE, 0, "B");
    world_free(w);
}

static void note_release(void *arg)
{
    *(unsigned *)arg += 1;
}

/* Who holds the bytes of a call that ends when a part of them is out? Not the program: the stream stays whole. */
static void end_half_sent(bool cancel)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *call = iok_call_new(w->port, w->service, NULL), *next;
    char *big = malloc(20001);
    unsigned released = 0;

    assert_non_null(big);
    memset(big, 'y', 20000);
    big[20000] = '\0';
    sim_accept(link, 100);
    iok_call_ref(call, big, 20000, note_release, &released);
    world_hand_in(w, call);
    world_run(w);
    next = in_flight(w, "next", 0);
    if (cancel) {
        iok_cancel(call);
        world_run(w);
        world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    } else {
        sim_arrive(link, "early\n"); /* a peer that answers before it has all */
        world_run(w);
        world_expect(w, call, IOK_DONE, 0, "early");
    }
    assert_int_equal(released, 1);
    free(big);
    sim_accept(link, SIZE_MAX);
    world_run(w);
    assert_int_equal(link->n_got, 20006);
    assert_int_equal(strspn(link->got, "y"), 20000);
    assert_string_equal(link->got + 20000, "\nnext\n");
    sim_arrive(link, cancel ? "Y\nNEXT\n" : "NEXT\n");
    world_expect(w, next, IOK_DONE, 0, "NEXT");
    world_free(w);
}

static void test_cancel_half_sent(void **state)
{
    (void)state;
    end_half_sent(true);
}

static void test_reply_to_half_sent(void **state)
{
    (void)state;
    end_half_sent(false);
}

/* Calls stay in the queue, and so NEVER_SENT, while a quarter of a megabyte waits to be sent. */
static void test_blocked_peer(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *calls[20];
    char *big = calloc(1, 30001);

    (void)state;
    assert_non_null(big);
    memset(big, 'z', 30000);
    sim_accept(link, 0);
    for (unsigned i = 0; i < 20; i++) {
        calls[i] = in_flight(w, big, 0);
    }
    free(big);
    assert_int_equal(w->service->n_inflight, 9); /* 9 of 30 kB are more than 256 KiB */
    iok_cancel(calls[0]);
    world_run(w);
    world_expect(w, calls[0], IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    sim_accept(link, SIZE_MAX);
    world_run(w);
    assert_int_equal(link->n_got, 20 * 30001);
    for (unsigned i = 0; i < 20; i++) {
        sim_arrive(link, "Z\n");
    }
    for (unsigned i = 1; i < 20; i++) {
        world_expect(w, calls[i], IOK_DONE, 0, "Z");
    }
    world_free(w);
}

static void test_ping(void **state)
{
    struct world *w = world_new(URL "?ping=4s&ping_timeout=1s");
    struct iok_link *link = world_connect(w);

    (void)state;
    world_advance(w, 2900 * SIM_MS); /* silence of 3 to 5 s: timers of many connections share a grid */
    assert_string_equal(link->got, "");
    world_advance(w, 1600 * SIM_MS);
    assert_string_equal(link->got, "\n");
    assert_int_equal(count(&w->service->pings), 1);
    sim_arrive(link, "\n");
    world_run(w);
    world_advance(w, 2 * SIM_S);
    assert_false(link->dead);
    world_advance(w, 6 * SIM_S);
    assert_true(link->closed_by_us); /* nobody answered the second one */
    assert_int_equal(count(&w->service->pings), 2);
    assert_non_null(strstr(w->service->endpoints[0].failure.text, "no answer to a ping for 1 s"));
    assert_int_equal(count(&w->service->disconnects), 1);
    assert_true(w->sim.n_links > 1); /* and again */
    world_free(w);
}

/* Silence of 4 to 5 s brings one, however long its answer might have taken. */
static void test_pings_go_on(void **state)
{
    struct world *w = world_new(URL "?ping=4s&ping_timeout=30s");
    struct iok_link *link = world_connect(w);

    (void)state;
    for (unsigned i = 1; i <= 5; i++) {
        world_advance(w, 5 * SIM_S);
        assert_int_equal(count(&w->service->pings), i);
        sim_arrive(link, "\n");
        world_run(w);
    }
    world_free(w);
}

static void test_traffic_needs_no_ping(void **state)
{
    struct world *w = world_new(URL "?ping=4s");
    struct iok_link *link = world_connect(w);

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct iok_call *call = in_flight(w, "a", 0);

        sim_arrive(link, "A\n");
        world_expect(w, call, IOK_DONE, 0, "A");
        world_advance(w, SIM_S);
    }
    assert_int_equal(count(&w->service->pings), 0);
    world_free(w);
}

static void test_peer_breaks_the_protocol(void **state)
{
    struct world *w = world_new(URL "?retries=0");
    struct iok_link *link = world_connect(w);
    struct iok_call *call;

    (void)state;
    sim_arrive(link, "who asked?\n");
    world_run(w);
    assert_true(link->closed_by_us);
    assert_int_equal(w->service->endpoints[0].failure.code, IOK_EPROTO);
    link = reconnect(w);
    call = in_flight(w, "a", 0);
    sim_arrive(link, "A\nB\n");
    world_run(w);
    world_expect(w, call, IOK_DONE, 0, "A"); /* it was answered before */
    assert_true(link->closed_by_us);
    world_free(w);
}

static void test_connect_timeout(void **state)
{
    struct world *w = world_new(URL "?connect_timeout=100ms");
    struct iok_link *link = sim_last(&w->sim);

    (void)state;
    world_advance(w, 102 * SIM_MS);
    assert_true(link->closed_by_us);
    assert_int_equal(w->service->endpoints[0].failure.code, IOK_ECONNECT);
    world_free(w);
}

static void test_names(void **state)
{
    struct world *w = world_new("line://cache.internal:7000");
    struct iok_call *call = in_flight(w, "a", 0);

    (void)state;
    assert_int_equal(w->sim.n_queries, 1);
    sim_resolved(&w->sim, NULL, 0, 0);
    world_run(w);
    assert_int_equal(w->service->endpoints[0].failure.code, IOK_ERESOLVE);
    world_advance(w, 20 * SIM_MS);
    assert_int_equal(w->sim.n_queries, 2); /* again, after a while */
    sim_resolved(&w->sim, "10.0.0.1", 7000, 60 * SIM_S);
    world_run(w);
    sim_fail(sim_last(&w->sim), IOK_EREFUSED);
    world_advance(w, 20 * SIM_MS);
    assert_int_equal(w->sim.n_queries, 3); /* refused: it may have moved */
    sim_resolved(&w->sim, NULL, 0, 0);
    world_run(w);
    sim_arrive(world_connect(w), "A\n"); /* the last good address stays */
    world_expect(w, call, IOK_DONE, 0, "A");
    world_free(w);
}

static void test_many_connections(void **state)
{
    struct world *w = world_new(URL "?connections=3");
    struct iok_call *calls[6];

    (void)state;
    assert_int_equal(w->sim.n_links, 3);
    for (unsigned i = 0; i < 3; i++) {
        sim_connect(&w->sim.links[i]);
    }
    world_run(w);
    for (unsigned i = 0; i < 6; i++) {
        calls[i] = in_flight(w, "a", 0);
    }
    for (unsigned i = 0; i < 3; i++) { /* evenly */
        assert_string_equal(w->sim.links[i].got, "a\na\n");
        sim_arrive(&w->sim.links[i], "A\nA\n");
    }
    for (unsigned i = 0; i < 6; i++) {
        world_expect(w, calls[i], IOK_DONE, 0, "A");
    }
    assert_int_equal(count(&w->service->ready_conns), 3);
    world_free(w);
}

/* What comes between two turns is dated by the clock, not by the turn before. */
static void test_time_of_connecting(void **state)
{
    struct world *w = world_new("line://10.0.0.1:7000?ping=1s&ping_timeout=1s");
    struct iok_service_stats stats;

    (void)state;
    w->sim.now += 900 * SIM_MS;
    sim_connect(sim_last(&w->sim));
    world_run(w);
    world_advance(w, 500 * SIM_MS);
    iok_service_stats(w->service, &stats);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.pings, 0);
    world_advance(w, SIM_S);
    iok_service_stats(w->service, &stats);
    assert_int_equal(stats.pings, 1);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_done),
        cmocka_unit_test(test_ready_call),
        cmocka_unit_test(test_bad_call_harms_no_other),
        cmocka_unit_test(test_deadline_in_queue),
        cmocka_unit_test(test_deadline_in_flight),
        cmocka_unit_test(test_longest_deadlines),
        cmocka_unit_test(test_references_to_services),
        cmocka_unit_test(test_cancel_before_send),
        cmocka_unit_test(test_cancel_in_flight),
        cmocka_unit_test(test_cancel_after_end),
        cmocka_unit_test(test_cancel_in_mid_reply),
        cmocka_unit_test(test_queue_moves_after_tombstone),
        cmocka_unit_test(test_lost_before_handed_over),
        cmocka_unit_test(test_repeatable_is_repeated),
        cmocka_unit_test(test_not_repeatable),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_refused_until_deadline),
        cmocka_unit_test(test_cannot_open),
        cmocka_unit_test(test_overload),
        cmocka_unit_test(test_service_close),
        cmocka_unit_test(test_kernel_stops),
        cmocka_unit_test(test_partial_sends),
        cmocka_unit_test(test_cancel_half_sent),
        cmocka_unit_test(test_reply_to_half_sent),
        cmocka_unit_test(test_blocked_peer),
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_pings_go_on),
        cmocka_unit_test(test_time_of_connecting),
        cmocka_unit_test(test_traffic_needs_no_ping),
        cmocka_unit_test(test_peer_breaks_the_protocol),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_many_connections),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
