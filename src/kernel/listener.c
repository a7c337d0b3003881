/* listener.c - what the program serves by URL: its options, accepting connections, and which call gets a request.
 *
 *     guest --whole request--> dispatch --> a call that waits at the station of the least busy port
 *                                      '--> the queue, in order, for queue_timeout= --> refused (503)
 *
 * The busiest is whoever has most requests in hand, so a port whose program computes gets no more than its calls allow while
 * others are free. Of several as busy, the turn goes round.
 *
 * Invariant: no call waits while a request is in the queue. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/mem.h"
#include "serve.h"

#define IOK_CONNECTIONS_MAX 1000000u   /* more descriptors than a process has */
#define IOK_RETRY_NS (100 * IOK_NS_MS) /* until accepting is tried again, for want of descriptors */
#define IOK_DAY_NS (86400 * IOK_NS_S)

static const uint8_t allowed[] = {
    /* from: a bit for each state that may follow */
    [IOK_LISTENER_BOUND] = 1 << IOK_LISTENER_OPEN | 1 << IOK_LISTENER_CLOSED,
    [IOK_LISTENER_OPEN] = 1 << IOK_LISTENER_DRAINING | 1 << IOK_LISTENER_CLOSED | 1 << IOK_LISTENER_LEFT,
    [IOK_LISTENER_DRAINING] = 1 << IOK_LISTENER_CLOSED | 1 << IOK_LISTENER_LEFT,
    [IOK_LISTENER_CLOSED] = 0,
    [IOK_LISTENER_LEFT] = 0,
};

static void set_state(struct iok_listener *listener, enum iok_listener_state state)
{
    if ((allowed[iok_listener_state(listener)] & 1u << state) == 0) {
        assert(false);
        return;
    }
    iok_count_set(&listener->state, state);
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

static const char *const option_names[] = {"backlog",
                                           "reuse_port",
                                           "mode",
                                           "fd",
                                           "max_connections",
                                           "max_requests",
                                           "max_request",
                                           "whole",
                                           "max_stream_bytes",
                                           "max_unread",
                                           "max_unread_total",
                                           "header_timeout",
                                           "body_timeout",
                                           "body_rate",
                                           "write_timeout",
                                           "handshake_timeout",
                                           "idle",
                                           "queue",
                                           "queue_timeout",
                                           "tls_cert",
                                           "tls_key",
                                           "tls_key_password",
                                           "tls_ca",
                                           "ws_ping",
                                           "ws_max_message",
                                           "ws_deflate",
                                           "health",
                                           "health_pickup",
                                           "shed",
                                           "proxy",
                                           "proxy_from",
                                           NULL};

static int check_keys(const struct iok_url *url, struct iok_error *err)
{
    for (uint32_t i = 0; i < url->n_options; i++) {
        struct iok_span key = url->options[i].key;
        const char *nearest = iok_nearest(key, option_names);
        size_t known = 0;

        while (option_names[known] != NULL && !iok_span_eq(key, iok_span_of(option_names[known]))) {
            known++;
        }
        if (option_names[known] == NULL) {
            return nearest != NULL
                       ? iok_err(err, IOK_EOPTION, "unknown option '%.*s' of a listener: did you mean '%s'?",
                                 (int)key.n, (const char *)key.p, nearest)
                       : iok_err(err, IOK_EOPTION, "unknown option '%.*s' of a listener (docs/urls.md lists them)",
                                 (int)key.n, (const char *)key.p);
        }
    }
    return 0;
}

static int read_times(struct iok_listener_config *config, const struct iok_url *url, struct iok_error *err)
{
    const struct {
        const char *name;
        uint64_t min;
        uint64_t *at;
    } times[] = {
        {"header_timeout", IOK_NS_MS, &config->header_timeout},
        {"body_timeout", IOK_NS_MS, &config->body_timeout},
        {"write_timeout", IOK_NS_MS, &config->write_timeout},
        {"handshake_timeout", IOK_NS_MS, &config->handshake_timeout},
        {"queue_timeout", IOK_NS_MS, &config->queue_timeout},
        {"idle", IOK_NS_MS, &config->idle},
        {"health_pickup", IOK_NS_MS, &config->health_pickup},
        {"shed", 0, &config->shed},
        {"ws_ping", 0, &config->ws_ping},
    };
    int rc = 0;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]) && rc == 0; i++) {
        rc = iok_url_option_duration(url, times[i].name, times[i].min, IOK_DAY_NS, times[i].at, err);
    }
    return rc;
}

