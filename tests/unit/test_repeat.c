/* test_repeat.c - what is said of a call that was sent, lost with its connection, and taken up again: whatever becomes
 * of the repeat, the first attempt may have run. As test_kernel.c, against a peer that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define LINE "line://10.0.0.1:7000"
#define REDIS "redis://10.0.0.1:7000?protocol=2"
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The last link connects, and the peer accepts each step of the sign-in. */
static struct iok_link *sign_in(struct world *w)
{
    struct iok_link *link = world_connect(w);

    for (const char *at = link->got; (at = strstr(at, "*")) != NULL; at++) {
        sim_arrive(link, "+OK\r\n");
    }
    world_run(w);
    sim_clear(link);
    return link;
}

/* A call that was sent once and waits to be sent again. */
static struct iok_call *lost_once(struct world *w, int64_t timeout_ms)
{
    struct iok_link *link = world_connect(w);
    struct iok_call *call = world_submit(w, "one", timeout_ms, NULL);

    world_run(w);
    assert_string_equal(link->got, "one\n");
    sim_fail(link, IOK_ERESET);
    world_run(w);
    world_pending(w, call);
    return call;
}

static void test_deadline(void **state)
{
    struct world *w = world_new(LINE "?connect_timeout=1h");
    struct iok_call *call = lost_once(w, 100), *other = world_submit(w, "two", 100, NULL);

    (void)state;
    world_advance(w, 102 * SIM_MS);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_expect(w, other, IOK_NEVER_SENT, IOK_ERESET, NULL);
    world_free(w);
}

static void test_cancelled(void **state)
{
    struct world *w = world_new(LINE);
    struct iok_call *call = lost_once(w, 0);

    (void)state;
    iok_cancel(call);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    world_free(w);
}

static void test_closed(void **state)
{
    struct world *w = world_new(LINE);
    struct iok_call *call = lost_once(w, 0);

    (void)state;
    iok_service_close(w->service, w->port);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECLOSED, NULL);
    world_free(w);
}

/* The repeat is written to a connection that is lost before the bytes are accepted. */
static void test_lost_again_unsent(void **state)
{
    struct world *w = world_new(LINE "?retries=1");
    struct iok_call *call = lost_once(w, 0);
    struct iok_link *link;

    (void)state;
    world_advance(w, 20 * SIM_MS);
    link = sim_last(&w->sim);
    sim_accept(link, 0);
    sim_connect(link);
    world_run(w);
    assert_string_equal(link->got, "");
    sim_fail(link, IOK_ERESET);
    world_run(w);
    world_pending(w, call);
    iok_cancel(call);
    world_run(w);
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    world_free(w);
}

/* The server says that it did not run the repeat, and knows nothing of the first attempt. */
static void test_rejected(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_link *link = sign_in(w);
    struct iok_call *call = world_command(w, NULL, WORDS("GET", "k")), *fresh;
    struct iok_error err = {.text = ""};

    (void)state;
    sim_fail(link, IOK_ERESET);
    world_advance(w, 20 * SIM_MS);
    link = sign_in(w);
    fresh = world_command(w, NULL, WORDS("GET", "k"));
    sim_arrive(link, "-LOADING soon\r\n-LOADING soon\r\n");
    world_run(w);
    while (iok_poll(w->port) != NULL) {
    }
    assert_int_equal(iok_call_error(call, &err), IOK_ERESET);
    assert_non_null(strstr(err.text, "LOADING soon"));
    world_expect(w, call, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    world_expect(w, fresh, IOK_REJECTED, 0, "LOADING soon");
    world_free(w);
}

/* A repeat that succeeds hides nothing: it is done. */
static void test_done(void **state)
{
    struct world *w = world_new(LINE);
    struct iok_call *call = lost_once(w, 0);

    (void)state;
    world_advance(w, 20 * SIM_MS);
    sim_arrive(world_connect(w), "ONE\n");
    world_run(w);
    world_expect(w, call, IOK_DONE, 0, "ONE");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadline),          cmocka_unit_test(test_cancelled), cmocka_unit_test(test_closed),
        cmocka_unit_test(test_lost_again_unsent), cmocka_unit_test(test_rejected),  cmocka_unit_test(test_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
