/* test_serve_unread.c - what a listener keeps of answers for slow clients (max_unread=), on a simulated network: the
 * program need not wait, the bytes are right, and the bounds hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

#define LARGE 300000u
#define PART 100000u

static void released(void *arg)
{
    ++*(int *)arg;
}

static char *pattern(size_t n)
{
    char *bytes = malloc(n);

    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (char)('a' + i % 23);
    }
    return bytes;
}

/* A request of a client who reads nothing. */
static struct iok_link *ask(struct house *h, struct iok_call *call)
{
    struct iok_link *link = sim_client(&h->w->sim);

    sim_accept(link, 1000);
    house_get(link, "/");
    assert_ptr_equal(house_poll(h), call);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    return link;
}

static void head(struct iok_call *call)
{
    iok_call_array(call, 4);
    iok_call_i64(call, 200);
    iok_call_null(call);
    iok_call_array(call, 0);
}

static void answer(struct house *h, struct iok_call *call, char *body, int *count)
{
    head(call);
    iok_call_ref(call, body, LARGE, released, count);
    assert_int_equal(iok_submit(call), 0);
    world_run(h->w);
    assert_null(house_poll(h));
}

static void begin(struct iok_call *call)
{
    iok_call_body(call);
    head(call);
    iok_call_null(call);
    assert_int_equal(iok_submit(call), 0);
}

static struct iok_call *part(struct iok_call *call, char *bytes, int *count)
{
    struct iok_call *made = iok_part_new(call, NULL);

    assert_non_null(made);
    if (bytes != NULL) {
        iok_call_ref(made, bytes, PART, released, count);
    } else {
        iok_part_end(made);
    }
    assert_int_equal(iok_submit(made), 0);
    return made;
}

static void expect_done(struct house *h, struct iok_call *made)
{
    assert_ptr_equal(house_poll(h), made);
    assert_int_equal(iok_call_outcome(made), IOK_DONE);
    iok_call_free(made);
}

/* The rest of the answer is right, and its connection goes on. */
static void read_rest(struct house *h, struct iok_link *link, const char *body, size_t n)
{
    sim_accept(link, SIZE_MAX);
    world_run(h->w);
    assert_true(link->n_got > n);
    assert_memory_equal(link->got + link->n_got - n, body, n);
    assert_false(link->dead);
}

static void test_the_call_goes_on(void **state)
{
    char *body = pattern(LARGE), *sent = pattern(LARGE);
    struct iok_link *links[3];
    struct house h;
    struct iok_call *call;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_unread=1m");
    call = house_call(&h);
    for (int i = 0; i < 3; i++) { /* one call, and three clients that do not read */
        links[i] = ask(&h, call);
        answer(&h, call, sent, &count);
        assert_int_equal(count, i + 1); /* nothing of the program's is referred to */
    }
    memset(sent, 'x', LARGE);
    assert_true(h.listener->unread_bytes > 3 * (LARGE - 1000));
    for (int i = 0; i < 3; i++) {
        read_rest(&h, links[i], body, LARGE);
    }
    assert_int_equal(h.listener->unread_bytes, 0);
    house_close(&h);
    free(body);
    free(sent);
}

/* Above the bounds of one and of all the call waits for its client, until little enough is left. */
static void test_the_bounds(void **state)
{
    static const char *const urls[] = {"http://127.0.0.1:8000/?max_unread=200k",
                                       "http://127.0.0.1:8000/?max_unread=1m&max_unread_total=500k"};
    char *body = pattern(LARGE);

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct iok_link *links[2] = {NULL, NULL};
        struct house h;
        struct iok_call *call;
        int count = 0;

        house_open(&h, urls[i]);
        call = house_call(&h);
        if (i == 1) {
            links[0] = ask(&h, call);
            answer(&h, call, body, &count);
        }
        assert_int_equal(count, i);
        links[1] = ask(&h, call);
        answer(&h, call, body, &count);
        assert_int_equal(count, i);
        sim_accept(links[1], 50000);
        world_run(h.w);
        assert_null(house_poll(&h));
        assert_int_equal(count, i);
        sim_accept(i == 0 ? links[1] : links[0],
                   i == 0 ? 60000 : SIZE_MAX); /* under 200k are left; the other has read */
        sim_accept(links[1], 1000);
        world_run(h.w);
        assert_null(house_poll(&h));
        assert_int_equal(count, i + 1);
        sim_fail(links[1], IOK_ERESET); /* it goes: what was kept for it is given up */
        world_run(h.w);
        assert_int_equal(h.listener->unread_bytes, 0);
        house_close(&h);
    }
    free(body);
}

static void test_parts_are_kept(void **state)
{
    char *body = pattern(PART), *sent = pattern(PART);
    struct iok_link *link;
    struct house h;
    struct iok_call *call, *made;
    int count = 0;

    (void)state;
    house_open(&h, "http://127.0.0.1:8000/?max_unread=250k");
    call = house_call(&h);
    link = ask(&h, call);
    begin(call);
    expect_done(&h, part(call, sent, &count));
    expect_done(&h, part(call, sent, &count));
    assert_int_equal(count, 2);
    made = part(call, sent, &count); /* over the bound: back-pressure */
    world_run(h.w);
    assert_null(house_poll(&h));
    sim_accept(link, PART);
    expect_done(&h, made);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST); /* the end has not been said */
    expect_done(&h, part(call, NULL, &count));
    (void)ask(&h, call); /* the call takes others */
    house_answer(&h, call, 200, "other");
    memset(sent, 'x', PART);
    sim_accept(link, SIZE_MAX);
    world_run(h.w);
    assert_memory_equal(link->got + link->n_got - 7 - PART, body, PART);
    assert_memory_equal(link->got + link->n_got - 7, "\r\n0\r\n\r\n", 7);
    assert_int_equal(h.listener->unread_bytes, 0);
    house_close(&h);
    free(body);
    free(sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_call_goes_on),
        cmocka_unit_test(test_the_bounds),
        cmocka_unit_test(test_parts_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