static int read_sizes(struct iok_listener_config *config, const struct iok_url *url, struct iok_error *err)
{
    const struct {
        const char *name;
        uint64_t min, max;
        uint64_t *at;
    } sizes[] = {
        {"max_request", 1024, UINT64_C(1) << 50, &config->max_request},
        {"whole", 1024, UINT64_C(1) << 30, &config->whole},
        {"body_rate", 0, UINT64_C(1) << 30, &config->body_rate},
        {"max_stream_bytes", 65536, UINT64_C(64) << 30, &config->max_stream_bytes},
        {"max_unread", 0, UINT64_C(1) << 30, &config->max_unread},
        {"max_unread_total", 0, UINT64_C(64) << 30, &config->max_unread_total},
        {"ws_max_message", 1024, UINT64_C(1) << 30, &config->ws_max_message},
    };
    int rc = 0;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && rc == 0; i++) {
        rc = iok_url_option_bytes(url, sizes[i].name, sizes[i].min, sizes[i].max, sizes[i].at, err);
    }
    return rc;
}

static int read_proxies(struct iok_listener_config *config, const struct iok_url *url, struct iok_error *err)
{
    struct iok_span list = iok_span_of("127.0.0.0/8,::1");
    bool given = iok_url_option(url, "proxy_from", &list);
    int rc = iok_url_option_bool(url, "proxy", &config->proxy, err);

    if (rc != 0) {
        return rc;
    }
    if (given && !config->proxy) {
        return iok_err(err, IOK_EOPTION, "proxy_from= needs proxy=yes");
    }
    return iok_proxy_read_nets(config, list, err);
}

