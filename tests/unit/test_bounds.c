/* test_bounds.c - what is bounded in a service and on a port, and what happens at the bounds: calls that fail at once or
 * wait in their turn, much to send or to read that leaves others their turn. Streams are in test_streams.c. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../kit/net_kit.h"
#include "simnet.h"

#define URL "line://10.0.0.1:7000"
#define REDIS "redis://10.0.0.1:7000?protocol=2"
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define FOR_EVER (-1)

/* A call with one argument of n bytes, submitted and taken. */
static struct iok_call *sized(struct world *w, struct iok_service *service, size_t n)
{
    struct iok_call *call = iok_call_new(w->port, service, NULL);
    char *text = malloc(n);

    assert_non_null(call);
    assert_non_null(text);
    memset(text, 'a', n);
    iok_call_text(call, text, n);
    free(text);
    iok_call_timeout(call, FOR_EVER);
    world_hand_in(w, call);
    world_run(w);
    return call;
}

static struct iok_call *submit(struct world *w, const char *text)
{
    struct iok_call *call = world_submit(w, text, FOR_EVER, NULL);

    world_run(w);
    return call;
}

static void expect_text(const struct iok_call *call, const char *part)
{
    struct iok_error err = {.text = ""};

    (void)iok_call_error(call, &err);
    if (strstr(err.text, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
    }
}

static uint64_t stat_of(const struct iok_count *count)
{
    return iok_count_get(count);
}

/* ---- a service ---- */

static void test_service_bytes(void **state)
{
    struct world *w = world_new(URL "?max_pending_bytes=64k");
    struct iok_link *link = world_connect(w);
    struct iok_call *a = sized(w, w->service, 30000), *b = sized(w, w->service, 30000), *c, *huge;

    (void)state;
    assert_int_equal(link->n_got, 60002);
    c = sized(w, w->service, 30000);
    world_take(w);
    expect_text(c, "max_pending_bytes=65536, overload=fail");
    world_expect(w, c, IOK_NEVER_SENT, IOK_EOVERLOAD, NULL);
    assert_int_equal(stat_of(&w->service->overloaded), 1);
    huge = sized(w, w->service, 70000); /* never fits: more than a matter of waiting */
    world_take(w);
    expect_text(huge, "more than max_pending_bytes=65536");
    world_expect(w, huge, IOK_NEVER_SENT, IOK_ELIMIT, NULL);
    sim_arrive(link, "A\n");
    world_run(w);
    c = sized(w, w->service, 30000); /* the first one's bytes are free again */
    world_pending(w, c);
    iok_cancel(b);
    world_run(w);
    world_expect(w, b, IOK_MAYBE_EXECUTED, IOK_ECANCELLED, NULL);
    b = sized(w, w->service, 30000); /* and a cancelled one's */
    world_pending(w, b);
    sim_arrive(link, "B\nC\nD\n");
    world_run(w);
    world_expect(w, a, IOK_DONE, 0, "A");
    world_expect(w, c, IOK_DONE, 0, "C");
    world_expect(w, b, IOK_DONE, 0, "D");
    assert_int_equal(w->service->n_pending, 0);
    assert_int_equal(w->service->pending_bytes, 0);
    world_free(w);
}

static void test_service_waits(void **state)
{
    struct world *w = world_new(URL "?max_inflight=2&max_queued=0&max_pending_bytes=64k&overload=wait");
    struct iok_link *link = world_connect(w);
    struct iok_call *calls[6], *late, *large[3];

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        calls[i] = submit(w, (const char *[]){"a", "b", "c", "d", "e", "f"}[i]);
    }
    late = world_submit(w, "late", 50, NULL);
    world_run(w);
    assert_string_equal(link->got, "a\nb\n");
    assert_int_equal(stat_of(&w->service->queued_now), 5);
    assert_int_equal(stat_of(&w->service->inflight_now), 2);
    world_advance(w, 60 * SIM_MS);
    world_expect(w, late, IOK_NEVER_SENT, IOK_ETIMEOUT, NULL); /* waiting does not outlast the deadline */
    assert_int_equal(stat_of(&w->service->queued_now), 4);
    for (unsigned i = 0; i < 3; i++) {
        large[i] = sized(w, w->service, 30000);
    }
    for (unsigned i = 0; i < 9; i++) {
        sim_arrive(link, "r\n");
        world_run(w);
    }
    assert_memory_equal(link->got, "a\nb\nc\nd\ne\nf\naaa", 15); /* in their order */
    for (unsigned i = 0; i < 6; i++) {
        world_expect(w, calls[i], IOK_DONE, 0, "r");
    }
    for (unsigned i = 0; i < 3; i++) {
        world_expect(w, large[i], IOK_DONE, 0, "r");
    }
    assert_int_equal(stat_of(&w->service->overloaded), 0);
    world_free(w);
}

