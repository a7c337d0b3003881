/* dns.c - look-ups of names: A and AAAA through c-ares, the hosts file first, as the system is set up.
 *
 * Every query has a c-ares channel of its own. That costs some ten microseconds for reading resolv.conf, once per name
 * and lifetime of its records, and buys three things: a changed resolv.conf counts at once, a query can be cancelled
 * by itself (c-ares cancels whole channels only), and nothing of one query can delay another.
 *
 * c-ares' callback only keeps the result: it may run inside iok_query_new (hosts file), and always runs inside the
 * channel, which cannot be destroyed there. */
#include "dns.h"

#include <ares.h>
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_S 1000000000u
#define TTL_MIN_S 1    /* "do not cache" would make us ask for every connection */
#define TTL_MAX_S 3600 /* a record moved by mistake is found out within an hour */
#define TTL_FILE_S 60  /* the hosts file has none */

/* A socket of the channel. c-ares opens and closes it. */
struct dns_poll {
    uv_poll_t poll;
    struct iok_node node;
    struct iok_query *query;
    ares_socket_t fd;
    int events;
};

struct iok_query {
    struct iok_node node; /* in the driver's queries */
    struct iok_work work;
    struct iok_uv *net;
    uv_timer_t timer; /* c-ares' next retry */
    ares_channel channel;
    struct iok_list polls;
    iok_resolved_fn *done;
    void *owner;
    char *host;
    uint16_t port;
    bool asked;  /* a server; else the answer is from the hosts file */
    bool closed; /* nothing may be called any more */
    struct iok_error err;
    struct iok_address addresses[IOK_ADDRESSES_MAX];
    uint32_t n;
    uint64_t ttl_ns;
};

/* ---- sockets: as c-ares' own, but a query over TCP must not raise SIGPIPE, and we want to know whether it asked --- */

static ares_socket_t dns_socket(int family, int type, int protocol, void *arg)
{
    (void)arg;
    return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
}

static int dns_close(ares_socket_t fd, void *arg)
{
    (void)arg;
    return close(fd);
}

static int dns_connect(ares_socket_t fd, const struct sockaddr *address, ares_socklen_t len, void *arg)
{
    (void)arg;
    return connect(fd, address, len);
}

static ares_ssize_t dns_recvfrom(ares_socket_t fd, void *at, size_t n, int flags, struct sockaddr *from,
                                 ares_socklen_t *len, void *arg)
{
    (void)arg;
    return recvfrom(fd, at, n, flags, from, len);
}

