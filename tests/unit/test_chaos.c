/* test_chaos.c - the driver that hurts: each fault happens, exactly where it was asked for, and nothing else does; over
 * loopback on the real driver, and once below a whole kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "../../src/base/mem.h"
#include "../../src/net/chaos.h"
#include "../kit/net_kit.h"

#define ECHO_BYTES 100000u

/* Both drivers, one on top of the other. */
struct hurt {
    struct iok_net *under, *net;
};

static struct hurt hurt_start(const char *options)
{
    struct hurt hurt = {.under = net_start()};
    struct iok_error err = {.text = ""};

    hurt.net = iok_chaos_new(hurt.under, options, &err);
    if (hurt.net == NULL) {
        fail_msg("%s: %s", options, err.text);
    }
    return hurt;
}

static void hurt_stop(struct hurt *hurt)
{
    net_stop(hurt->under);
    iok_chaos_free(hurt->net);
}

static struct iok_chaos_counts counts_of(const struct hurt *hurt)
{
    struct iok_chaos_counts counts;

    iok_chaos_counts(hurt->net, &counts);
    return counts;
}

static void hurt_turn(struct hurt *hurt, uint64_t limit)
{
    uint64_t due = iok_chaos_run(hurt->net);

    iok_uv_turn(hurt->under, due < limit ? due : limit);
}

#define hurt_until(hurt, condition)                                                                                    \
    do {                                                                                                               \
        uint64_t limit_ = (hurt)->net->ops->now((hurt)->net) + KIT_PATIENCE_NS;                                        \
                                                                                                                       \
        while (!(condition)) {                                                                                         \
            hurt_turn((hurt), limit_);                                                                                 \
            assert_true((hurt)->net->ops->now((hurt)->net) < limit_);                                                  \
        }                                                                                                              \
    } while (0)

/* ---- options ----------------------------------------------------------------------------------------------------- */

static void test_wrong_options(void **state)
{
    static const struct {
        const char *options, *says;
    } cases[] = {
        {"partail=1", "unknown option 'partail': did you mean 'partial'?"},
        {"xyzzy=1", "unknown option 'xyzzy' (src/net/chaos.h lists them)"},
        {"seed=1,,partial=1", "unknown option ''"},
        {"=1", "unknown option ''"},
        {"partial", "bad partial=: expected a number from 0 to 1"},
        {"partial=1.1", "bad partial=1.1: expected a number from 0 to 1"},
        {"partial=2", "from 0 to 1"},
        {"partial=-1", "from 0 to 1"},
        {"partial=0.", "from 0 to 1"},
        {"partial=.5", "from 0 to 1"},
        {"partial=00", "from 0 to 1"},
        {"partial=0.1234567", "from 0 to 1"},
        {"partial=half", "from 0 to 1"},
        {"pieces=0", "bad pieces=0: expected a whole number from 1"},
        {"reset_after=many", "bad reset_after=many: expected a whole number"},
        {"seed=-1", "bad seed=-1: expected a whole number"},
        {"delay=3parsecs", "bad delay=3parsecs: expected a duration"},
        {"seed=7,stall=2h", "bad stall=2h: expected a duration"},
    };
    struct iok_net *under = net_start();

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct iok_options options = {.chaos = cases[i].options};
        struct iok_error err = {.text = ""};

        assert_null(iok_chaos_new(under, cases[i].options, &err));
        assert_int_equal(err.code, IOK_EOPTION);
        assert_ptr_equal(strstr(err.text, "chaos: "), err.text);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(iok_kernel_new(&options, &err));
        assert_int_equal(err.code, IOK_EOPTION);
    }
    net_stop(under);
}