/* A call that comes to the kernel after its deadline, since it was parked or the kernel busy, is not sent any more. */
static void test_late_call_is_not_sent(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *late = world_submit(w, "late", 50, NULL), *in_time = world_submit(w, "in time", 51, NULL);

    (void)state;
    late->submitted = in_time->submitted = w->sim.now - 50 * SIM_MS;
    world_run(w);
    assert_string_equal(link->got, "in time\n");
    world_expect(w, late, IOK_NEVER_SENT, IOK_ETIMEOUT, NULL);
    sim_arrive(link, "I\n");
    world_run(w);
    world_expect(w, in_time, IOK_DONE, 0, "I");
    world_free(w);
}

/* Calls that wait for a connection of their own count as all others do. */
static void test_blocking_calls_are_bounded(void **state)
{
    struct world *w = world_new(REDIS "&leases=1&max_inflight=1&max_queued=2");
    struct iok_call *calls[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        calls[i] = world_command(w, NULL, WORDS("BLPOP", "k", "0"));
    }
    world_take(w);
    expect_text(calls[3], "max_queued=2, max_inflight=1");
    world_expect(w, calls[3], IOK_NEVER_SENT, IOK_EOVERLOAD, NULL);
    assert_int_equal(stat_of(&w->service->queued_now), 3);
    world_free(w);
}

/* ---- a port ---- */

static void test_port_fails(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *link = world_connect(w);
    struct iok_call *calls[3], *more;

    (void)state;
    w->port->calls_max = 3;
    for (unsigned i = 0; i < 3; i++) {
        calls[i] = submit(w, "x");
    }
    more = iok_call_new(w->port, w->service, NULL);
    iok_call_text(more, "y", 1);
    assert_int_equal(iok_submit(more), IOK_EOVERLOAD);
    expect_text(more, "3 calls are alive on this port (port_calls_max=3, overload=fail)");
    assert_int_equal(iok_call_outcome(more), IOK_PENDING);
    sim_arrive(link, "X\n");
    world_run(w);
    world_expect(w, calls[0], IOK_DONE, 0, "X");
    world_hand_in(w, more); /* the same call again, now that one was freed */
    world_run(w);
    assert_string_equal(link->got, "x\nx\nx\ny\n");
    sim_arrive(link, "X\nX\nY\n");
    world_run(w);
    world_expect(w, more, IOK_DONE, 0, "Y");
    world_expect(w, calls[1], IOK_DONE, 0, "X");
    world_expect(w, calls[2], IOK_DONE, 0, "X");
    assert_int_equal(stat_of(&w->service->overloaded), 1);
    assert_int_equal(w->port->n_counted, 0);
    world_free(w);
}

