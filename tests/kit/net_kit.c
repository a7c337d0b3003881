/* net_kit.c - see net_kit.h. */
#include "net_kit.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- peers ------------------------------------------------------------------------------------------------------- */

static void *peer_main(void *arg)
{
    struct peer *peer = arg;
    int fd;

    /* stop shuts the listening socket down, which ends accept. */
    while (fd = accept(peer->listener, NULL, NULL), fd >= 0) {
        peer->got++;
        peer->serve(peer, fd);
        close(fd);
    }
    return NULL;
}

void peer_listen(struct peer *peer, const char *path, SSL_CTX *ctx)
{
    memset(peer, 0, sizeof(*peer));
    peer->ctx = ctx;
    sem_init(&peer->go, 0, 0);
    sem_init(&peer->said, 0, 0);
    if (path != NULL) {
        assert_true(iok_address_unix(iok_span_of(path), &peer->address));
    } else {
        assert_true(iok_address_literal("127.0.0.1", 0, &peer->address));
    }
    peer->listener = socket(peer->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer->listener, &peer->address.any, peer->address.len), 0);
    assert_int_equal(getsockname(peer->listener, &peer->address.any, &peer->address.len), 0);
    assert_int_equal(listen(peer->listener, 64), 0);
}

void peer_start(struct peer *peer, const char *path, peer_fn *serve, SSL_CTX *ctx)
{
    sigset_t pipe, old;

    peer_listen(peer, path, ctx);
    peer->serve = serve;
    /* The thread inherits the mask: OpenSSL's own socket BIO, which the peer uses, may raise SIGPIPE. The tests'
     * thread keeps the signal deadly, to show that the driver never raises it. */
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &old);
    assert_int_equal(pthread_create(&peer->thread, NULL, peer_main, peer), 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void peer_stop(struct peer *peer)
{
    sem_post(&peer->go);
    shutdown(peer->listener, SHUT_RDWR);
    pthread_join(peer->thread, NULL);
    close(peer->listener);
    sem_destroy(&peer->go);
    sem_destroy(&peer->said);
    if (peer->address.any.sa_family == AF_UNIX && peer->address.local.sun_path[0] != '\0') {
        unlink(peer->address.local.sun_path);
    }
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0) {
            return false;
        }
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

void peer_echo(struct peer *peer, int fd)
{
    char bytes[16384];
    ssize_t got;

    (void)peer;
    while (got = recv(fd, bytes, sizeof(bytes), 0), got > 0 && write_all(fd, bytes, (size_t)got)) {
    }
}

void sem_wait_for(sem_t *sem)
{
    while (sem_wait(sem) < 0 && errno == EINTR) {
    }
}

void peer_echo_late(struct peer *peer, int fd)
{
    sem_wait_for(&peer->go);
    peer_echo(peer, fd);
}

/* Closing will send a reset, not an end. */
static void make_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void peer_reset(struct peer *peer, int fd)
{
    char byte;

    (void)peer;
    if (recv(fd, &byte, 1, 0) == 1) {
        make_reset(fd);
    }
}

void peer_bye(struct peer *peer, int fd)
{
    (void)peer;
    write_all(fd, "bye", 3);
}

void peer_bye_reset(struct peer *peer, int fd)
{
    write_all(fd, "bye", 3);
    sem_post(&peer->said);
    sem_wait_for(&peer->go);
    make_reset(fd);
}

void peer_error(struct peer *peer, int fd)
{
    char bytes[16384];

    (void)peer;
    if (recv(fd, bytes, sizeof(bytes), 0) > 0) {
        write_all(fd, "-ERR unknown command\r\n", 22);
        while (recv(fd, bytes, sizeof(bytes), 0) > 0) {
        }
    }
}

static SSL *accept_tls(struct peer *peer, int fd)
{
    SSL *ssl = SSL_new(peer->ctx);

    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) != 1) {
        char byte;

        /* The client reads our alert before it is told of an end; a close with bytes unread would be a reset. */
        shutdown(fd, SHUT_WR);
        while (recv(fd, &byte, 1, 0) > 0) {
        }
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

void peer_echo_tls(struct peer *peer, int fd)
{
    SSL *ssl = accept_tls(peer, fd);
    char bytes[16384];
    int got;

    if (ssl == NULL) {
        return;
    }
    while (got = SSL_read(ssl, bytes, sizeof(bytes)), got > 0 && SSL_write(ssl, bytes, got) == got) {
    }
    if (got <= 0 && SSL_get_error(ssl, got) == SSL_ERROR_ZERO_RETURN) {
        peer->clean_ends++;
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
}

void peer_eof_tls(struct peer *peer, int fd)
{
    SSL *ssl = accept_tls(peer, fd);

    if (ssl != NULL) {
        char byte;

        SSL_write(ssl, "bye", 3);
        SSL_read(ssl, &byte, 1);
        SSL_free(ssl);
    }
}

struct iok_address refusing_address(int *fd)
{
    struct iok_address address;

    /* Bound but not listening: nobody else gets the port, and connecting to it is refused. */
    assert_true(iok_address_literal("127.0.0.1", 0, &address));
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*fd, &address.any, address.len), 0);
    assert_int_equal(getsockname(*fd, &address.any, &address.len), 0);
    return address;
}

