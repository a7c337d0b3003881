/* test_net.c - the real driver without TLS: addresses, turns, connecting, bytes, ends, names, fork. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/base/mem.h"
#include "../kit/net_kit.h"

#define MEGABYTE ((size_t)1 << 20)
#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000u

static char directory[] = "/tmp/iok-net-XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

static const char *path_of(const char *name)
{
    static char path[100];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static void check_literal(const char *text, uint16_t port, const char *wanted)
{
    char at[IOK_ADDRESS_TEXT_MAX];
    struct iok_address address;

    assert_true(iok_address_literal(text, port, &address));
    assert_string_equal(iok_address_text(&address, at), wanted);
}

static void test_literals(void **state)
{
    static const char *const wrong[] = {"",
                                        "localhost",
                                        "1.2.3",
                                        "1.2.3.4.5",
                                        "1.2.3.256",
                                        " 1.2.3.4",
                                        "1.2.3.4 ",
                                        "::1%",
                                        "::1%nosuchif",
                                        "::1%0",
                                        "[::1]",
                                        ":::",
                                        "1.2.3.4%1",
                                        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"};
    struct iok_address address;

    (void)state;
    check_literal("10.0.0.1", 6379, "10.0.0.1:6379");
    check_literal("::1", 6379, "[::1]:6379");
    check_literal("2001:DB8::0:1", 1, "[2001:db8::1]:1");
    check_literal("fe80::1%lo", 65535, "[fe80::1%lo]:65535");
    check_literal("fe80::1%4294967295", 0, "[fe80::1%4294967295]:0");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(iok_address_literal(wrong[i], 1, &address));
    }
}

static void test_unix_addresses(void **state)
{
    char at[IOK_ADDRESS_TEXT_MAX], longest[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];
    struct iok_address address;

    (void)state;
    assert_true(iok_address_unix(iok_span_of("/run/redis.sock"), &address));
    assert_string_equal(iok_address_text(&address, at), "/run/redis.sock");
    assert_true(iok_address_unix(iok_span_of("@name"), &address));
    assert_int_equal(address.local.sun_path[0], 0);
    assert_int_equal(address.len, offsetof(struct sockaddr_un, sun_path) + 5);
    assert_string_equal(iok_address_text(&address, at), "@name");
    memset(longest, 'x', sizeof(longest));
    assert_true(iok_address_unix(iok_span(longest, sizeof(longest) - 2), &address));
    assert_int_equal(strlen(iok_address_text(&address, at)), sizeof(longest) - 2);
    assert_false(iok_address_unix(iok_span(longest, sizeof(longest) - 1), &address));
    longest[0] = '@';
    assert_true(iok_address_unix(iok_span(longest, sizeof(longest) - 1), &address));
    assert_int_equal(strlen(iok_address_text(&address, at)), sizeof(longest) - 1);
    assert_false(iok_address_unix(iok_span(longest, sizeof(longest)), &address));
    assert_false(iok_address_unix(iok_span("", 0), &address));
    assert_false(iok_address_unix(iok_span("a\0b", 3), &address));
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static bool polls_readable(struct iok_net *net)
{
    struct pollfd fd = {.fd = iok_uv_backend_fd(net), .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

static void count_wakeups(void *arg)
{
    int *fd_and_count = arg;
    eventfd_t value;

    eventfd_read(fd_and_count[0], &value);
    fd_and_count[1]++;
}

static void test_turns(void **state)
{
    int wake[2] = {eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), 0};
    struct iok_error err;
    struct iok_net *net = iok_uv_new(wake[0], count_wakeups, wake, 0, &err);
    uint64_t deadline;

    (void)state;
    assert_non_null(net);
    assert_true(polls_readable(net)); /* the wake-up is not in epoll's set yet */
    iok_uv_turn(net, 0);
    assert_int_equal(wake[1], 0);
    assert_false(polls_readable(net));
    eventfd_write(wake[0], 1);
    assert_true(polls_readable(net));
    iok_uv_turn(net, UINT64_MAX);
    assert_int_equal(wake[1], 1);
    iok_uv_turn(net, 1); /* long past */
    deadline = net->ops->now(net) + 3 * NS_PER_MS + 1;
    while (net->ops->now(net) < deadline) {
        iok_uv_turn(net, deadline);
    }
    /* A deadline that comes while libuv looks at its timers must not let it sleep without one. */
    for (int i = 0; i < 100; i++) {
        iok_uv_turn(net, net->ops->now(net) + (uint64_t)i * 10000);
    }
    assert_int_equal(wake[1], 1);
    assert_true(net->ops->random(net) != net->ops->random(net));
    iok_uv_free(net);
    close(wake[0]);
}