static int read_config(struct iok_listener *listener, struct iok_error *err)
{
    struct iok_listener_config *config = &listener->config;
    const struct iok_url *url = &listener->url;
    int rc;

    *config = (struct iok_listener_config){
        .max_connections = 100000,
        .max_request = UINT64_C(1) << 30,
        .whole = 65536, /* as large as a read */
        .max_stream_bytes = 262144,
        .max_unread_total = UINT64_C(64) << 20,
        .queue = 1024,
        .header_timeout = 10 * IOK_NS_S,
        .body_timeout = 30 * IOK_NS_S,
        .body_rate = 240, /* ten times slower than any modem, and ten times faster than who only wants to stay */
        .write_timeout = 30 * IOK_NS_S,
        .handshake_timeout = 10 * IOK_NS_S,
        .queue_timeout = 30 * IOK_NS_S,
        .health_pickup = 5 * IOK_NS_S,
        .ws_ping = 20 * IOK_NS_S,
        .ws_max_message = UINT64_C(16) << 20,
        .ws_deflate = true,
        .idle = 75 * IOK_NS_S, /* as nginx; load balancers count on a minute */
        .tls = config->tls,
    };
    if ((rc = check_keys(url, err)) != 0 ||
        (rc = iok_url_option_u64(url, "max_connections", 1, IOK_CONNECTIONS_MAX, &config->max_connections, err)) != 0 ||
        (rc = iok_url_option_u64(url, "max_requests", 0, UINT32_MAX, &config->max_requests, err)) != 0 ||
        (rc = iok_url_option_u64(url, "queue", 0, IOK_CONNECTIONS_MAX, &config->queue, err)) != 0 ||
        (rc = iok_url_option_bool(url, "ws_deflate", &config->ws_deflate, err)) != 0 ||
        (rc = read_sizes(config, url, err)) != 0) {
        return rc;
    }
    return (rc = read_proxies(config, url, err)) != 0 ? rc : read_times(config, url, err);
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

static int read_url(struct iok_listener *listener, struct iok_error *err)
{
    struct iok_url *url = &listener->url;

    listener->proto = iok_proto_find(url->scheme, &listener->config.tls);
    if (listener->proto == NULL || listener->proto->server == NULL) {
        return iok_err(err, IOK_EURL, "cannot serve '%.*s': http and https can be", (int)url->scheme.n,
                       (const char *)url->scheme.p);
    }
    if (url->has_user || (!url->unix_socket && url->path.n > 0) || url->n_hosts > 1) {
        return iok_err(err, IOK_EURL,
                       "an address to listen on is one host and port, as http://127.0.0.1:8000, or "
                       "http+unix:/path");
    }
    if (iok_url_option(url, "health", &listener->health) && (listener->health.n == 0 || listener->health.p[0] != '/')) {
        return iok_err(err, IOK_EOPTION, "bad health=: expected a path such as /healthz");
    }
    return read_config(listener, err);
}

struct iok_listener *iok_listener_make(const char *url, struct iok_error *err)
{
    struct iok_listener *listener = iok_calloc_line(sizeof(*listener));

    if (listener == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a listener");
        return NULL;
    }
    listener->fd = -1;
    if (iok_url_parse_listen(&listener->url, url, err) != 0 || read_url(listener, err) != 0) {
        iok_url_deinit(&listener->url);
        iok_free(listener);
        return NULL;
    }
    iok_count_set(&listener->refs, 1);
    iok_list_init(&listener->guests);
    iok_list_init(&listener->stations);
    iok_list_init(&listener->queue);
    iok_list_init(&listener->idle);
    listener->timer.kind = IOK_TIMER_LISTENER;
    return listener;
}

static void close_fd(struct iok_listener *listener)
{
    struct iok_span path = listener->url.path;
    bool ours = listener->url.unix_socket && path.p[0] != '@' && listener->binder == (int)getpid();

    int fd = listener->fd;

    if (fd >= 0) {
        listener->fd = -1; /* first: a child that is forked just now may find the number in use for something else */
        listener->unbind(fd, ours ? (const char *)path.p : NULL);
    }
}

void iok_listener_drop(struct iok_listener *listener)
{
    struct iok_node *node;

    if (!iok_count_unref(&listener->refs)) {
        return;
    }
    close_fd(listener);
    if (listener->tls != NULL) {
        iok_listener_secure(listener); /* what nobody has taken is freed, too */
        listener->tls_free(listener->tls);
    }
    while ((node = iok_list_pop(&listener->stations)) != NULL) {
        iok_free(iok_container(node, struct iok_station, node));
    }
    iok_routes_free(listener);
    while (listener->n_required > 0) {
        iok_service_drop(listener->required[--listener->n_required]);
    }
    iok_url_deinit(&listener->url);
    iok_free(listener);
}

/* ---- accepting -------------------------------------------------------------------------------------------------- */

static void want_accept(struct iok_listener *listener, bool on)
{
    if (listener->door != NULL && listener->accepting != on) {
        listener->accepting = on;
        listener->core->net->ops->want_accept(listener->door, on);
    }
}

/* When the idlest connection may be closed for one that waits in the system; UINT64_MAX: none is idle. */
static uint64_t room_at(const struct iok_listener *listener)
{
    const struct iok_node *node = iok_list_first(&listener->idle);

    return node == NULL ? UINT64_MAX : iok_container(node, struct iok_guest, wait)->since + IOK_FAREWELL_NS;
}

static void make_room(struct iok_listener *listener)
{
    struct iok_error why;

    if (room_at(listener) <= listener->core->now) {
        iok_err(&why, 0, "an idle connection made room for another");
        iok_guest_close(iok_container(iok_list_first(&listener->idle), struct iok_guest, wait), &why);
    }
}

void iok_listener_note_idle(struct iok_listener *listener, struct iok_guest *guest, enum iok_guest_state next)
{
    if (guest->state == IOK_GUEST_IDLE) {
        iok_list_remove(&guest->wait);
    } else if (guest->n_requests > 0) { /* before its first request it is not idle, but late */
        iok_list_push(&listener->idle, &guest->wait);
        guest->since = listener->core->now;
    }
    if (listener->n_guests >= listener->config.max_connections && next != IOK_GUEST_CLOSED) {
        iok_listener_look(listener);
    }
}

static void on_accepted(void *owner, struct iok_link *link, const struct iok_address *address)
{
    struct iok_listener *listener = owner;

    iok_core_look_at_clock(listener->core);
    if (listener->n_guests >= listener->config.max_connections) {
        make_room(listener);
    }
    iok_guest_accept(listener, link, address);
    iok_listener_look(listener);
}

static void on_starved(void *owner, const struct iok_error *err)
{
    struct iok_listener *listener = owner;
    struct iok_core *core = listener->core;

    iok_core_look_at_clock(core);
    listener->accepting = false;
    iok_count_own_add(&listener->starved, 1);
    iok_note_write(&listener->last_failure, err->text);
    iok_timer_set(&core->wheel, &listener->timer, core->now + IOK_RETRY_NS);
}

static const struct iok_door_events door_events = {.accepted = on_accepted, .starved = on_starved};

void iok_listener_start(struct iok_core *core, struct iok_listener *listener)
{
    struct iok_error err;

    if (iok_listener_state(listener) != IOK_LISTENER_BOUND || core->forked != NULL || core->stopping) {
        return;
    }
    set_state(listener, IOK_LISTENER_OPEN);
    listener->core = core;
    iok_count_ref(&listener->refs);
    (void)iok_count_exchange(&core->relisting, 1);
    iok_list_push(&core->listeners, &listener->node);
    iok_count_publish(&core->relisting, 0);
    listener->accepting = true;
    listener->door = core->net->ops->listen(core->net, listener->fd, listener->tls, &door_events, listener, &err);
    if (listener->door == NULL) {
        iok_listener_stop(listener, &err);
    }
}

void iok_listener_secure(struct iok_listener *listener)
{
    struct iok_tls *tls = (struct iok_tls *)(uintptr_t)iok_count_exchange(&listener->tls_next, 0);

    if (tls == NULL) {
        return; /* an earlier message brought it */
    }
    if (listener->door != NULL) {
        listener->core->net->ops->secure(listener->door, tls);
    }
    listener->tls_free(listener->tls); /* which is gone when its last connection is */
    listener->tls = tls;
}

/* ---- which call gets a request ---------------------------------------------------------------------------------- */

struct iok_station *iok_listener_station(struct iok_listener *listener, struct iok_port *port)
{
    struct iok_station *station;

    iok_list_each (&listener->stations, node, after) {
        station = iok_container(node, struct iok_station, node);
        if (station->port == port) {
            return station;
        }
    }
    station = iok_calloc(sizeof(*station));
    if (station != NULL) {
        station->port = port;
        iok_list_init(&station->waiting);
        iok_list_push(&listener->stations, &station->node);
    }
    return station;
}

void iok_listener_forget_port(struct iok_listener *listener, struct iok_port *port)
{
    iok_list_each (&listener->stations, node, after) {
        struct iok_station *station = iok_container(node, struct iok_station, node);

        if (station->port == port) {
            iok_list_remove(node);
            iok_free(station);
        }
    }
}

/* The least busy one that has a call; of several that of the thread that runs this, which nobody needs to wake, else the
 * one whose turn was longest ago. *stalled: there are calls of programs that do not take what they were given. */
static struct iok_station *choose(struct iok_listener *listener, bool *stalled)
{
    const struct iok_port *leader = listener->core->leader;
    uint64_t shed = listener->config.shed;
    struct iok_station *best = NULL;

    iok_list_each (&listener->stations, node, after) {
        struct iok_station *station = iok_container(node, struct iok_station, node);

        if (iok_list_empty(&station->waiting)) {
            continue;
        }
        if (shed != 0 && iok_pickup_delay(listener->core, station->port) > shed) {
            *stalled = true;
        } else if (best == NULL || station->n_lent < best->n_lent ||
                   (station->port == leader && station->n_lent == best->n_lent)) {
            best = station;
        }
    }
    return best;
}

static void give(struct iok_listener *listener, struct iok_station *station, struct iok_guest *guest)
{
    struct iok_node *node = iok_list_first(&station->waiting);

    if (listener->stations.head.prev != &station->node) { /* its turn is over */
        iok_list_remove(&station->node);
        iok_list_push(&listener->stations, &station->node);
    }
    iok_serve_give(guest, iok_container(node, struct iok_call, node));
}

void iok_listener_dispatch_again(struct iok_listener *listener, struct iok_guest *guest)
{
    bool stalled = false;
    struct iok_station *station = choose(listener, &stalled);

    if (station != NULL) {
        give(listener, station, guest);
    } else if (!stalled && listener->n_queued < listener->config.queue &&
               iok_listener_state(listener) == IOK_LISTENER_OPEN) {
        iok_guest_set_state(guest, IOK_GUEST_QUEUED);
    } else {
        iok_count_own_add(&listener->shed, 1);
        iok_guest_refuse(guest, IOK_EOVERLOAD);
    }
}

void iok_listener_dispatch(struct iok_listener *listener, struct iok_guest *guest)
{
    iok_count_own_add(&listener->requests, 1);
    if ((listener->health.n != 0 || listener->routes != NULL) && iok_route_answers(listener, guest)) {
        iok_count_own_add(&listener->native, 1);
        return;
    }
    iok_listener_dispatch_again(listener, guest);
}

void iok_listener_serve(struct iok_listener *listener, struct iok_call *call)
{
    struct iok_node *node = iok_list_first(&listener->queue);

    if (node != NULL) {
        give(listener, call->serve->station, iok_container(node, struct iok_guest, wait));
    }
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void end_waiting(struct iok_listener *listener, const struct iok_error *why)
{
    struct iok_node *node;

    iok_list_each (&listener->stations, at, after) {
        struct iok_station *station = iok_container(at, struct iok_station, node);

        while ((node = iok_list_first(&station->waiting)) != NULL) {
            iok_serve_end(listener->core, iok_container(node, struct iok_call, node), why);
        }
    }
}

static void stop_accepting(struct iok_listener *listener)
{
    if (listener->door != NULL) {
        listener->core->net->ops->stop(listener->door);
        listener->door = NULL;
    }
    close_fd(listener);
}

/* No guest is left. */
static void finish(struct iok_listener *listener, const struct iok_error *why)
{
    iok_timer_stop(&listener->core->wheel, &listener->timer);
    end_waiting(listener, why);
    (void)iok_count_exchange(&listener->core->relisting, 1);
    iok_list_remove(&listener->node);
    iok_count_publish(&listener->core->relisting, 0);
    iok_listener_drop(listener); /* the core's reference */
}

void iok_listener_stop(struct iok_listener *listener, const struct iok_error *why)
{
    struct iok_node *node;

    if (iok_listener_state(listener) == IOK_LISTENER_CLOSED) {
        return;
    }
    if (iok_listener_state(listener) == IOK_LISTENER_BOUND) {
        set_state(listener, IOK_LISTENER_CLOSED);
        close_fd(listener);
        return;
    }
    stop_accepting(listener);
    set_state(listener, IOK_LISTENER_CLOSED); /* now: a call that is released ends */
    while ((node = iok_list_first(&listener->guests)) != NULL) {
        iok_guest_close(iok_container(node, struct iok_guest, node), why);
    }
    finish(listener, why);
}

static void end_now(struct iok_listener *listener)
{
    struct iok_error err;

    iok_err(&err, IOK_ECLOSED, "%s was closed", listener->name);
    iok_listener_stop(listener, &err);
}

void iok_listener_drain(struct iok_core *core, struct iok_listener *listener)
{
    uint64_t grace = iok_count_get(&listener->grace_ms) * IOK_NS_MS;
    enum iok_listener_state state = iok_listener_state(listener);

    if (state != IOK_LISTENER_OPEN && state != IOK_LISTENER_DRAINING) {
        if (state == IOK_LISTENER_BOUND) {
            end_now(listener);
        }
        return;
    }
    if (state == IOK_LISTENER_OPEN) {
        stop_accepting(listener);
        set_state(listener, IOK_LISTENER_DRAINING);
        iok_count_ref(&listener->refs); /* it may end meanwhile */
        iok_list_each (&listener->guests, node, after) {
            iok_guest_drain(iok_container(node, struct iok_guest, node));
        }
        iok_listener_look(listener);
        state = iok_listener_state(listener);
        iok_listener_drop(listener);
    }
    if (state == IOK_LISTENER_DRAINING && grace > 0) {
        iok_timer_set(&core->wheel, &listener->timer, core->now + grace);
    } else if (state == IOK_LISTENER_DRAINING) {
        end_now(listener);
    }
}

void iok_listener_timer(struct iok_listener *listener)
{
    if (iok_listener_state(listener) == IOK_LISTENER_DRAINING) {
        end_now(listener);
    } else {
        iok_listener_look(listener);
    }
}

void iok_listener_look(struct iok_listener *listener)
{
    if (iok_listener_state(listener) == IOK_LISTENER_OPEN) {
        uint64_t at = listener->n_guests < listener->config.max_connections ? 0 : room_at(listener);

        want_accept(listener, at <= listener->core->now); /* those for which there is no room wait in the system */
        if (at > listener->core->now && at != UINT64_MAX && !iok_timer_is_set(&listener->timer)) {
            iok_timer_set(&listener->core->wheel, &listener->timer, at);
        }
    } else if (iok_listener_state(listener) == IOK_LISTENER_DRAINING && listener->n_guests == 0) {
        end_now(listener);
    }
}

/* ---- in the child of a fork -------------------------------------------------------------------------------------- */

void iok_listener_leave(struct iok_listener *listener)
{
    close_fd(listener);
}

void iok_listener_forget_links(struct iok_listener *listener)
{
    listener->door = NULL;
    iok_list_each (&listener->guests, node, after) {
        iok_container(node, struct iok_guest, node)->link = NULL;
    }
}

void iok_listener_forked(struct iok_listener *listener, const struct iok_error *why)
{
    struct iok_node *node;

    set_state(listener, IOK_LISTENER_LEFT);
    while ((node = iok_list_first(&listener->guests)) != NULL) {
        iok_guest_close(iok_container(node, struct iok_guest, node), why);
    }
    finish(listener, why);
}