/* ---- the client -------------------------------------------------------------------------------------------------- */

static void on_connected(void *owner, const struct iok_address *address, const char *alpn)
{
    struct client *client = owner;

    assert_false(client->connected);
    client->connected = true;
    client->address = *address;
    client->plain = alpn == NULL;
    snprintf(client->alpn, sizeof(client->alpn), "%s", alpn != NULL ? alpn : "");
    if (client->on_connected != NULL) {
        client->on_connected(client);
    }
    if (client->link != NULL) {
        client_send(client);
    }
}

static uint8_t *on_read_space(void *owner, size_t *n)
{
    struct client *client = owner;

    assert_true(client->connected);
    assert_non_null(client->link);
    if (client->on_space != NULL) {
        client->on_space(client);
    }
    if (client->paused || client->link == NULL) {
        return NULL;
    }
    if (client->cap_in - client->n_in < 65536) {
        client->cap_in = client->cap_in * 2 + 65536;
        client->in = realloc(client->in, client->cap_in);
        assert_non_null(client->in);
    }
    *n = client->cap_in - client->n_in;
    if (client->space > 0 && client->space < *n) {
        *n = client->space;
    }
    return client->in + client->n_in;
}

static void on_arrived(void *owner, size_t n)
{
    struct client *client = owner;

    assert_true(n > 0 && n <= client->cap_in - client->n_in);
    assert_non_null(client->link);
    client->n_in += n;
    client->reads++;
    if (client->on_arrived != NULL) {
        client->on_arrived(client);
    }
}

static void on_writable(void *owner)
{
    struct client *client = owner;

    assert_non_null(client->link);
    client->writables++;
    if (client->on_writable != NULL) {
        client->on_writable(client);
    }
    if (client->link != NULL) {
        client_send(client);
    }
}

static void on_closed(void *owner, const struct iok_error *err)
{
    struct client *client = owner;

    assert_non_null(client->link);
    client->link = NULL;
    client->closed = true;
    client->err = *err;
    if (client->on_closed != NULL) {
        client->on_closed(client);
    }
}

static const struct iok_link_events client_events = {
    .connected = on_connected,
    .read_space = on_read_space,
    .arrived = on_arrived,
    .writable = on_writable,
    .closed = on_closed,
};

void client_open(struct client *client, struct iok_net *net, const struct iok_address *addresses, uint32_t n,
                 struct iok_tls *tls)
{
    struct iok_target target = {addresses, n, tls, client->starttls};
    struct iok_error err;

    client->net = net;
    client->link = net->ops->open(net, &target, &client_events, client, &err);
    assert_non_null(client->link);
    assert_false(client->connected || client->closed);
}

void client_send(struct client *client)
{
    while (client->n_sent < client->n_out) {
        /* Two pieces, as the core does it with large payloads. */
        size_t left = client->n_out - client->n_sent, half = left / 2;
        uint8_t *p = (uint8_t *)(uintptr_t)(client->out + client->n_sent);
        struct iovec vec[2] = {{p, half}, {p + half, left - half}};
        ptrdiff_t sent = client->net->ops->send(client->link, half > 0 ? vec : vec + 1, half > 0 ? 2 : 1);

        if (sent < 0) {
            assert_int_equal(sent, IOK_ERESET);
            client->broken = true;
            return;
        }
        client->n_sent += (size_t)sent;
        if ((size_t)sent < left) {
            client->shortfalls++;
            return;
        }
    }
}

void client_close(struct client *client)
{
    struct iok_link *link = client->link;

    client->link = NULL;
    client->net->ops->close(link);
}

void client_free(struct client *client)
{
    if (client->link != NULL) {
        client_close(client);
    }
    free(client->in);
}

uint8_t *make_bytes(size_t n)
{
    uint8_t *p = malloc(n);

    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(i * 31 + (i >> 8) * 17);
    }
    return p;
}

static int wake_fd = -1;

static void on_woken(void *arg)
{
    (void)arg;
}

struct iok_net *net_start(void)
{
    struct iok_error err;
    struct iok_net *net;

    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    net = iok_uv_new(wake_fd, on_woken, NULL, 1, &err);
    assert_non_null(net);
    return net;
}

void net_stop(struct iok_net *net)
{
    until(net, iok_uv_objects(net) == 0);
    iok_uv_free(net);
    close(wake_fd);
}

int __lsan_do_recoverable_leak_check(void) __attribute__((weak)); /* the sanitizer's; NULL without it */

int leaks(void)
{
    return __lsan_do_recoverable_leak_check != NULL ? __lsan_do_recoverable_leak_check() : 0;
}