static void test_bad_wake_fd(void **state)
{
    struct iok_error err;

    (void)state;
    assert_null(iok_uv_new(-1, count_wakeups, NULL, 0, &err));
    assert_int_equal(err.code, IOK_ESYSTEM);
    assert_non_null(strstr(err.text, "bad file descriptor"));
}

static void test_seed_repeats(void **state)
{
    struct iok_net *a = net_start();
    uint64_t first = a->ops->random(a), second = a->ops->random(a);

    (void)state;
    net_stop(a);
    a = net_start();
    assert_true(a->ops->random(a) == first);
    assert_true(a->ops->random(a) == second);
    net_stop(a);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* The peer reads only when sending fell short, so there is backpressure for certain. */
static void echo_under_pressure(const char *path, size_t space)
{
    size_t n = 8 * MEGABYTE; /* more than the buffers of two sockets hold */
    uint8_t *bytes = make_bytes(n);
    struct client client = {.out = bytes, .n_out = n, .space = space};
    struct iok_net *net = net_start();
    struct peer peer;

    peer_start(&peer, path, peer_echo_late, NULL);
    client_open(&client, net, &peer.address, 1, NULL);
    until(net, client.shortfalls > 0);
    sem_post(&peer.go);
    until(net, client.n_in == n);
    assert_memory_equal(client.in, bytes, n);
    assert_true(client.writables > 0);
    assert_false(client.closed);
    assert_string_equal(client.alpn, "");
    client_free(&client);
    net_stop(net);
    peer_stop(&peer);
    free(bytes);
}

static void test_echo_tcp(void **state)
{
    (void)state;
    echo_under_pressure(NULL, 0);
    echo_under_pressure(NULL, 1000);
}

static void test_echo_unix(void **state)
{
    char abstract[101];

    (void)state;
    echo_under_pressure(path_of("echo"), 0);
    snprintf(abstract, sizeof(abstract), "@%s", path_of("echo"));
    echo_under_pressure(abstract, 0);
}

static void test_pause_and_resume(void **state)
{
    uint8_t *bytes = make_bytes(MEGABYTE);
    struct client client = {.out = bytes, .n_out = MEGABYTE, .paused = true};
    struct iok_net *net = net_start();
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(&client, net, &peer.address, 1, NULL);
    until(net, client.connected && client.n_sent > 0);
    for (int i = 0; i < 20; i++) {
        iok_uv_turn(net, net->ops->now(net) + NS_PER_MS);
    }
    assert_int_equal(client.n_in, 0);
    client.paused = false;
    client.space = 100;
    net->ops->want_read(client.link, true);
    while (client.n_in < MEGABYTE) {
        size_t before = client.n_in;

        until(net, client.n_in > before);
        net->ops->want_read(client.link, false);
        before = client.n_in;
        iok_uv_turn(net, 0);
        iok_uv_turn(net, 0);
        assert_int_equal(client.n_in, before);
        net->ops->want_read(client.link, true);
        client.space *= 2;
    }
    assert_memory_equal(client.in, bytes, MEGABYTE);
    client_free(&client);
    net_stop(net);
    peer_stop(&peer);
    free(bytes);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

static void check_failure(const struct iok_address *addresses, uint32_t n, int code, const char *text)
{
    struct client client = {0};
    struct iok_net *net = net_start();

    client_open(&client, net, addresses, n, NULL);
    until(net, client.closed);
    assert_false(client.connected);
    assert_int_equal(client.err.code, code);
    assert_string_equal(client.err.text, text);
    client_free(&client);
    net_stop(net);
}

static void test_refused(void **state)
{
    int fds[2];
    struct iok_address addresses[2] = {refusing_address(&fds[0]), refusing_address(&fds[1])};
    char text[400], at[2][IOK_ADDRESS_TEXT_MAX];

    (void)state;
    for (int i = 0; i < 2; i++) {
        iok_address_text(&addresses[i], at[i]);
    }
    snprintf(text, sizeof(text), "%s: connection refused", at[0]);
    check_failure(addresses, 1, IOK_EREFUSED, text);
    snprintf(text, sizeof(text), "%s: connection refused, %s: connection refused", at[0], at[1]);
    check_failure(addresses, 2, IOK_EREFUSED, text);
    close(fds[0]);
    close(fds[1]);
}

static void test_no_such_socket(void **state)
{
    struct iok_address addresses[2];
    char text[400], at[IOK_ADDRESS_TEXT_MAX];
    int fd;

    (void)state;
    assert_true(iok_address_unix(iok_span_of(path_of("missing")), &addresses[0]));
    snprintf(text, sizeof(text), "%s: no such file or directory", path_of("missing"));
    check_failure(addresses, 1, IOK_ECONNECT, text);
    /* A refusal says more. */
    addresses[1] = refusing_address(&fd);
    snprintf(text, sizeof(text), "%s: no such file or directory, %s: connection refused", path_of("missing"),
             iok_address_text(&addresses[1], at));
    check_failure(addresses, 2, IOK_EREFUSED, text);
    close(fd);
}

static void test_cannot_start(void **state)
{
    struct iok_target target = {0};
    struct iok_link_events events = {0};
    struct iok_net *net = net_start();
    struct iok_error err;

    (void)state;
    assert_null(net->ops->open(net, &target, &events, NULL, &err));
    assert_int_equal(err.code, IOK_EINVAL);
    net_stop(net);
}

static void check_winner(const struct iok_address *addresses, uint32_t n, const struct iok_address *winner)
{
    struct client client = {.out = (const uint8_t *)"hello", .n_out = 5};
    char at[2][IOK_ADDRESS_TEXT_MAX];
    struct iok_net *net = net_start();

    client_open(&client, net, addresses, n, NULL);
    until(net, client.n_in == 5);
    assert_string_equal(iok_address_text(&client.address, at[0]), iok_address_text(winner, at[1]));
    client_free(&client);
    net_stop(net);
}

static void test_next_address_after_a_refusal(void **state)
{
    struct iok_address addresses[4];
    struct peer peer, second;
    int fd;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    peer_start(&second, path_of("second"), peer_echo, NULL);
    addresses[0] = refusing_address(&fd);
    addresses[1] = peer.address;
    check_winner(addresses, 2, &peer.address);
    /* Families take turns: the unix socket is the second to be tried. */
    addresses[1] = addresses[0];
    addresses[2] = peer.address;
    addresses[3] = second.address;
    check_winner(addresses, 4, &second.address);
    close(fd);
    peer_stop(&peer);
    peer_stop(&second);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void check_end(peer_fn *serve, const char *send, int code, const char *text, const char *arrived)
{
    struct client client = {.out = (const uint8_t *)send, .n_out = strlen(send)};
    struct iok_net *net = net_start();
    struct peer peer;

    peer_start(&peer, NULL, serve, NULL);
    client_open(&client, net, &peer.address, 1, NULL);
    until(net, client.closed);
    assert_int_equal(client.err.code, code);
    assert_string_equal(client.err.text, text);
    assert_int_equal(client.n_in, strlen(arrived));
    assert_memory_equal(client.in, arrived, client.n_in);
    client_free(&client);
    net_stop(net);
    peer_stop(&peer);
}

static void test_peer_ends(void **state)
{
    (void)state;
    check_end(peer_bye, "", 0, "closed by the peer", "bye");
    check_end(peer_reset, "x", IOK_ERESET, "connection lost: connection reset by peer", "");
}

/* Sending fails, and what the peer said before is delivered all the same. */
static void test_send_after_reset(void **state)
{
    uint8_t byte = 'x';
    struct client client = {.paused = true};
    struct iok_net *net = net_start();
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_bye_reset, NULL);
    client_open(&client, net, &peer.address, 1, NULL);
    until(net, client.connected);
    net->ops->want_read(client.link, false);
    sem_wait_for(&peer.said);
    sem_post(&peer.go);
    peer_stop(&peer); /* the connection is reset now */
    client.out = &byte;
    client.n_out = 1;
    client.paused = false;
    net->ops->want_read(client.link, true);
    client_send(&client);
    assert_true(client.broken);
    assert_false(client.closed); /* in a later turn */
    assert_true(polls_readable(net));
    client_send(&client);
    net->ops->want_read(client.link, true);
    until(net, client.closed);
    assert_int_equal(client.err.code, IOK_ERESET);
    assert_int_equal(client.n_in, 3);
    client_free(&client);
    net_stop(net);
}

/* ---- closing inside events --------------------------------------------------------------------------------------- */

static void close_in_event(struct client *client)
{
    client_close(client);
}

static void close_the_other(struct client *client)
{
    struct client *other = client->arg;

    if (other->link != NULL) {
        client_close(other);
    }
}

static void test_close_in_events(void **state)
{
    uint8_t *bytes = make_bytes(8 * MEGABYTE);
    struct iok_net *net = net_start();
    struct client clients[4] = {{.on_connected = close_in_event},
                                {.out = bytes, .n_out = 5, .on_space = close_in_event},
                                {.out = bytes, .n_out = 5, .on_arrived = close_in_event},
                                {.out = bytes, .n_out = 8 * MEGABYTE, .on_writable = close_in_event}};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct peer peer;

        peer_start(&peer, NULL, peer_echo, NULL);
        client_open(&clients[i], net, &peer.address, 1, NULL);
        until(net, clients[i].link == NULL);
        assert_false(clients[i].closed);
        until(net, iok_uv_objects(net) == 0);
        client_free(&clients[i]);
        peer_stop(&peer);
    }
    net_stop(net);
    free(bytes);
}

/* Both have bytes to read in the same turn, and the first to be told closes the other. */
static void test_close_another_in_event(void **state)
{
    struct client a = {.on_arrived = close_the_other}, b = {.on_arrived = close_the_other, .arg = &a};
    struct iok_net *net = net_start();
    struct peer peer, second;

    (void)state;
    a.arg = &b;
    peer_start(&peer, NULL, peer_bye_reset, NULL);
    peer_start(&second, NULL, peer_bye_reset, NULL);
    client_open(&a, net, &peer.address, 1, NULL);
    client_open(&b, net, &second.address, 1, NULL);
    until(net, (a.link == NULL) != (b.link == NULL));
    assert_false(a.closed || b.closed);
    client_free(&a);
    client_free(&b);
    net_stop(net);
    peer_stop(&peer);
    peer_stop(&second);
}

/* In every state, and outside of turns. */
static void test_close_at_any_time(void **state)
{
    struct client failing = {0}, connecting = {0};
    struct iok_address missing;
    struct iok_net *net = net_start();
    struct peer peer;

    (void)state;
    assert_true(iok_address_unix(iok_span_of(path_of("missing")), &missing));
    client_open(&failing, net, &missing, 1, NULL);
    client_close(&failing);
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(&connecting, net, &peer.address, 1, NULL);
    client_close(&connecting);
    assert_int_equal(iok_uv_objects(net), 2);
    until(net, iok_uv_objects(net) == 0);
    assert_false(failing.closed || connecting.connected || connecting.closed);
    net_stop(net);
    peer_stop(&peer);
}

static void test_free_closes_all(void **state)
{
    struct client clients[3] = {{.out = (const uint8_t *)"x", .n_out = 1}, {0}, {0}};
    struct iok_net *net = net_start();
    struct iok_address missing;
    struct peer peer;

    (void)state;
    assert_true(iok_address_unix(iok_span_of(path_of("missing")), &missing));
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(&clients[0], net, &peer.address, 1, NULL);
    until(net, clients[0].n_in == 1);
    client_open(&clients[1], net, &peer.address, 1, NULL);
    client_open(&clients[2], net, &missing, 1, NULL);
    assert_int_equal(iok_uv_objects(net), 3);
    iok_uv_free(net);
    for (int i = 0; i < 3; i++) {
        assert_false(clients[i].closed);
        clients[i].link = NULL;
        client_free(&clients[i]);
    }
    peer_stop(&peer);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* A name server on a thread: knows one name, and stays silent about another. */
struct name_server {
    int fd;
    uint16_t port;
    pthread_t thread;
    _Atomic int silent; /* questions about silent.test */
};

static const uint8_t both_test[] = "\4both\4test", silent_test[] = "\6silent\4test", stop_test[] = "\4stop\4test";

static void put(uint8_t *at, size_t *n, const void *p, size_t len)
{
    memcpy(at + *n, p, len);
    *n += len;
}

/* Makes the question at into its answer; returns the length, 0 for none (RFC 1035 4.1). */
static size_t answer(struct name_server *server, uint8_t *at, size_t n)
{
    static const uint8_t a[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1};
    static const uint8_t aaaa[] = {0xc0, 12,   0, 28, 0, 1, 0, 0, 0, 20, 0, 16, 0x20, 1,
                                   0xd,  0xb8, 0, 0,  0, 0, 0, 0, 0, 0,  0, 0,  0,    1};
    size_t name = strnlen((char *)at + 12, n - 12) + 1, end = 12 + name + 4;
    bool six;

    if (end > n) {
        return 0;
    }
    six = at[12 + name + 1] == 28;
    memset(at + 6, 0, 6);
    at[2] = 0x84 | (at[2] & 1); /* an authoritative answer */
    at[3] = 0x80;
    if (name == sizeof(silent_test) && memcmp(at + 12, silent_test, name) == 0) {
        server->silent++;
        return 0;
    }
    if (name == sizeof(both_test) && memcmp(at + 12, both_test, name) == 0) {
        at[7] = 1;
        put(at, &end, six ? aaaa : a, six ? sizeof(aaaa) : sizeof(a));
    } else {
        at[3] |= 3; /* NXDOMAIN */
    }
    return end;
}

static void *name_server_main(void *arg)
{
    struct name_server *server = arg;
    uint8_t at[1024];

    for (;;) {
        struct sockaddr_in from;
        socklen_t len = sizeof(from);
        ssize_t got = recvfrom(server->fd, at, 512, 0, (struct sockaddr *)&from, &len);
        size_t n;

        if (got >= 12 + (ssize_t)sizeof(stop_test) && memcmp(at + 12, stop_test, sizeof(stop_test)) == 0) {
            return NULL;
        }
        n = got > 12 ? answer(server, at, (size_t)got) : 0;
        if (n > 0) {
            sendto(server->fd, at, n, 0, (struct sockaddr *)&from, len);
        }
    }
}

static void name_server_start(struct name_server *server)
{
    struct iok_address address;
    char text[IOK_ADDRESS_TEXT_MAX];

    assert_true(iok_address_literal("127.0.0.1", 0, &address));
    server->silent = 0;
    server->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->fd, &address.any, address.len), 0);
    assert_int_equal(getsockname(server->fd, &address.any, &address.len), 0);
    server->port = address.v4.sin_port;
    assert_int_equal(pthread_create(&server->thread, NULL, name_server_main, server), 0);
    setenv("IOKERNEL_DNS", iok_address_text(&address, text), 1);
}