static ares_ssize_t dns_sendv(ares_socket_t fd, const struct iovec *vec, int n, void *arg)
{
    struct msghdr message = {.msg_iov = (struct iovec *)vec, .msg_iovlen = (size_t)n};
    struct iok_query *query = arg;

    query->asked = true;
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static const struct ares_socket_functions dns_sockets = {
    .asocket = dns_socket,
    .aclose = dns_close,
    .aconnect = dns_connect,
    .arecvfrom = dns_recvfrom,
    .asendv = dns_sendv,
};

/* ---- driving the channel ----------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

/* After anything that c-ares did: when does it want to be called again? */
static void set_timer(struct iok_query *query)
{
    struct timeval at;

    if (query->closed || ares_timeout(query->channel, NULL, &at) == NULL) {
        uv_timer_stop(&query->timer);
        return;
    }
    uv_update_time(&query->net->loop);
    uv_timer_start(&query->timer, on_timer, (uint64_t)at.tv_sec * 1000 + (uint64_t)(at.tv_usec + 999) / 1000, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct iok_query *query = timer->data;

    ares_process_fd(query->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_timer(query);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct dns_poll *p = poll->data;
    struct iok_query *query = p->query;

    if (status < 0) {
        events = p->events; /* an error shows when c-ares reads or writes */
    }
    ares_process_fd(query->channel, (events & UV_READABLE) != 0 ? p->fd : ARES_SOCKET_BAD,
                    (events & UV_WRITABLE) != 0 ? p->fd : ARES_SOCKET_BAD);
    if (status < 0 && !uv_is_closing((uv_handle_t *)poll)) {
        uv_poll_start(poll, p->events, on_poll); /* libuv had stopped it */
        query->net->unflushed = true;
    }
    set_timer(query);
}

static void on_poll_closed(uv_handle_t *handle)
{
    iok_free(handle->data);
}

static struct dns_poll *find_poll(struct iok_query *query, ares_socket_t fd)
{
    iok_list_each (&query->polls, node, after) {
        struct dns_poll *p = iok_container(node, struct dns_poll, node);

        if (p->fd == fd) {
            return p;
        }
    }
    return NULL;
}

/* NULL when that is not possible; the query then waits for its timer, and fails. */
static struct dns_poll *add_poll(struct iok_query *query, ares_socket_t fd)
{
    struct dns_poll *p = iok_calloc(sizeof(*p));

    if (p == NULL || uv_poll_init(&query->net->loop, &p->poll, fd) != 0) {
        iok_free(p);
        return NULL;
    }
    p->poll.data = p;
    p->query = query;
    p->fd = fd;
    iok_list_push(&query->polls, &p->node);
    return p;
}

/* c-ares: what to watch fd for; neither: it is about to close it. */
static void on_sock_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct iok_query *query = arg;
    struct dns_poll *p = find_poll(query, fd);

    if (readable == 0 && writable == 0) {
        if (p != NULL) {
            iok_list_remove(&p->node);
            uv_close((uv_handle_t *)&p->poll, on_poll_closed);
        }
        return;
    }
    if (p == NULL) {
        p = add_poll(query, fd);
    }
    if (p != NULL) {
        p->events = (readable != 0 ? UV_READABLE : 0) | (writable != 0 ? UV_WRITABLE : 0);
        uv_poll_start(&p->poll, p->events, on_poll);
        query->net->unflushed = true;
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static void take_address(struct iok_query *query, const struct sockaddr *from, socklen_t len)
{
    struct iok_address *address = &query->addresses[query->n];

    if (query->n == IOK_ADDRESSES_MAX || (from->sa_family != AF_INET && from->sa_family != AF_INET6)) {
        return;
    }
    memset(address, 0, sizeof(*address));
    memcpy(&address->any, from, len);
    address->len = len;
    if (from->sa_family == AF_INET) {
        address->v4.sin_port = htons(query->port);
    } else {
        address->v6.sin6_port = htons(query->port);
    }
    query->n++;
}

/* Addresses are as good as the shortest-lived record on the way to them. */
static void take_result(struct iok_query *query, const struct ares_addrinfo *info)
{
    int ttl_s = query->asked ? TTL_MAX_S : TTL_FILE_S;

    for (const struct ares_addrinfo_node *node = info->nodes; node != NULL; node = node->ai_next) {
        take_address(query, node->ai_addr, (socklen_t)node->ai_addrlen);
        if (query->asked && node->ai_ttl < ttl_s) {
            ttl_s = node->ai_ttl;
        }
    }
    for (const struct ares_addrinfo_cname *cname = info->cnames; cname != NULL; cname = cname->next) {
        if (query->asked && cname->ttl < ttl_s) {
            ttl_s = cname->ttl;
        }
    }
    query->ttl_ns = (uint64_t)(ttl_s < TTL_MIN_S ? TTL_MIN_S : ttl_s) * NS_PER_S;
}

static void fail(struct iok_query *query, int status)
{
    iok_err(&query->err, IOK_ERESOLVE, "%s: name does not resolve (%s)", query->host, ares_strerror(status));
}

static void on_result(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct iok_query *query = arg;

    (void)timeouts;
    if (!query->closed) {
        if (info != NULL) {
            take_result(query, info);
        }
        if (status != ARES_SUCCESS || query->n == 0) {
            fail(query, status != ARES_SUCCESS ? status : ARES_ENODATA);
        }
        iok_work_add(query->net, &query->work);
    }
    if (info != NULL) {
        ares_freeaddrinfo(info);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct iok_query *query = handle->data;

    query->net->objects--;
    iok_free(query->host);
    iok_free(query);
}

static void query_close(struct iok_query *query)
{
    query->closed = true;
    iok_list_remove(&query->work.node);
    iok_list_remove(&query->node);
    if (query->channel != NULL) {
        ares_destroy(query->channel);
        query->channel = NULL;
    }
    assert(iok_list_empty(&query->polls));
    uv_close((uv_handle_t *)&query->timer, on_closed);
}

static void on_work(struct iok_work *work)
{
    struct iok_query *query = iok_container(work, struct iok_query, work);

    query_close(query); /* its memory stays until libuv has closed the timer, in a later phase */
    query->done(query->owner, query->addresses, query->err.code == 0 ? query->n : 0, query->ttl_ns, &query->err);
}

/* ---- what the core asks for -------------------------------------------------------------------------------------- */

static int library_status;

static void init_library(void)
{
    library_status = ares_library_init(ARES_LIB_INIT_ALL);
}

/* 0, or IOK_ERESOLVE with *err. */
static int open_channel(struct iok_query *query, struct iok_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* the library's own counter is not safe across kernels */
    struct ares_options options = {.sock_state_cb = on_sock_state, .sock_state_cb_data = query};
    const char *servers = query->net->dns_servers;
    int status;

    pthread_once(&once, init_library);
    status = library_status;
    if (status == ARES_SUCCESS) {
        status = ares_init_options(&query->channel, &options, ARES_OPT_SOCK_STATE_CB);
    }
    if (status != ARES_SUCCESS) {
        query->channel = NULL;
        return iok_err(err, IOK_ERESOLVE, "%s: cannot look up names (%s)", query->host, ares_strerror(status));
    }
    ares_set_socket_functions(query->channel, &dns_sockets, query);
    if (servers != NULL && ares_set_servers_ports_csv(query->channel, servers) != ARES_SUCCESS) {
        return iok_err(err, IOK_ERESOLVE, "%s: cannot look up names (%s must be address:port, several with commas)",
                       query->host, IOK_DNS_ENVIRONMENT);
    }
    return 0;
}

struct iok_query *iok_query_new(struct iok_net *base, const char *host, uint16_t port, iok_resolved_fn *done,
                                void *owner, struct iok_error *err)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct iok_uv *net = (struct iok_uv *)base;
    struct iok_query *query = iok_calloc(sizeof(*query));

    if (query == NULL || (query->host = iok_strndup(host, strlen(host))) == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a look-up");
        iok_free(query);
        return NULL;
    }
    query->net = net;
    query->work.run = on_work;
    query->done = done;
    query->owner = owner;
    query->port = port;
    iok_list_init(&query->polls);
    uv_timer_init(&net->loop, &query->timer);
    query->timer.data = query;
    iok_list_push(&net->queries, &query->node);
    net->objects++;
    if (open_channel(query, err) < 0) {
        query_close(query);
        return NULL;
    }
    ares_getaddrinfo(query->channel, host, NULL, &hints, on_result, query);
    set_timer(query);
    return query;
}

void iok_query_cancel(struct iok_query *query)
{
    assert(!query->closed);
    query_close(query);
}

void iok_queries_cancel(struct iok_uv *net)
{
    struct iok_node *node;

    while (node = iok_list_first(&net->queries), node != NULL) {
        iok_query_cancel(iok_container(node, struct iok_query, node));
    }
}