static void test_port_bytes(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *a, *b = iok_call_new(w->port, w->service, NULL);
    char text[600] = "";

    (void)state;
    w->port->bytes_max = w->port->bytes_left = 1000;
    a = sized(w, w->service, 600);
    iok_call_text(b, text, sizeof(text));
    assert_int_equal(iok_submit(b), IOK_EOVERLOAD);
    expect_text(b, "port_bytes_max=1000, overload=fail");
    iok_call_text(b, text, sizeof(text));
    assert_int_equal(iok_submit(b), IOK_ELIMIT); /* would not fit into an empty port either */
    expect_text(b, "more than port_bytes_max=1000");
    iok_call_free(b);
    iok_abandon(a);
    world_run(w);
    world_take(w);
    assert_int_equal(w->port->bytes_left, 1000);
    world_free(w);
}

static void test_port_waits(void **state)
{
    struct world *w = world_new(URL "?overload=wait");
    struct iok_link *link = world_connect(w);
    struct iok_call *a, *b, *cancelled, *c, *d;

    (void)state;
    w->port->calls_max = 2;
    a = submit(w, "a");
    b = submit(w, "b");
    cancelled = submit(w, "cancelled");
    iok_abandon(submit(w, "abandoned"));
    c = submit(w, "c");
    d = submit(w, "d");
    assert_string_equal(link->got, "a\nb\n");
    assert_int_equal(w->port->n_parked, 3);
    iok_cancel(cancelled);
    assert_ptr_equal(iok_poll(w->port), cancelled); /* without the kernel */
    world_expect(w, cancelled, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    sim_arrive(link, "A\nB\n");
    world_run(w);
    assert_string_equal(link->got, "a\nb\n"); /* a call takes its room until it is freed */
    world_expect(w, b, IOK_DONE, 0, "B");
    world_run(w);
    assert_string_equal(link->got, "a\nb\nc\n");
    world_expect(w, a, IOK_DONE, 0, "A");
    world_run(w);
    assert_string_equal(link->got, "a\nb\nc\nd\n");
    sim_arrive(link, "C\nD\n");
    world_run(w);
    world_expect(w, c, IOK_DONE, 0, "C");
    world_expect(w, d, IOK_DONE, 0, "D");
    assert_int_equal(stat_of(&w->service->overloaded), 0);
    world_free(w);
}

static void test_port_waits_for_bytes(void **state)
{
    struct world *w = world_new(URL "?overload=wait");
    struct iok_link *link = world_connect(w);
    struct iok_service *strict = iok_service_new(w->port, URL "?connections=1", NULL);
    struct iok_call *a, *large, *small, *other;

    (void)state;
    world_run(w);
    w->port->bytes_max = w->port->bytes_left = 1000;
    a = sized(w, w->service, 600);
    large = sized(w, w->service, 500);
    small = submit(w, "small"); /* would fit, but nothing overtakes */
    assert_int_equal(w->port->n_parked, 2);
    other = sized(w, strict, 100); /* overload=fail: it may not wait, and there is room for it */
    assert_int_equal(w->port->n_parked, 2);
    assert_int_equal(link->n_got, 601);
    iok_abandon(large);
    world_run(w);
    assert_string_equal(link->got + 601, "small\n"); /* it only waited behind the large one */
    iok_abandon(a);
    iok_abandon(small);
    iok_abandon(other);
    iok_service_close(strict, w->port);
    iok_service_unref(strict);
    world_run(w);
    world_take(w);
    world_free(w);
}

static void test_parked_calls_of_a_lease(void **state)
{
    struct world *w = world_new(URL "?overload=wait");
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL), *none;
    struct iok_call *a, *b, *c;
    struct iok_error err;

    (void)state;
    world_connect(w);
    w->port->calls_max = 1;
    none = iok_lease_new(w->port, w->service, &err); /* calls do not keep leases out, but there are half as many */
    assert_null(none);
    assert_int_equal(err.code, IOK_EOVERLOAD);
    assert_non_null(strstr(err.text, "half of port_calls_max=1"));
    a = submit(w, "a");
    b = world_submit(w, "b", FOR_EVER, lease);
    c = submit(w, "c");
    iok_lease_free(lease);
    world_run(w);
    world_expect(w, b, IOK_NEVER_SENT, IOK_ECANCELLED, NULL);
    world_pending(w, c);
    iok_abandon(a);
    world_run(w);
    world_take(w);
    world_run(w);
    assert_string_equal(sim_last(&w->sim)->got, "a\nc\n");
    iok_abandon(c);
    world_run(w);
    world_free(w);
}