static void test_right_options(void **state)
{
    struct hurt hurt = hurt_start("seed=0,partial=0,refuse=1,stall=0,pieces=1,delay=0.5ms,reset_after=1,reset_sent=1,"
                                  "reset_received=1,connect_fail=0.000001,connect_delay=1s,resolve_fail=1.0,"
                                  "resolve_delay=1h");

    (void)state;
    hurt_stop(&hurt);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* Sends n bytes to a peer that echoes them, and checks that all came back unharmed. */
static struct iok_chaos_counts echo(const char *options, size_t n, struct client *client)
{
    struct hurt hurt = hurt_start(options);
    uint8_t *bytes = make_bytes(n);
    struct iok_chaos_counts counts;
    struct peer peer;

    *client = (struct client){.out = bytes, .n_out = n};
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(client, hurt.net, &peer.address, 1, NULL);
    hurt_until(&hurt, client->n_in == n);
    assert_memory_equal(client->in, bytes, n);
    assert_false(client->closed);
    client_free(client);
    counts = counts_of(&hurt);
    hurt_stop(&hurt);
    peer_stop(&peer);
    free(bytes);
    return counts;
}

static void test_nothing_asked_for(void **state)
{
    struct client client;
    struct iok_chaos_counts counts = echo("seed=1", ECHO_BYTES, &client), none = {0};

    (void)state;
    assert_memory_equal(&counts, &none, sizeof(none));
}

static void test_partial_and_refused_sends(void **state)
{
    struct client client;
    struct iok_chaos_counts counts = echo("seed=1,partial=1,stall=10us", ECHO_BYTES, &client);
    uint64_t partial = 0, refused = 0;

    (void)state;
    assert_true(counts.partial > 5);
    assert_true(client.shortfalls >= counts.partial);
    assert_true(client.writables >= counts.partial);
    for (int seed = 1; seed <= 10; seed++) {
        char options[60];

        snprintf(options, sizeof(options), "seed=%d,partial=0.9,refuse=0.5,stall=0", seed);
        counts = echo(options, ECHO_BYTES, &client);
        partial += counts.partial;
        refused += counts.refused;
    }
    assert_true(partial > 10 && refused > 10);
}

static void test_pieces(void **state)
{
    struct client client;
    struct iok_chaos_counts counts;

    (void)state;
    counts = echo("seed=1,pieces=1", 1000, &client);
    assert_int_equal(client.reads, 1000); /* each byte alone */
    assert_true(counts.pieces > 0);
    (void)echo("seed=1,pieces=100", ECHO_BYTES, &client);
    assert_true(client.reads >= ECHO_BYTES / 100);
}

static void test_late_bytes(void **state)
{
    struct client client;
    struct iok_chaos_counts counts = echo("seed=1,delay=2ms,connect_delay=2ms", ECHO_BYTES, &client);

    (void)state;
    assert_true(counts.delayed > 0);
    assert_int_equal(counts.connects, 1);
    /* More than the bytes that wait may be: the driver below must stop reading, and go on. */
    (void)echo("seed=1,delay=1ms,pieces=30000", 20 * ECHO_BYTES, &client);
}

/* A client that does not want bytes gets none, and all of them later. */
static void test_pause_and_resume(void **state)
{
    struct hurt hurt = hurt_start("seed=1,pieces=1000,delay=100us");
    uint8_t *bytes = make_bytes(ECHO_BYTES);
    struct client client = {.out = bytes, .n_out = ECHO_BYTES, .paused = true};
    struct peer peer;
    size_t before = 0;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(&client, hurt.net, &peer.address, 1, NULL);
    hurt_until(&hurt, client.connected && client.n_sent > 0);
    for (int i = 0; i < 20; i++) {
        hurt_turn(&hurt, hurt.net->ops->now(hurt.net) + 1000000);
    }
    assert_int_equal(client.n_in, 0);
    client.paused = false;
    while (client.n_in < ECHO_BYTES) {
        hurt.net->ops->want_read(client.link, true);
        hurt_until(&hurt, client.n_in > before);
        hurt.net->ops->want_read(client.link, false);
        before = client.n_in;
        hurt_turn(&hurt, 0);
        hurt_turn(&hurt, 0);
        assert_int_equal(client.n_in, before);
    }
    assert_memory_equal(client.in, bytes, ECHO_BYTES);
    client_free(&client);
    hurt_stop(&hurt);
    peer_stop(&peer);
    free(bytes);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

/* Exchanges n bytes with an echoing peer until the connection ends, which must be by a reset. */
static void run_to_reset(const char *options, size_t n, struct client *client)
{
    struct hurt hurt = hurt_start(options);
    uint8_t *bytes = make_bytes(n);
    struct peer peer;

    *client = (struct client){.out = bytes, .n_out = n};
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(client, hurt.net, &peer.address, 1, NULL);
    hurt_until(&hurt, client->closed);
    assert_int_equal(client->err.code, IOK_ERESET);
    assert_non_null(strstr(client->err.text, "chaos: reset after"));
    assert_memory_equal(client->in, bytes, client->n_in);
    assert_int_equal(counts_of(&hurt).resets, 1);
    client_free(client);
    hurt_stop(&hurt);
    peer_stop(&peer);
    free(bytes);
}

static void test_reset_at_every_byte(void **state)
{
    struct client client;
    char options[100];

    (void)state;
    for (unsigned n = 1; n <= 40; n++) {
        snprintf(options, sizeof(options), "reset_received=%u", n);
        run_to_reset(options, 40, &client);
        assert_int_equal(client.n_in, n);
        assert_int_equal(client.n_sent, 40);
        snprintf(options, sizeof(options), "reset_sent=%u,partial=0.3,stall=0", n);
        run_to_reset(options, 40, &client);
        assert_int_equal(client.n_sent, n);
        assert_true(client.n_in < n || n == 40); /* nothing comes back that was not sent */
        snprintf(options, sizeof(options), "seed=%u,reset_after=80,pieces=3", n);
        run_to_reset(options, 80, &client);
        assert_true(client.n_sent + client.n_in <= 80);
    }
}

/* The peer's own end is told after all of its bytes. */
static void test_peer_ends(void **state)
{
    struct hurt hurt = hurt_start("seed=1,pieces=1,delay=1ms,connect_delay=5ms");
    struct client client = {0};
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_bye, NULL);
    client_open(&client, hurt.net, &peer.address, 1, NULL);
    hurt_until(&hurt, client.closed);
    assert_true(client.connected);
    assert_int_equal(client.err.code, 0);
    assert_int_equal(client.n_in, 3);
    assert_memory_equal(client.in, "bye", 3);
    client_free(&client);
    hurt_stop(&hurt);
    peer_stop(&peer);
}

static void close_it(struct client *client)
{
    client_close(client);
}

/* Closing within any event is allowed, as on every driver. */
static void test_close_in_events(void **state)
{
    uint8_t *bytes = make_bytes(1000);
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    for (int i = 0; i < 8; i++) {
        struct hurt hurt = hurt_start(i % 2 == 0 ? "seed=1,partial=0.9,pieces=3"
                                                 : "seed=1,partial=0.9,pieces=3,delay=200us,connect_delay=200us");
        struct client client = {.out = bytes, .n_out = 1000};
        void (**const events[])(struct client *) = {&client.on_connected, &client.on_space, &client.on_arrived,
                                                    &client.on_writable};

        *events[i / 2] = close_it;
        client_open(&client, hurt.net, &peer.address, 1, NULL);
        hurt_until(&hurt, client.link == NULL);
        assert_false(client.closed);
        client_free(&client);
        hurt_turn(&hurt, 0);
        hurt_stop(&hurt);
    }
    peer_stop(&peer);
    free(bytes);
}

/* ---- connecting, names ------------------------------------------------------------------------------------------- */

/* The codes of n attempts; NULL-terminated text of letters: connected, refused, timed out. */
static void attempts(const char *options, char *at, int n)
{
    struct hurt hurt = hurt_start(options);
    struct peer peer;

    peer_start(&peer, NULL, peer_bye, NULL);
    for (int i = 0; i < n; i++) {
        struct client client = {0};

        client_open(&client, hurt.net, &peer.address, 1, NULL);
        hurt_until(&hurt, client.closed);
        at[i] = client.connected ? 'c' : client.err.code == IOK_EREFUSED ? 'r' : 't';
        assert_true(client.connected || client.err.code == IOK_EREFUSED || client.err.code == IOK_ECONNECT);
        client_free(&client);
    }
    at[n] = '\0';
    hurt_stop(&hurt);
    peer_stop(&peer);
}

static void test_connecting(void **state)
{
    char first[31], again[31], other[31];

    (void)state;
    attempts("connect_fail=1,connect_delay=1ms", first, 10);
    assert_null(strchr(first, 'c'));
    attempts("seed=7,connect_fail=0.5", first, 30);
    assert_true(strchr(first, 'c') != NULL && strchr(first, 'r') != NULL && strchr(first, 't') != NULL);
    attempts("seed=7,connect_fail=0.5", again, 30);
    assert_string_equal(first, again);
    attempts("seed=8,connect_fail=0.5", other, 30);
    assert_string_not_equal(first, other);
}

/* A failure below is passed on. */
static void test_refused(void **state)
{
    struct hurt hurt = hurt_start("connect_delay=1ms");
    struct client client = {0};
    int fd;
    struct iok_address address = refusing_address(&fd);

    (void)state;
    client_open(&client, hurt.net, &address, 1, NULL);
    hurt_until(&hurt, client.closed);
    assert_int_equal(client.err.code, IOK_EREFUSED);
    assert_null(strstr(client.err.text, "chaos"));
    client_free(&client);
    hurt_stop(&hurt);
    close(fd);
}

struct lookup {
    uint32_t n, done;
    int code;
};

static void on_resolved(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                        const struct iok_error *err)
{
    struct lookup *lookup = owner;

    (void)addresses;
    (void)ttl_ns;
    lookup->done++;
    lookup->n = n;
    lookup->code = err->code;
}

static struct lookup look_up(const char *options)
{
    struct hurt hurt = hurt_start(options);
    struct lookup lookup = {0}, cancelled = {0};
    struct iok_error err;
    struct iok_query *query = hurt.net->ops->resolve(hurt.net, "localhost", 1, on_resolved, &cancelled, &err);

    assert_non_null(query);
    assert_non_null(hurt.net->ops->resolve(hurt.net, "localhost", 1, on_resolved, &lookup, &err));
    hurt.net->ops->cancel(query);
    hurt_until(&hurt, lookup.done);
    assert_int_equal(lookup.done, 1);
    assert_int_equal(cancelled.done, 0);
    assert_non_null(hurt.net->ops->resolve(hurt.net, "localhost", 1, on_resolved, &cancelled, &err));
    iok_uv_free(hurt.under); /* with a query alive */
    iok_chaos_free(hurt.net);
    assert_int_equal(cancelled.done, 0);
    return lookup;
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(look_up("resolve_fail=1").code, IOK_ERESOLVE);
    assert_int_equal(look_up("resolve_fail=1,resolve_delay=1ms").code, IOK_ERESOLVE);
    assert_true(look_up("resolve_delay=1ms").n > 0);
    assert_true(look_up("seed=1").n > 0);
}

static void test_out_of_memory(void **state)
{
    struct hurt hurt = hurt_start("seed=1");
    struct client client = {0};
    struct iok_error err;
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_bye, NULL);
    client_open(&client, hurt.net, &peer.address, 1, NULL);
    for (unsigned long n = 1; n <= 2; n++) { /* its own, and the first one below */
        struct iok_target target = {.addresses = &peer.address, .n_addresses = 1};
        struct iok_link_events events = {0};
        struct lookup lookup = {0};

        iok_mem_fail_at(n);
        assert_null(hurt.net->ops->open(hurt.net, &target, &events, NULL, &err));
        assert_int_equal(err.code, IOK_ENOMEM);
        iok_mem_fail_at(n);
        assert_null(hurt.net->ops->resolve(hurt.net, "localhost", 1, on_resolved, &lookup, &err));
        assert_int_equal(err.code, IOK_ENOMEM);
    }
    iok_mem_fail_at(1);
    assert_null(iok_chaos_new(hurt.under, "seed=1", &err));
    assert_int_equal(err.code, IOK_ENOMEM);
    iok_mem_fail_at(0);
    hurt_until(&hurt, client.closed);
    client_free(&client);
    hurt_stop(&hurt);
    peer_stop(&peer);
}

