/* test_streams.c - slow programs: streams that pause or drop when they are full, and what the program is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/base/mem.h"
#include "simnet.h"

#define REDIS "redis://10.0.0.1:7000?protocol=2"
#define POSTGRES "postgresql://me@10.0.0.1/db?sslmode=disable&connections=1"
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static uint64_t stat_of(const struct iok_count *count)
{
    return iok_count_get(count);
}

struct listening {
    struct world *w;
    struct iok_lease *lease;
    struct iok_call *call;
    struct iok_link *link;
};

static void listen_to(struct listening *l, const char *url)
{
    l->w = world_new(url);
    l->lease = iok_lease_new(l->w->port, l->w->service, NULL);
    world_sign_in(l->w);
    l->call = world_command(l->w, l->lease, WORDS("SUBSCRIBE", "news"));
    l->link = world_sign_in(l->w);
    sim_arrive(l->link, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    world_run(l->w);
    world_pending(l->w, l->call);
    iok_call_next((iok_call_message(l->call, &(size_t){0}), l->call)); /* the confirmation */
}

static void stop_listening(struct listening *l)
{
    iok_lease_free(l->lease);
    world_run(l->w);
    world_free(l->w);
}

/* A message with a number in a payload of n bytes. */
static void publish(struct listening *l, unsigned number, size_t n)
{
    size_t cap = n + 80;
    char *text = malloc(cap);

    assert_non_null(text);
    (void)snprintf(text, cap, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$%zu\r\n%0*u\r\n", n, (int)n, number);
    sim_arrive(l->link, text);
    free(text);
}

/* The number of the next message, which is not a notice; -1 if there is none. */
static int take(struct listening *l)
{
    const struct iok_token *tokens;
    char digits[16] = "";
    int number;
    size_t n;

    world_take(l->w);
    tokens = iok_call_message(l->call, &n);
    if (tokens == NULL) {
        return -1;
    }
    assert_int_equal(n, 4);
    assert_true(tokens[3].len >= 8);
    memcpy(digits, tokens[3].p + tokens[3].len - 8, 8);
    number = atoi(digits);
    iok_call_next(l->call);
    world_run(l->w);
    return number;
}

/* The next message must be a notice: how many were dropped. */
static int64_t take_notice(struct listening *l)
{
    const struct iok_token *tokens;
    int64_t dropped;
    size_t n;

    world_take(l->w);
    tokens = iok_call_message(l->call, &n);
    assert_non_null(tokens);
    assert_int_equal(n, 1);
    assert_int_equal(tokens->type, IOK_DROPPED);
    dropped = tokens->i;
    iok_call_next(l->call);
    world_run(l->w);
    return dropped;
}

static void test_stream_bytes_pause(void **state)
{
    struct listening l;
    unsigned sent = 0;

    (void)state;
    listen_to(&l, REDIS "&max_stream_bytes=1m");
    while (l.link->reading) {
        publish(&l, sent++, 100000);
        assert_true(sent < 100);
    }
    assert_true(sent > 5 && sent < 12); /* a megabyte, and what crosses the bound */
    assert_true(iok_count_get(&l.w->core->replies.bytes) < 1200000);
    for (unsigned i = 0; i < sent; i++) {
        assert_int_equal(take(&l), i);
        assert_int_equal(l.link->reading, i + 1 >= sent - 5); /* once half a megabyte or less is left */
    }
    assert_int_equal(take(&l), -1);
    assert_int_equal(stat_of(&l.w->service->dropped), 0);
    iok_abandon(l.call);
    stop_listening(&l);
}

/* The silence of a connection that is not read is no sign of a dead server. */
static void test_paused_stream_is_not_given_up(void **state)
{
    struct listening l;
    unsigned sent = 0;

    (void)state;
    listen_to(&l, REDIS "&max_stream_bytes=1m&ping=10s&ping_timeout=1s");
    while (l.link->reading) {
        publish(&l, sent++, 100000);
    }
    world_advance(l.w, 120 * SIM_S);
    assert_false(l.link->dead);
    world_pending(l.w, l.call);
    for (unsigned i = 0; i < sent; i++) {
        assert_int_equal(take(&l), i);
    }
    sim_clear(l.link);
    world_advance(l.w, 5 * SIM_S);
    assert_string_equal(l.link->got, "");
    world_advance(l.w, 20 * SIM_S); /* read again, it is watched again */
    assert_non_null(strstr(l.link->got, "PING"));
    assert_true(l.link->dead);
    world_expect(l.w, l.call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    stop_listening(&l);
}

static void test_stream_drops(void **state)
{
    const unsigned kept = IOK_STREAM_MESSAGES_MAX;
    struct listening l;

    (void)state;
    listen_to(&l, REDIS "&slow_consumer=drop");
    for (unsigned i = 0; i < 3000; i++) {
        publish(&l, i, 8);
    }
    assert_true(l.link->reading);
    assert_int_equal(stat_of(&l.w->service->dropped), 3000 - kept);
    for (unsigned i = 0; i < kept / 2; i++) {
        assert_int_equal(take(&l), i);
    }
    publish(&l, 3000, 8); /* half is taken: from here on messages are kept again */
    for (unsigned i = kept / 2; i < kept; i++) {
        assert_int_equal(take(&l), i);
    }
    assert_int_equal(take_notice(&l), 3000 - kept); /* where they are missing, and also if nothing had followed */
    assert_int_equal(take(&l), 3000);
    assert_int_equal(take(&l), -1);
    iok_abandon(l.call);
    stop_listening(&l);
}

/* A message that is half received when the program has caught up is dropped as a whole, and counted in time. */
static void test_dropped_message_in_pieces(void **state)
{
    const unsigned kept = IOK_STREAM_MESSAGES_MAX;
    struct listening l;

    (void)state;
    listen_to(&l, REDIS "&slow_consumer=drop");
    for (unsigned i = 0; i < kept + 10; i++) {
        publish(&l, i, 8);
    }
    sim_arrive(l.link, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$8\r\n0000");
    for (unsigned i = 0; i < kept; i++) {
        assert_int_equal(take(&l), i);
    }
    assert_int_equal(take_notice(&l), 11);
    sim_arrive(l.link, "1034\r\n");
    publish(&l, 1035, 8);
    assert_int_equal(take(&l), 1035);
    assert_int_equal(stat_of(&l.w->service->dropped), 11);
    iok_abandon(l.call);
    stop_listening(&l);
}

static void test_stream_drops_by_bytes(void **state)
{
    struct listening l;
    int64_t dropped = 0;
    int number, next = 0;

    (void)state;
    listen_to(&l, REDIS "&slow_consumer=drop&max_stream_bytes=1m");
    for (unsigned i = 0; i < 100; i++) {
        publish(&l, i, 100000);
        assert_true(iok_count_get(&l.w->core->replies.bytes) < 1200000);
    }
    while (next < 5) { /* more than half of them */
        assert_int_equal(take(&l), next++);
    }
    while (dropped == 0) {
        size_t n;
        const struct iok_token *tokens = iok_call_message(l.call, &n);

        assert_non_null(tokens);
        if (tokens->type == IOK_DROPPED) {
            dropped = take_notice(&l);
        } else {
            assert_int_equal(number = take(&l), next++);
        }
    }
    (void)number;
    assert_int_equal(dropped, 100 - next);
    assert_int_equal(stat_of(&l.w->service->dropped), dropped);
    iok_abandon(l.call);
    stop_listening(&l);
}

/* What was dropped is told before the end of a stream whose connection is lost. */
static void test_lost_while_dropping(void **state)
{
    struct listening l;
    unsigned n = 0;

    (void)state;
    listen_to(&l, REDIS "&slow_consumer=drop");
    for (unsigned i = 0; i < 2000; i++) {
        publish(&l, i, 8);
    }
    sim_fail(l.link, IOK_ERESET);
    world_run(l.w);
    while (n < IOK_STREAM_MESSAGES_MAX) {
        assert_int_equal(take(&l), n++);
    }
    assert_int_equal(take_notice(&l), 2000 - IOK_STREAM_MESSAGES_MAX);
    assert_int_equal(take(&l), -1);
    world_expect(l.w, l.call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    stop_listening(&l);
}

/* The confirmations of the request itself are what the program waits for: they are not dropped, reading pauses. */
static void test_confirmations_are_not_dropped(void **state)
{
    struct world *w = world_new(REDIS "&slow_consumer=drop");
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);
    unsigned told = 0, taken = 0;
    struct iok_link *link;
    size_t n;

    (void)state;
    world_sign_in(w);
    iok_call_static(call, "SUBSCRIBE", 9);
    for (unsigned i = 0; i < 3000; i++) {
        iok_call_static(call, "c", 1);
    }
    iok_call_lease(call, lease);
    world_hand_in(w, call);
    world_run(w);
    link = world_sign_in(w);
    while (told < 3000) {
        if (link->reading) {
            char text[80];

            (void)snprintf(text, sizeof(text), "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:%u\r\n", ++told);
            sim_arrive(link, text);
            world_run(w);
            continue;
        }
        world_take(w);
        while (iok_call_message(call, &n) != NULL) {
            taken++;
            iok_call_next(call);
        }
        world_run(w);
    }
    world_take(w);
    while (iok_call_message(call, &n) != NULL) {
        taken++;
        iok_call_next(call);
    }
    assert_int_equal(taken, 3000);
    assert_int_equal(stat_of(&w->service->dropped), 0);
    iok_abandon(call);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

#define NOTIFICATION_BYTES 12u /* the smallest: a channel of one letter, no payload */

/* The n smallest notifications of PostgreSQL, numbered from 0 by their process. */
static char *notifications(unsigned n)
{
    char *all = calloc(n, NOTIFICATION_BYTES);

    assert_non_null(all);
    for (unsigned i = 0; i < n; i++) {
        const char one[NOTIFICATION_BYTES] = {'A', 0, 0, 0, 11, 0, 0, (char)(i >> 8), (char)i, 'c', 0, 0};

        memcpy(all + (size_t)i * NOTIFICATION_BYTES, one, sizeof(one));
    }
    return all;
}

static void listen_to_postgres(struct listening *l)
{
    static const char signed_in[] = "R\0\0\0\10\0\0\0\0Z\0\0\0\5I";
    static const char listens[] = "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\0042\0\0\0\4C\0\0\0\13LISTEN\0Z\0\0\0\5I";

    l->w = world_new(POSTGRES);
    l->lease = iok_lease_new(l->w->port, l->w->service, NULL);
    sim_arrive_bytes(world_connect(l->w), signed_in, sizeof(signed_in) - 1);
    world_run(l->w);
    l->call = world_submit(l->w, "LISTEN c", -1, l->lease);
    world_run(l->w);
    l->link = world_connect(l->w);
    sim_arrive_bytes(l->link, signed_in, sizeof(signed_in) - 1);
    world_run(l->w);
    sim_arrive_bytes(l->link, listens, sizeof(listens) - 1);
    world_run(l->w);
    world_pending(l->w, l->call);
}

/* The process of the next notification; -1 if there is none. */
static int64_t take_notification(struct listening *l)
{
    const struct iok_token *tokens;
    int64_t number;
    size_t n;

    world_take(l->w);
    tokens = iok_call_message(l->call, &n);
    if (tokens != NULL && tokens->type != IOK_PUSH) { /* the answer to LISTEN */
        iok_call_next(l->call);
        tokens = iok_call_message(l->call, &n);
    }
    if (tokens == NULL) {
        return -1;
    }
    assert_int_equal(n, 5);
    number = tokens[4].i;
    iok_call_next(l->call);
    world_run(l->w);
    return number;
}

/* However small they are, one read never brings more than there is room for. */
static void test_flood_of_the_smallest(void **state)
{
    const unsigned total = 6000;
    const size_t all_bytes = (size_t)total * NOTIFICATION_BYTES;
    char *all = notifications(total);
    struct listening l;
    unsigned taken = 0;
    size_t done = 0;

    (void)state;
    listen_to_postgres(&l);
    while (taken < total) {
        while (l.link->reading && done < all_bytes) {
            size_t n;
            uint8_t *at = l.link->events->read_space(l.link->owner, &n);

            assert_non_null(at);
            n = n < all_bytes - done ? n : all_bytes - done;
            memcpy(at, all + done, n);
            done += n;
            l.link->events->arrived(l.link->owner, n);
            world_run(l.w);
        }
        assert_int_equal(take_notification(&l), taken++);
    }
    assert_int_equal(take_notification(&l), -1);
    assert_int_equal(stat_of(&l.w->service->dropped), 0);
    free(all);
    iok_abandon(l.call);
    stop_listening(&l);
}

/* Those that came within a reply are delivered behind it at once: more than there is room for end the stream. */
static void test_more_at_once_than_room(void **state)
{
    static const char begins[] = "1\0\0\0\4";
    static const char ends[] = "t\0\0\0\6\0\0n\0\0\0\0042\0\0\0\4I\0\0\0\4Z\0\0\0\5I";
    const unsigned total = 5000, room = 2 * IOK_STREAM_MESSAGES_MAX;
    char *all = notifications(total);
    struct listening l;
    struct iok_call *call;

    (void)state;
    listen_to_postgres(&l);
    assert_int_equal(take_notification(&l), -1);
    call = world_submit(l.w, "SELECT 1", -1, l.lease);
    world_run(l.w);
    sim_arrive_bytes(l.link, begins, sizeof(begins) - 1);
    sim_arrive_bytes(l.link, all, (size_t)total * NOTIFICATION_BYTES);
    sim_arrive_bytes(l.link, ends, sizeof(ends) - 1);
    world_run(l.w);
    assert_true(l.link->closed_by_us);
    for (unsigned i = 0; i < room; i++) {
        assert_int_equal(take_notification(&l), i);
    }
    world_expect(l.w, l.call, IOK_MAYBE_EXECUTED, IOK_ELIMIT, NULL);
    free(all);
    iok_abandon(call);
    stop_listening(&l);
}

/* Without memory for a message the stream ends, rather than go on with a hole. */
static void test_no_memory_for_a_message(void **state)
{
    struct listening l;

    (void)state;
    listen_to(&l, REDIS);
    publish(&l, 1, 8);
    iok_mem_fail_at(1);
    publish(&l, 2, 8);
    iok_mem_fail_at(0);
    world_run(l.w);
    assert_true(l.link->closed_by_us);
    assert_int_equal(take(&l), 1);
    world_expect(l.w, l.call, IOK_MAYBE_EXECUTED, IOK_ENOMEM, NULL);
    stop_listening(&l);
}

/* A stream that ends while its connection stands still, or drops, leaves a lease that goes on. */
static void test_stream_cancelled_while_held_back(void **state)
{
    static const char *const urls[] = {REDIS, REDIS "&slow_consumer=drop"};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct listening l;
        struct iok_call *again;
        unsigned n = 0;

        listen_to(&l, urls[i]);
        while (l.link->reading && n < 2000) {
            publish(&l, n++, 8);
        }
        iok_abandon(l.call);
        world_run(l.w);
        world_take(l.w);
        assert_true(l.link->reading);
        again = world_command(l.w, l.lease, WORDS("SUBSCRIBE", "news"));
        sim_arrive(l.link, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        l.call = again;
        world_run(l.w);
        world_take(l.w);
        assert_non_null(iok_call_message(again, &(size_t){0}));
        iok_call_next(again);
        publish(&l, 7, 8);
        assert_int_equal(take(&l), 7);
        iok_abandon(again);
        stop_listening(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_bytes_pause),
        cmocka_unit_test(test_paused_stream_is_not_given_up),
        cmocka_unit_test(test_stream_drops),
        cmocka_unit_test(test_dropped_message_in_pieces),
        cmocka_unit_test(test_stream_drops_by_bytes),
        cmocka_unit_test(test_lost_while_dropping),
        cmocka_unit_test(test_confirmations_are_not_dropped),
        cmocka_unit_test(test_flood_of_the_smallest),
        cmocka_unit_test(test_more_at_once_than_room),
        cmocka_unit_test(test_no_memory_for_a_message),
        cmocka_unit_test(test_stream_cancelled_while_held_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