/* ---- parked calls, with a kernel that has a thread and a clock ---- */

struct real {
    struct iok_kernel *kernel;
    struct iok_port *port;
    struct iok_service *service;
    int listener;
};

/* A server that takes everything and says nothing. */
static void real_new(struct real *r, uint32_t calls_max)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct iok_options options = {.port_calls_max = calls_max};
    socklen_t len = sizeof(address);
    char url[80];

    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(r->listener >= 0);
    assert_int_equal(bind(r->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(r->listener, 8), 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)&address, &len), 0);
    (void)snprintf(url, sizeof(url), "line://127.0.0.1:%u?overload=wait", ntohs(address.sin_port));
    r->kernel = iok_kernel_new(&options, NULL);
    r->port = iok_port_new(r->kernel, NULL);
    r->service = iok_service_new(r->port, url, NULL);
    assert_non_null(r->service);
}

static void real_free(struct real *r)
{
    iok_service_close(r->service, r->port);
    iok_service_unref(r->service);
    iok_port_free(r->port);
    if (r->kernel != NULL) {
        iok_kernel_free(r->kernel);
    }
    (void)close(r->listener);
}

static struct iok_call *real_submit(struct real *r, int64_t timeout_ms)
{
    struct iok_call *call = iok_call_new(r->port, r->service, NULL);

    assert_non_null(call);
    iok_call_text(call, "x", 1);
    iok_call_timeout(call, timeout_ms);
    assert_int_equal(iok_submit(call), 0);
    return call;
}

static void expect_timeout(struct iok_call *call)
{
    struct iok_error err;

    assert_int_equal(iok_call_outcome(call), IOK_NEVER_SENT);
    assert_int_equal(iok_call_error(call, &err), IOK_ETIMEOUT);
    assert_non_null(strstr(err.text, "no room on its port within 0.0"));
    iok_call_free(call);
}

static void test_parked_deadlines(void **state)
{
    struct iok_call *calls[2], *soon, *later, *last;
    struct pollfd fd = {.events = POLLIN};
    struct real r;

    (void)state;
    real_new(&r, 2);
    calls[0] = real_submit(&r, FOR_EVER);
    calls[1] = real_submit(&r, FOR_EVER);
    later = real_submit(&r, 60);
    soon = real_submit(&r, 20);
    last = real_submit(&r, FOR_EVER);
    assert_int_equal(iok_wait_call(soon, -1), 0);
    expect_timeout(soon);
    assert_int_equal(iok_call_outcome(last), IOK_PENDING);
    assert_int_equal(iok_wait_call(later, -1), 0);
    expect_timeout(later);
    fd.fd = iok_port_fd(r.port); /* and whoever watches the descriptor is told, too */
    soon = real_submit(&r, 20);
    iok_drain_begin(r.port);
    while (iok_poll(r.port) == NULL) {
        iok_drain_end(r.port);
        assert_int_equal(poll(&fd, 1, 20000), 1);
        iok_drain_begin(r.port);
    }
    iok_drain_end(r.port);
    expect_timeout(soon);
    soon = real_submit(&r, FOR_EVER);
    iok_cancel(soon);
    assert_int_equal(poll(&fd, 1, 20000), 1);
    iok_drain_begin(r.port);
    assert_ptr_equal(iok_poll(r.port), soon);
    iok_call_free(soon);
    iok_drain_end(r.port);
    iok_abandon(calls[0]);
    iok_abandon(calls[1]);
    iok_abandon(last);
    real_free(&r);
}

