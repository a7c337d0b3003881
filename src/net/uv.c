/* uv.c - the real driver: its loop and turns, deferred work, time, randomness, and the end.
 *
 * One turn:   work queued before it -> libuv: timers, one epoll_wait, sockets -> the dead are freed
 *
 * A turn blocks only when no work is queued and nobody is dead. Nothing wakes an idle driver: the only timers are the caller's deadline,
 * the race of a connection attempt and the retries of a look-up. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "dns.h"
#include "tls.h"
#include "uv_private.h"

#define NS_PER_MS 1000000u

/* ---- time, randomness, work -------------------------------------------------------------------------------------- */

static uint64_t net_now(struct iok_net *base)
{
    (void)base;
    return uv_hrtime(); /* CLOCK_MONOTONIC, which began before this process */
}

static int64_t net_wall(struct iok_net *base)
{
    struct timespec now;

    (void)base;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

/* SplitMix64 (Steele, Lea, Flood 2014): for jitter, not for secrets. */
static uint64_t net_random(struct iok_net *base)
{
    struct iok_uv *net = (struct iok_uv *)base;
    uint64_t z = net->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void iok_work_add(struct iok_uv *net, struct iok_work *work)
{
    if (!iok_node_linked(&work->node)) {
        iok_list_push(&net->work, &work->node);
    }
    if (net->running) {
        uv_stop(&net->loop); /* timers run before the poll, which must not block now */
    }
}

/* Runs what was queued before; what is queued meanwhile waits for the next turn, so that sockets get theirs. */
static void run_work(struct iok_uv *net)
{
    struct iok_list batch;
    struct iok_node *node;

    iok_list_init(&batch);
    while (node = iok_list_pop(&net->work), node != NULL) {
        iok_list_push(&batch, node);
    }
    while (node = iok_list_pop(&batch), node != NULL) {
        struct iok_work *work = iok_container(node, struct iok_work, node);

        work->run(work);
    }
}

/* Is there something to do, whatever the sockets say? Closing handles are libuv's to know. */
static bool has_work(const struct iok_uv *net)
{
    return !iok_list_empty(&net->work) || !iok_list_empty(&net->dead);
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *timer)
{
    struct iok_uv *net = timer->data;

    net->deadline_ms = 0;
    /* libuv runs timers, then polls: with no timer left it would sleep past the deadline that just came. */
    uv_stop(&net->loop);
}

/* libuv's time is in whole milliseconds since the epoch of net_now. Rounded up, and set again only when that number
 * changes, which is at most a thousand times a second. */
static void set_deadline(struct iok_uv *net, uint64_t deadline_ns)
{
    uint64_t now = uv_now(&net->loop);
    uint64_t ms = deadline_ns == UINT64_MAX ? 0 : deadline_ns / NS_PER_MS + (deadline_ns % NS_PER_MS != 0);

    if (ms == net->deadline_ms) {
        return;
    }
    net->deadline_ms = ms;
    if (ms == 0) {
        uv_timer_stop(&net->deadline);
    } else {
        uv_timer_start(&net->deadline, on_deadline, ms > now ? ms - now : 0, 0);
    }
}

void iok_uv_turn(struct iok_net *base, uint64_t deadline_ns)
{
    struct iok_uv *net = (struct iok_uv *)base;
    bool wait = deadline_ns != 0 && !has_work(net);

    run_work(net);
    if (wait) {
        set_deadline(net, deadline_ns);
    }
    net->unflushed = false;
    net->running = true;
    uv_run(&net->loop, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    net->running = false;
    iok_links_reap(net);
}

/* A descriptor for somebody else's poll. libuv's own does not show everything: changed watchers reach epoll only in
 * the next turn, and timers and queued work never do. So an outer epoll holds libuv's and a timer for the rest, which
 * is set here: ask anew before each poll. */
int iok_uv_backend_fd(struct iok_net *base)
{
    struct iok_uv *net = (struct iok_uv *)base;
    struct itimerspec spec = {0};
    bool now = has_work(net) || net->unflushed;
    int timeout_ms = 0;

    if (!now) {
        uv_update_time(&net->loop);
        timeout_ms = uv_backend_timeout(&net->loop);
    }
    if (timeout_ms > 0) {
        spec.it_value.tv_sec = timeout_ms / 1000;
        spec.it_value.tv_nsec = (long)(timeout_ms % 1000) * (long)NS_PER_MS;
    } else if (timeout_ms == 0) {
        spec.it_value.tv_nsec = 1; /* at once; 0 would switch it off */
    }
    if (timeout_ms >= 0 || net->outer_armed) {
        timerfd_settime(net->outer_timer_fd, 0, &spec, NULL);
        net->outer_armed = timeout_ms >= 0;
    }
    return net->outer_fd;
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

static const struct iok_net_ops uv_ops = {
    .now = net_now,
    .random = net_random,
    .open = iok_link_open,
    .send = iok_link_send,
    .want_read = iok_link_want_read,
    .binding = iok_link_binding,
    .close = iok_link_close,
    .bind = iok_door_bind,
    .unbind = iok_door_unbind,
    .listen = iok_door_open,
    .want_accept = iok_door_want,
    .secure = iok_door_secure,
    .stop = iok_door_close,
    .adopt = iok_link_adopt,
    .shut = iok_link_shut,
    .wall = net_wall,
    .resolve = iok_query_new,
    .cancel = iok_query_cancel,
    .tls_new = iok_tls_new,
    .tls_serve = iok_tls_serve,
    .tls_free = iok_tls_free,
};

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct iok_uv *net = poll->data;

    (void)events;
    assert(status == 0); /* neither an eventfd nor the reading end of a pipe has errors */
    (void)status;
    net->woken(net->woken_arg);
}

static int make_outer(struct iok_uv *net)
{
    struct epoll_event event = {.events = EPOLLIN};

    net->outer_fd = epoll_create1(EPOLL_CLOEXEC);
    net->outer_timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (net->outer_fd < 0 || net->outer_timer_fd < 0 ||
        epoll_ctl(net->outer_fd, EPOLL_CTL_ADD, net->outer_timer_fd, &event) < 0 ||
        epoll_ctl(net->outer_fd, EPOLL_CTL_ADD, uv_backend_fd(&net->loop), &event) < 0) {
        return -errno;
    }
    return 0;
}

static void close_outer(struct iok_uv *net)
{
    if (net->outer_fd >= 0) {
        close(net->outer_fd);
    }
    if (net->outer_timer_fd >= 0) {
        close(net->outer_timer_fd);
    }
}

/* 0 or -errno. On failure, what was made is for iok_uv_free. */
static int start(struct iok_uv *net, int wake_fd, uint64_t seed)
{
    const char *servers = getenv(IOK_DNS_ENVIRONMENT);
    int rc;

    net->random = seed;
    if (seed == 0 && getrandom(&net->random, sizeof(net->random), 0) != (ssize_t)sizeof(net->random)) {
        return -errno;
    }
    if (servers != NULL && servers[0] != '\0') {
        net->dns_servers = iok_strndup(servers, strlen(servers));
        if (net->dns_servers == NULL) {
            return -ENOMEM;
        }
    }
    rc = make_outer(net);
    if (rc == 0) {
        rc = uv_poll_init(&net->loop, &net->wake, wake_fd);
    }
    if (rc != 0) {
        return rc;
    }
    net->wake.data = net;
    net->unflushed = true;
    return uv_poll_start(&net->wake, UV_READABLE, on_wake);
}

struct iok_net *iok_uv_new(int wake_fd, void (*woken)(void *arg), void *arg, uint64_t seed, struct iok_error *err)
{
    struct iok_uv *net = iok_calloc(sizeof(*net));
    char reason[IOK_REASON_MAX];
    int rc;

    if (net == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for the loop");
        return NULL;
    }
    rc = uv_loop_init(&net->loop);
    if (rc != 0) {
        iok_err(err, IOK_ESYSTEM, "cannot make an event loop: %s", iok_sock_reason(rc, reason));
        iok_free(net);
        return NULL;
    }
    net->base.ops = &uv_ops;
    net->woken = woken;
    net->woken_arg = arg;
    net->outer_fd = net->outer_timer_fd = -1;
    iok_list_init(&net->links);
    iok_list_init(&net->queries);
    iok_list_init(&net->doors);
    iok_list_init(&net->dead);
    iok_list_init(&net->work);
    uv_timer_init(&net->loop, &net->deadline);
    net->deadline.data = net;
    rc = start(net, wake_fd, seed);
    if (rc != 0) {
        iok_err(err, IOK_ESYSTEM, "cannot set up the event loop: %s", iok_sock_reason(rc, reason));
        iok_uv_free(&net->base);
        return NULL;
    }
    return &net->base;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* Afterwards nothing is open but libuv's handles, which close in the next turn of its loop. */
static void close_all(struct iok_uv *net)
{
    iok_doors_close(net);
    iok_links_close(net);
    iok_queries_cancel(net);
    uv_close((uv_handle_t *)&net->deadline, NULL);
    if (net->wake.data != NULL) {
        uv_close((uv_handle_t *)&net->wake, NULL);
    }
    close_outer(net);
    iok_free(net->dns_servers);
}

static void close_loop(struct iok_uv *net)
{
    int rc;

    while (uv_run(&net->loop, UV_RUN_NOWAIT) != 0) {
    }
    rc = uv_loop_close(&net->loop);
    assert(rc == 0); /* a handle is still open */
    (void)rc;
}

static void free_closed(struct iok_uv *net)
{
    iok_links_reap(net);
    assert(net->objects == 0);
    iok_free(net);
}

void iok_uv_free(struct iok_net *base)
{
    struct iok_uv *net = (struct iok_uv *)base;

    close_all(net);
    close_loop(net);
    free_closed(net);
}

uint32_t iok_uv_objects(const struct iok_net *base)
{
    return ((const struct iok_uv *)base)->objects;
}

/* The child shares its parent's epoll set: closing a handle here would take the parent's socket out of it. uv_loop_fork
 * first closes our descriptor of that set, without touching the set, and makes a new one; then everything can be closed
 * as usual. Links are told by net->forgotten that no close_notify may go out, and keep their TLS memory, as another
 * thread of the parent may have held a lock of OpenSSL; close() of an inherited socket is harmless, as the parent still
 * holds it. */
void iok_uv_forget(struct iok_net *base)
{
    struct iok_uv *net = (struct iok_uv *)base;

    net->forgotten = true;
    net->stuck = uv_loop_fork(&net->loop) != 0;
    close_all(net);
    if (!net->stuck) {
        close_loop(net);
    }
}

void iok_uv_free_forgotten(struct iok_net *base)
{
    struct iok_uv *net = (struct iok_uv *)base;

    if (net->stuck) {
        iok_links_reap(net);
        return; /* no descriptor was left for a new set: the loop cannot run, and its and its handles' memory is lost */
    }
    free_closed(net);
}