static void name_server_stop(struct name_server *server)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = server->port};
    uint8_t stop[12 + sizeof(stop_test)] = {0};

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(stop + 12, stop_test, sizeof(stop_test));
    sendto(server->fd, stop, sizeof(stop), 0, (struct sockaddr *)&to, sizeof(to));
    pthread_join(server->thread, NULL);
    close(server->fd);
    unsetenv("IOKERNEL_DNS");
}

struct lookup {
    bool done;
    uint32_t n;
    uint64_t ttl_ns;
    struct iok_error err;
    char texts[IOK_ADDRESSES_MAX][IOK_ADDRESS_TEXT_MAX];
};

static void on_resolved(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                        const struct iok_error *err)
{
    struct lookup *lookup = owner;

    assert_false(lookup->done);
    lookup->done = true;
    lookup->n = n;
    lookup->ttl_ns = ttl_ns;
    lookup->err = *err;
    for (uint32_t i = 0; i < n; i++) {
        iok_address_text(&addresses[i], lookup->texts[i]);
    }
}

static struct iok_query *resolve(struct iok_net *net, struct lookup *lookup, const char *host)
{
    struct iok_error err;
    struct iok_query *query;

    memset(lookup, 0, sizeof(*lookup));
    query = net->ops->resolve(net, host, 6379, on_resolved, lookup, &err);
    assert_non_null(query);
    assert_false(lookup->done); /* in a later turn */
    return query;
}

