/* sock.c - one non-blocking stream socket, watched by the loop.
 *
 * The sockets are our own, not libuv's streams, so that reads go straight into the core's memory, and writes can say
 * MSG_NOSIGNAL: a thread of the program may run the loop, and it must never see a SIGPIPE. */
#include "uv_private.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A silent peer is found dead after 60 + 4 * 15 s = 2 min, less than the 5 min after which most NATs and firewalls
 * forget a connection; probes at 60 s keep it in their memory. */
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_INTERVAL_S 15
#define KEEPALIVE_PROBES 4

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct iok_sock *sock = poll->data;

    if (status < 0) {
        /* libuv stopped the watcher: POLLERR. Which error is for the owner to find out. */
        int watched = sock->watched;

        sock->watched = 0;
        sock->ready(sock->owner, watched, true);
    } else {
        sock->ready(sock->owner, events, false);
    }
}

static void on_closed(uv_handle_t *handle)
{
    iok_free(handle->data);
}

void iok_sock_set_options(int fd)
{
    int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

/* A descriptor that is connecting, or -errno. */
static int start_connect(const struct iok_address *address)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    if (address->any.sa_family != AF_UNIX) {
        iok_sock_set_options(fd);
    }
    /* After EINTR the connect goes on in the background, as after EINPROGRESS. */
    if (connect(fd, &address->any, address->len) < 0 && errno != EINPROGRESS && errno != EINTR) {
        int error = -errno;

        close(fd);
        return error;
    }
    return fd;
}

int iok_sock_open(struct iok_uv *net, int fd, bool keep_fd, void (*ready)(void *owner, int events, bool failed),
                  void *owner, struct iok_sock **out)
{
    struct iok_sock *sock = iok_calloc(sizeof(*sock));
    int rc;

    if (sock == NULL) {
        return -ENOMEM;
    }
    sock->net = net;
    sock->ready = ready;
    sock->owner = owner;
    sock->keep_fd = keep_fd;
    sock->fd = fd;
    rc = uv_poll_init(&net->loop, &sock->poll, fd);
    if (rc != 0) {
        iok_free(sock);
        return rc;
    }
    sock->poll.data = sock;
    *out = sock;
    return 0;
}

int iok_sock_connect(struct iok_uv *net, const struct iok_address *address,
                     void (*ready)(void *owner, int events, bool failed), void *owner, struct iok_sock **out)
{
    int fd = start_connect(address);
    int rc = fd < 0 ? fd : iok_sock_open(net, fd, false, ready, owner, out);

    if (rc == 0) {
        iok_sock_watch(*out, UV_WRITABLE);
    } else if (fd >= 0) {
        close(fd);
    }
    return rc;
}

int iok_sock_connected(const struct iok_sock *sock, const struct iok_address *address)
{
    struct iok_address self;
    int error = iok_sock_error(sock);

    if (error != 0) {
        return error;
    }
    self.len = sizeof(self.local);
    if (getpeername(sock->fd, &self.any, &self.len) < 0) {
        return errno == ENOTCONN ? -EINPROGRESS : -errno;
    }
    /* TCP's simultaneous open (RFC 9293 3.5) lets a socket connect to itself, when nobody listens on a port of the
     * ephemeral range and the system picks just that one for our end. */
    self.len = sizeof(self.local);
    if (address->any.sa_family != AF_UNIX && getsockname(sock->fd, &self.any, &self.len) == 0 &&
        self.len == address->len && memcmp(&self.any, &address->any, self.len) == 0) {
        return -ECONNREFUSED;
    }
    return 0;
}

void iok_sock_pass(struct iok_sock *sock, void (*ready)(void *owner, int events, bool failed), void *owner)
{
    sock->ready = ready;
    sock->owner = owner;
}

void iok_sock_watch(struct iok_sock *sock, int events)
{
    if (sock->watched == events) {
        return;
    }
    if (events == 0) {
        uv_poll_stop(&sock->poll);
    } else {
        int rc = uv_poll_start(&sock->poll, events, on_poll);

        assert(rc == 0); /* fails only on a handle that is closing */
        (void)rc;
        sock->net->unflushed = true;
    }
    sock->watched = events;
}

ptrdiff_t iok_sock_send(const struct iok_sock *sock, const struct iovec *vec, int n)
{
    ssize_t sent;

    do {
        if (n == 1) {
            sent = send(sock->fd, vec->iov_base, vec->iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr message = {.msg_iov = (struct iovec *)vec, .msg_iovlen = n < IOV_MAX ? (size_t)n : IOV_MAX};

            sent = sendmsg(sock->fd, &message, MSG_NOSIGNAL);
        }
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    }
    return sent;
}

ptrdiff_t iok_sock_recv(const struct iok_sock *sock, uint8_t *at, size_t n)
{
    ssize_t got;

    do {
        got = recv(sock->fd, at, n, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    return got;
}

int iok_sock_error(const struct iok_sock *sock)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(sock->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        return -errno;
    }
    return -error;
}

void iok_sock_shut(const struct iok_sock *sock)
{
    (void)shutdown(sock->fd, SHUT_WR); /* fails only where the connection is gone, which reading will tell */
}

void iok_sock_close(struct iok_sock *sock)
{
    sock->owner = NULL;
    uv_close((uv_handle_t *)&sock->poll, on_closed); /* stops it, so the descriptor may close now */
    if (!sock->keep_fd) {
        close(sock->fd);
    }
}

const char *iok_sock_reason(int error, char at[IOK_REASON_MAX])
{
    if (error == -EAGAIN) {
        /* unix(7): only a connect to a local socket whose queue is full ends so. */
        snprintf(at, IOK_REASON_MAX, "queue of the listening socket is full");
        return at;
    }
    return uv_strerror_r(error, at, IOK_REASON_MAX);
}
