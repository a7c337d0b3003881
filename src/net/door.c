/* door.c - a listening socket: bound on the program's thread, then watched by the loop, which accepts what comes.
 *
 *     bind (a descriptor) -> open -> accepted, accepted ... -> close; the descriptor stays its owner's
 *
 * Invariants: what is accepted is non-blocking, closed by exec, and has the options that the listening socket was given
 * (tcp(7): on Linux they are inherited), so that a connection costs one system call and its watch. A turn accepts a
 * bounded number, as others want their turn, too. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uv_private.h"

/* In one turn: a burst of connections may not hold up those that are there. */
#define ACCEPTS_MAX 64

struct iok_door {
    struct iok_node node; /* in the driver's doors */
    struct iok_uv *net;
    struct iok_sock *sock;
    struct iok_tls *tls;
    struct iok_door_events events;
    void *owner;
};

/* ---- binding ----------------------------------------------------------------------------------------------------- */

static int fail(struct iok_error *err, const struct iok_address *address, const char *what, int error)
{
    char text[IOK_ADDRESS_TEXT_MAX], reason[IOK_REASON_MAX];

    return iok_err(err, IOK_ECONNECT, "cannot listen on %s: %s: %s", iok_address_text(address, text), what,
                   iok_sock_reason(-error, reason));
}