static bool has_text(const struct lookup *lookup, const char *text)
{
    for (uint32_t i = 0; i < lookup->n; i++) {
        if (strcmp(lookup->texts[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static void test_localhost(void **state)
{
    struct lookup lookup;
    struct iok_net *net = net_start();

    (void)state;
    resolve(net, &lookup, "localhost");
    until(net, lookup.done);
    assert_int_equal(lookup.err.code, 0);
    assert_true(has_text(&lookup, "127.0.0.1:6379") || has_text(&lookup, "[::1]:6379"));
    assert_int_equal(lookup.ttl_ns, 60ull * NS_PER_S);
    net_stop(net);
}

static void test_names(void **state)
{
    struct name_server server;
    struct lookup lookup, silent;
    struct iok_query *query;
    struct iok_net *net;

    (void)state;
    name_server_start(&server);
    net = net_start();
    query = resolve(net, &silent, "silent.test.");
    resolve(net, &lookup, "both.test.");
    until(net, lookup.done);
    assert_int_equal(lookup.err.code, 0);
    assert_int_equal(lookup.n, 2);
    assert_true(has_text(&lookup, "192.0.2.1:6379"));
    assert_true(has_text(&lookup, "[2001:db8::1]:6379"));
    assert_int_equal(lookup.ttl_ns, 20ull * NS_PER_S);
    resolve(net, &lookup, "missing.test.");
    until(net, lookup.done);
    assert_int_equal(lookup.err.code, IOK_ERESOLVE);
    assert_string_equal(lookup.err.text, "missing.test.: name does not resolve (Domain name not found)");
    assert_int_equal(lookup.n, 0);
    until(net, server.silent > 0);
    net->ops->cancel(query);
    until(net, iok_uv_objects(net) == 0);
    assert_false(silent.done);
    /* Left for free to cancel. */
    resolve(net, &silent, "silent.test.");
    iok_uv_turn(net, 0);
    iok_uv_free(net);
    assert_false(silent.done);
    name_server_stop(&server);
}

static void test_bad_name_servers(void **state)
{
    struct iok_error err;
    struct lookup lookup;
    struct iok_net *net;

    (void)state;
    setenv("IOKERNEL_DNS", "nonsense:here", 1);
    net = net_start();
    assert_null(net->ops->resolve(net, "both.test.", 1, on_resolved, &lookup, &err));
    assert_int_equal(err.code, IOK_ERESOLVE);
    assert_non_null(strstr(err.text, "both.test.: "));
    assert_non_null(strstr(err.text, "IOKERNEL_DNS"));
    net_stop(net);
    unsetenv("IOKERNEL_DNS");
}

/* ---- out of memory ----------------------------------------------------------------------------------------------- */

static void ignore_resolved(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                            const struct iok_error *err)
{
    (void)owner, (void)addresses, (void)n, (void)ttl_ns, (void)err;
}

/* Each allocation of our own fails in turn, until an attempt made fewer of them: an error at once, or an attempt that
 * ends; nothing is left behind. */
static void check_open(struct iok_net *net, const struct iok_address *address)
{
    struct iok_target target = {.addresses = address, .n_addresses = 1};
    struct iok_link_events events = {0};
    unsigned long n = 0, made;

    do {
        struct iok_error err;
        struct iok_link *link;

        iok_mem_fail_at(++n);
        link = net->ops->open(net, &target, &events, NULL, &err);
        made = iok_mem_count();
        iok_mem_fail_at(0);
        assert_true(link != NULL || err.code == IOK_ENOMEM);
        if (link != NULL) {
            net->ops->close(link);
        }
        until(net, iok_uv_objects(net) == 0);
    } while (n <= made);
    assert_int_equal(n, 4); /* link, race and socket had their turns */
}

static void check_resolve(struct iok_net *net)
{
    unsigned long n = 0, made;

    do {
        struct iok_error err;
        struct iok_query *query;

        iok_mem_fail_at(++n);
        query = net->ops->resolve(net, "localhost", 1, ignore_resolved, NULL, &err);
        made = iok_mem_count();
        iok_mem_fail_at(0);
        assert_true(query != NULL || err.code == IOK_ENOMEM);
        until(net, iok_uv_objects(net) == 0);
    } while (n <= made);
}

static void check_new(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    unsigned long n = 0, made;

    do {
        struct iok_error err;
        struct iok_net *net;

        iok_mem_fail_at(++n);
        net = iok_uv_new(fd, count_wakeups, NULL, 0, &err);
        made = iok_mem_count();
        iok_mem_fail_at(0);
        if (net != NULL) {
            iok_uv_free(net);
        } else {
            assert_true(err.code == IOK_ENOMEM || err.code == IOK_ESYSTEM);
        }
    } while (n <= made);
    close(fd);
}

static void test_out_of_memory(void **state)
{
    struct iok_net *net = net_start();
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    check_open(net, &peer.address);
    check_resolve(net);
    check_new();
    net_stop(net);
    peer_stop(&peer);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

static void test_fork(void **state)
{
    struct client client = {.out = (const uint8_t *)"onetwo", .n_out = 3};
    struct client race = {0};
    struct iok_net *net = net_start();
    struct lookup lookup;
    struct peer peer;
    int status = -1;
    pid_t child;

    (void)state;
    peer_start(&peer, NULL, peer_echo, NULL);
    client_open(&client, net, &peer.address, 1, NULL);
    until(net, client.n_in == 3);
    client_open(&race, net, &peer.address, 1, NULL);
    resolve(net, &lookup, "localhost");
    child = fork();
    if (child == 0) {
        iok_uv_forget(net);
        iok_uv_free_forgotten(net);
        net = net_start(); /* a fresh driver works here */
        resolve(net, &lookup, "localhost");
        until(net, lookup.done && iok_uv_objects(net) == 0);
        iok_uv_free(net);
        _exit(client.closed || race.connected || race.closed ? 1 : leaks());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    until(net, lookup.done && race.connected);
    client.n_out = 6;
    client_send(&client);
    until(net, client.n_in == 6);
    assert_memory_equal(client.in, "onetwo", 6);
    client_free(&client);
    client_free(&race);
    net_stop(net);
    peer_stop(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_unix_addresses),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_bad_wake_fd),
        cmocka_unit_test(test_seed_repeats),
        cmocka_unit_test(test_echo_tcp),
        cmocka_unit_test(test_echo_unix),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_such_socket),
        cmocka_unit_test(test_cannot_start),
        cmocka_unit_test(test_next_address_after_a_refusal),
        cmocka_unit_test(test_peer_ends),
        cmocka_unit_test(test_send_after_reset),
        cmocka_unit_test(test_close_in_events),
        cmocka_unit_test(test_close_another_in_event),
        cmocka_unit_test(test_close_at_any_time),
        cmocka_unit_test(test_free_closes_all),
        cmocka_unit_test(test_localhost),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_name_servers),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_fork),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