static void test_parked_when_the_kernel_stops(void **state)
{
    struct iok_call *calls[6];
    struct iok_error err;
    struct real r;

    (void)state;
    real_new(&r, 2);
    for (unsigned i = 0; i < 6; i++) {
        calls[i] = real_submit(&r, FOR_EVER);
    }
    iok_kernel_free(r.kernel);
    r.kernel = NULL;
    for (unsigned i = 6; i-- > 0;) { /* the last first: none of those that have room is freed yet */
        assert_int_equal(iok_wait_call(calls[i], -1), 0);
        assert_int_equal(iok_call_error(calls[i], &err), IOK_ECLOSED);
    }
    for (unsigned i = 0; i < 6; i++) {
        iok_call_free(calls[i]);
    }
    real_free(&r);
}

/* ---- turns ---- */

/* Much to send on one connection: another service's call goes out in the same turn, and not after all of it. */
static void test_sending_leaves_others_their_turn(void **state)
{
    struct world *w = world_new(REDIS);
    struct iok_link *busy = world_sign_in(w), *other;
    struct iok_service *service = iok_service_new(w->port, URL, NULL);
    struct iok_call *large, *small;
    const size_t size = 20000000;
    char *text = malloc(size);

    (void)state;
    assert_non_null(text);
    memset(text, 'a', size);
    world_run(w);
    other = world_connect(w);
    large = iok_call_new(w->port, w->service, NULL);
    iok_call_text(large, "ECHO", 4);
    iok_call_text(large, text, size);
    world_hand_in(w, large);
    small = iok_call_new(w->port, service, NULL);
    iok_call_text(small, "small", 5);
    world_hand_in(w, small);
    while (other->n_got == 0) {
        iok_core_round(w->core);
    }
    assert_true(busy->n_got <= 2u << 20);
    sim_arrive(other, "S\n");
    world_expect(w, small, IOK_DONE, 0, "S");
    world_run(w); /* nobody has to ask for the rest */
    assert_int_equal(busy->n_got, size + strlen("*2\r\n$4\r\nECHO\r\n$20000000\r\n\r\n"));
    sim_arrive(busy, "+L\r\n");
    world_expect(w, large, IOK_DONE, 0, "L");
    iok_service_close(service, w->port);
    iok_service_unref(service);
    free(text);
    world_free(w);
}

/* Much to read on one connection: after a few reads of it the others have their turn. */
static void test_reading_leaves_others_their_turn(void **state)
{
    const size_t size = 1000000;
    uint8_t *bytes = make_bytes(size);
    struct client client = {.out = bytes, .n_out = size, .space = 4096};
    struct iok_net *net = net_start();
    struct peer peer;
    uint32_t most = 0;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(&client, net, &peer.address, 1, NULL);
    while (client.n_in < size) {
        uint32_t before = client.reads;

        iok_uv_turn(net, net->ops->now(net) + KIT_PATIENCE_NS);
        most = client.reads - before > most ? client.reads - before : most;
    }
    assert_int_equal(most, 4); /* READS_MAX of link.c; never more, and with so much to read once at least so many */
    client_close(&client);
    client_free(&client);
    free(bytes);
    net_stop(net);
    peer_stop(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_service_bytes),
        cmocka_unit_test(test_service_waits),
        cmocka_unit_test(test_late_call_is_not_sent),
        cmocka_unit_test(test_blocking_calls_are_bounded),
        cmocka_unit_test(test_port_fails),
        cmocka_unit_test(test_port_bytes),
        cmocka_unit_test(test_port_waits),
        cmocka_unit_test(test_port_waits_for_bytes),
        cmocka_unit_test(test_parked_calls_of_a_lease),
        cmocka_unit_test(test_parked_deadlines),
        cmocka_unit_test(test_parked_when_the_kernel_stops),
        cmocka_unit_test(test_sending_leaves_others_their_turn),
        cmocka_unit_test(test_reading_leaves_others_their_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