/* Whether nobody listens on the path, and it is a socket: its process is gone. */
static bool is_stale(const struct iok_address *address)
{
    struct stat file;
    int fd, rc, error;

    if (address->local.sun_path[0] == '\0' || lstat(address->local.sun_path, &file) < 0 || !S_ISSOCK(file.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    rc = fd < 0 ? 0 : connect(fd, &address->any, address->len);
    error = errno;
    if (fd >= 0) {
        close(fd);
    }
    return rc < 0 && error == ECONNREFUSED;
}

static int bind_unix(int fd, const struct iok_bind *what)
{
    const struct iok_address *address = what->address;
    int rc = bind(fd, &address->any, address->len);

    if (rc < 0 && errno == EADDRINUSE) {
        if (!is_stale(address) || unlink(address->local.sun_path) < 0) {
            errno = EADDRINUSE;
            return -1;
        }
        rc = bind(fd, &address->any, address->len);
    }
    if (rc == 0 && what->mode >= 0 && address->local.sun_path[0] != '\0') { /* before anybody can connect */
        rc = chmod(address->local.sun_path, (mode_t)what->mode);
    }
    return rc;
}

static int bind_tcp(int fd, const struct iok_bind *what)
{
    int on = 1;

    iok_sock_set_options(fd);
    /* Else a server that is started again could not bind while old connections are in TIME_WAIT. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (what->reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0)) {
        return -1;
    }
    return bind(fd, &what->address->any, what->address->len);
}

/* A descriptor from a parent: of a stream socket, which may listen already. */
static int take_inherited(const struct iok_bind *what, struct iok_address *bound, struct iok_error *err)
{
    int fd = what->inherited, type = 0, flags;
    socklen_t len = sizeof(type);

    bound->len = sizeof(bound->local);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM ||
        getsockname(fd, &bound->any, &bound->len) < 0) {
        return iok_err(err, IOK_ECONNECT, "fd=%d is no stream socket that could listen", fd);
    }
    if (bound->any.sa_family != AF_UNIX) {
        iok_sock_set_options(fd);
    }
    flags = fcntl(fd, F_GETFD);
    if (listen(fd, what->backlog) < 0 || flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0) {
        return iok_err(err, IOK_ECONNECT, "fd=%d cannot listen: it is not bound, or connected", fd);
    }
    return fd;
}

int iok_door_bind(const struct iok_bind *what, struct iok_address *bound, struct iok_error *err)
{
    bool local;
    int fd, rc;

    if (what->inherited >= 0) {
        return take_inherited(what, bound, err);
    }
    local = what->address->any.sa_family == AF_UNIX;
    fd = socket(what->address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(err, what->address, "socket", errno);
    }
    rc = local ? bind_unix(fd, what) : bind_tcp(fd, what);
    if (rc == 0) {
        rc = listen(fd, what->backlog);
    }
    *bound = *what->address;
    bound->len = sizeof(bound->local);
    if (rc == 0 && !local) {
        rc = getsockname(fd, &bound->any, &bound->len);
    } else {
        bound->len = what->address->len;
    }
    if (rc < 0) {
        rc = fail(err, what->address, "bind", errno);
        close(fd);
        return rc;
    }
    return fd;
}

void iok_door_unbind(int fd, const char *path)
{
    if (path != NULL) {
        (void)unlink(path);
    }
    close(fd);
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

/* What a descriptor less would mend, or memory. */
static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void starve(struct iok_door *door, int error)
{
    struct iok_error err;
    char reason[IOK_REASON_MAX];

    iok_sock_watch(door->sock, 0);
    iok_err(&err, IOK_ESYSTEM, "no connection can be accepted: %s", iok_sock_reason(-error, reason));
    door->events.starved(door->owner, &err);
}

/* false: no more now. */
static bool accept_one(struct iok_door *door)
{
    struct iok_address address;
    struct iok_link *link;
    int fd;

    address.len = sizeof(address.local);
    fd = accept4(door->sock->fd, &address.any, &address.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (is_shortage(errno)) {
            starve(door, errno);
            return false;
        }
        /* accept(2): errors of the new connection are reported here; the next may be well. */
        return errno == ECONNABORTED || errno == EINTR || errno == EPROTO;
    }
    if (address.len > sizeof(address.local)) {
        address.len = sizeof(address.local);
    }
    link = iok_link_accepted(door->net, fd, &address, door->tls);
    if (link == NULL) {
        close(fd);
        starve(door, ENOMEM);
        return false;
    }
    door->events.accepted(door->owner, link, &address);
    iok_link_begin(link);
    return true;
}

static void on_ready(void *owner, int events, bool failed)
{
    struct iok_door *door = owner;
    struct iok_sock *sock = door->sock;

    (void)events;
    for (int i = 0; i < ACCEPTS_MAX && sock->owner == door && accept_one(door); i++) {
        if (sock->watched == 0) { /* switched off meanwhile */
            return;
        }
    }
    if (failed && sock->owner == door) {
        iok_sock_watch(sock, UV_READABLE);
    }
}

struct iok_door *iok_door_open(struct iok_net *base, int fd, struct iok_tls *tls, const struct iok_door_events *events,
                               void *owner, struct iok_error *err)
{
    struct iok_uv *net = (struct iok_uv *)base;
    struct iok_door *door = iok_calloc(sizeof(*door));
    char reason[IOK_REASON_MAX];
    int rc = door == NULL ? -ENOMEM : iok_sock_open(net, fd, true, on_ready, door, &door->sock);

    if (rc != 0) {
        iok_err(err, rc == -ENOMEM ? IOK_ENOMEM : IOK_ESYSTEM, "cannot listen: %s", iok_sock_reason(rc, reason));
        iok_free(door);
        return NULL;
    }
    door->net = net;
    door->tls = tls;
    door->events = *events;
    door->owner = owner;
    iok_list_push(&net->doors, &door->node);
    net->objects++;
    iok_sock_watch(door->sock, UV_READABLE);
    return door;
}

void iok_door_want(struct iok_door *door, bool on)
{
    iok_sock_watch(door->sock, on ? UV_READABLE : 0);
}

void iok_door_secure(struct iok_door *door, struct iok_tls *tls)
{
    door->tls = tls;
}

void iok_door_close(struct iok_door *door)
{
    iok_sock_close(door->sock); /* on_ready knows by its owner */
    iok_list_remove(&door->node);
    door->net->objects--;
    iok_free(door);
}

void iok_doors_close(struct iok_uv *net)
{
    struct iok_node *node;

    while ((node = iok_list_first(&net->doors)) != NULL) {
        iok_door_close(iok_container(node, struct iok_door, node));
    }
}