/* ---- a whole kernel ---------------------------------------------------------------------------------------------- */

/* Lines to an echoing peer: every call ends, and a reply is its own call's. */
static void test_kernel(void **state)
{
    struct iok_options options = {.chaos = "seed=3,partial=0.3,refuse=0.1,stall=100us,pieces=4,delay=200us,"
                                           "reset_after=4000,connect_fail=0.3,connect_delay=1ms"};
    struct iok_kernel *kernel = iok_kernel_new(&options, NULL);
    struct iok_port *port = iok_port_new(kernel, NULL);
    struct iok_service_stats counts;
    struct iok_service *service;
    unsigned done = 0, cut = 0;
    struct peer peer;
    char url[80], word[16], at[IOK_ADDRESS_TEXT_MAX];

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    snprintf(url, sizeof(url), "line://%s?timeout=60s&retries=0", iok_address_text(&peer.address, at));
    service = iok_service_new(port, url, NULL);
    assert_non_null(service);
    for (unsigned i = 0; i < 2000; i += 20) {
        struct iok_call *calls[20];

        for (unsigned j = 0; j < 20; j++) {
            calls[j] = iok_call_new(port, service, NULL);
            iok_call_text(calls[j], word, (size_t)snprintf(word, sizeof(word), "word-%u", i + j));
            assert_int_equal(iok_submit(calls[j]), 0);
        }
        for (unsigned j = 0; j < 20; j++) {
            size_t n;
            const struct iok_token *reply;
            struct iok_error err;

            assert_int_equal(iok_wait_call(calls[j], 60000), 0);
            reply = iok_call_reply(calls[j], &n);
            if (iok_call_outcome(calls[j]) == IOK_DONE) {
                snprintf(word, sizeof(word), "word-%u", i + j);
                assert_int_equal(n, 1);
                assert_int_equal(reply->len, strlen(word));
                assert_memory_equal(reply->p, word, reply->len);
                done++;
            } else {
                assert_int_equal(iok_call_outcome(calls[j]), IOK_MAYBE_EXECUTED);
                assert_int_equal(iok_call_error(calls[j], &err), IOK_ERESET);
                cut++;
            }
            iok_call_free(calls[j]);
        }
    }
    assert_true(done > 0 && cut > 0);
    iok_service_stats(service, &counts);
    assert_true(counts.disconnects > 1 && counts.connect_failures > 0);
    iok_service_close(service, port);
    iok_service_unref(service);
    iok_port_free(port);
    iok_kernel_free(kernel);
    peer_stop(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_options),
        cmocka_unit_test(test_right_options),
        cmocka_unit_test(test_nothing_asked_for),
        cmocka_unit_test(test_partial_and_refused_sends),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_late_bytes),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_reset_at_every_byte),
        cmocka_unit_test(test_peer_ends),
        cmocka_unit_test(test_close_in_events),
        cmocka_unit_test(test_connecting),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_kernel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
