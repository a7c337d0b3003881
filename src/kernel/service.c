/* service.c - what the program asked for by URL: its options and its queue. endpoint.c has its hosts. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "../base/mem.h"
#include "kernel.h"

#define IOK_CONNECTIONS_MAX 1024u /* per service: more is a mistake, as calls are pipelined */
#define IOK_CALLS_MAX 1000000u    /* in flight or queued per service: each may hold a kilobyte and more */

#define IOK_BYTES_MIN (UINT64_C(64) << 10) /* of the bounds in bytes: what a small call or message always fits into */
#define IOK_BYTES_MAX (UINT64_C(64) << 30) /* more is no bound */

static const char *const option_names[] = {"connections",
                                           "leases",
                                           "max_inflight",
                                           "max_queued",
                                           "max_pending_bytes",
                                           "overload",
                                           "max_reply",
                                           "slow_consumer",
                                           "max_stream_bytes",
                                           "retries",
                                           "timeout",
                                           "connect_timeout",
                                           "ping",
                                           "ping_timeout",
                                           "lease_idle",
                                           "tls_verify",
                                           "tls_ca",
                                           "tls_crl",
                                           "tls_key_password",
                                           "tls_cert",
                                           "tls_key",
                                           "tls_name",
                                           NULL};

/* Every key must be known to the kernel or to the codec. */
static int check_keys(const struct iok_url *url, const struct iok_proto *proto, struct iok_error *err)
{
    const char *names[64];
    size_t n = 0;

    for (const char *const *name = option_names; *name != NULL; name++) {
        names[n++] = *name;
    }
    for (const struct iok_proto_option *option = proto->options; option != NULL && option->name != NULL; option++) {
        assert(n < 63);
        names[n++] = option->name;
    }
    names[n] = NULL;
    for (uint32_t i = 0; i < url->n_options; i++) {
        struct iok_span key = url->options[i].key;
        const char *nearest;
        size_t known = 0;

        while (known < n && !iok_span_eq(key, iok_span_of(names[known]))) {
            known++;
        }
        if (known < n) {
            continue;
        }
        nearest = iok_nearest(key, names);
        if (nearest != NULL) {
            return iok_err(err, IOK_EOPTION, "unknown option '%.*s': did you mean '%s'?", (int)key.n, key.p, nearest);
        }
        return iok_err(err, IOK_EOPTION, "unknown option '%.*s' (docs/urls.md lists them)", (int)key.n, key.p);
    }
    return 0;
}

/* *second becomes true for the second of two words, false for the first, and stays without the option. */
static int read_choice(const struct iok_url *url, const char *key, const char *const words[2], bool *second,
                       struct iok_error *err)
{
    struct iok_span value;

    if (!iok_url_option(url, key, &value)) {
        return 0;
    }
    *second = iok_span_eq(value, iok_span_of(words[1]));
    return *second || iok_span_eq(value, iok_span_of(words[0]))
               ? 0
               : iok_err(err, IOK_EOPTION, "bad %s=%.*s: expected %s or %s", key, (int)value.n, (const char *)value.p,
                         words[0], words[1]);
}

/* What is bounded, and what happens at the bounds. */
static int read_bounds(struct iok_service_config *config, const struct iok_url *url, struct iok_error *err)
{
    static const char *const overload[] = {"fail", "wait"}, *const slow_consumer[] = {"pause", "drop"};
    int rc;

    if ((rc = iok_url_option_u64(url, "max_inflight", 1, IOK_CALLS_MAX, &config->max_inflight, err)) != 0 ||
        (rc = iok_url_option_u64(url, "max_queued", 0, IOK_CALLS_MAX, &config->max_queued, err)) != 0 ||
        (rc = iok_url_option_bytes(url, "max_pending_bytes", IOK_BYTES_MIN, IOK_BYTES_MAX, &config->max_pending_bytes,
                                   err)) != 0 ||
        (rc = iok_url_option_bytes(url, "max_reply", 1024, UINT64_C(4) << 30, &config->max_reply, err)) != 0 ||
        (rc = iok_url_option_bytes(url, "max_stream_bytes", IOK_BYTES_MIN, IOK_BYTES_MAX, &config->max_stream_bytes,
                                   err)) != 0 ||
        (rc = read_choice(url, "overload", overload, &config->overload_waits, err)) != 0) {
        return rc;
    }
    return read_choice(url, "slow_consumer", slow_consumer, &config->drops, err);
}

static int read_config(struct iok_service *service, struct iok_error *err)
{
    struct iok_service_config *config = &service->config;
    const struct iok_url *url = &service->url;
    int rc;

    *config = (struct iok_service_config){
        .connections = service->proto->default_connections,
        .leases = 16,
        .max_inflight = 10000,
        .max_queued = 100000,
        .max_pending_bytes = UINT64_C(1) << 30, /* two of the largest values that Redis holds */
        .max_reply = UINT64_C(512) << 20,       /* one of them */
        .max_stream_bytes = UINT64_C(16) << 20, /* 1,024 messages of 16 KiB */
        .retries = 2,
        .timeout = 5 * IOK_NS_S,
        .connect_timeout = 5 * IOK_NS_S,
        .ping = 30 * IOK_NS_S,
        .ping_timeout = 5 * IOK_NS_S,
        .lease_idle = 30 * IOK_NS_S,
        .cancel_timeout = service->proto->cancel != NULL ? 5 * IOK_NS_S : 0,
        .tls = config->tls,
        .wish = config->wish,
        .shuffle = config->shuffle,
    };
    if ((rc = check_keys(url, service->proto, err)) != 0 ||
        (rc = iok_url_option_u64(url, "connections", 1, IOK_CONNECTIONS_MAX, &config->connections, err)) != 0 ||
        (rc = iok_url_option_u64(url, "leases", 0, IOK_CONNECTIONS_MAX, &config->leases, err)) != 0 ||
        (rc = read_bounds(config, url, err)) != 0 ||
        (rc = iok_url_option_u64(url, "retries", 0, 100, &config->retries, err)) != 0 ||
        (rc = iok_url_option_duration(url, "timeout", IOK_NS_MS, 86400 * IOK_NS_S, &config->timeout, err)) != 0 ||
        (rc = iok_url_option_duration(url, "connect_timeout", IOK_NS_MS, 3600 * IOK_NS_S, &config->connect_timeout,
                                      err)) != 0 ||
        (rc = iok_url_option_duration(url, "ping", 0, 86400 * IOK_NS_S, &config->ping, err)) != 0 ||
        (rc = iok_url_option_duration(url, "ping_timeout", IOK_NS_MS, 3600 * IOK_NS_S, &config->ping_timeout, err)) !=
            0 ||
        (rc = iok_url_option_duration(url, "lease_idle", IOK_NS_MS, 86400 * IOK_NS_S, &config->lease_idle, err)) != 0) {
        return rc;
    }
    return service->proto->cancel == NULL
               ? 0
               : iok_url_option_duration(url, "cancel_timeout", 0, 3600 * IOK_NS_S, &config->cancel_timeout, err);
}

static int unknown_scheme(struct iok_span scheme, struct iok_error *err)
{
    char known[128];
    size_t n = 0;

    for (const struct iok_proto *const *proto = iok_protos; *proto != NULL; proto++) {
        for (const char *const *name = (*proto)->schemes; *name != NULL && n < sizeof(known); name++) {
            n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", n == 0 ? "" : ", ", *name);
        }
        for (const char *const *name = (*proto)->tls_schemes; name != NULL && *name != NULL && n < sizeof(known);
             name++) {
            n += (size_t)snprintf(known + n, sizeof(known) - n, ", %s", *name);
        }
    }
    return iok_err(err, IOK_EURL, "unknown scheme '%.*s': known are %s", (int)scheme.n, scheme.p, known);
}

/* Its name has the hosts as they stand before the path, with their ports; then those of the options are added. */
static int name_service(struct iok_service *service, struct iok_error *err)
{
    const struct iok_proto_hosts *hosts = service->proto->hosts;
    struct iok_service_config *config = &service->config;
    struct iok_url *url = &service->url;
    struct iok_span ports;
    bool given = hosts != NULL && iok_url_option(url, hosts->ports_key, &ports);
    int rc = 0;

    for (uint32_t i = 0; i < url->n_hosts && !given; i++) {
        if (url->hosts[i].port == 0) {
            url->hosts[i].port =
                config->tls && service->proto->tls_port != 0 ? service->proto->tls_port : service->proto->default_port;
        }
    }
    iok_url_safe_text(url, service->name, sizeof(service->name));
    if (hosts != NULL) {
        rc = iok_url_add_hosts(url, hosts->hosts_key, hosts->ports_key, err);
    }
    if (rc == 0 && hosts != NULL && hosts->wish != NULL) {
        rc = hosts->wish(url, &config->wish, &config->shuffle, err);
    }
    if (rc == 0) {
        rc = iok_endpoints_make(service, err);
    }
    return rc != 0 || service->proto->check == NULL ? rc : service->proto->check(url, err);
}

/* Finds the codec, and checks the parts of the URL that every protocol shares. */
static int read_url(struct iok_service *service, struct iok_error *err)
{
    struct iok_url *url = &service->url;
    bool tls = false;

    service->proto = iok_proto_find(url->scheme, &tls);
    service->config.tls = tls;
    if (service->proto == NULL) {
        return unknown_scheme(url->scheme, err);
    }
    return name_service(service, err);
}

/* As if the URL had said so. */
static int prefer_standby(struct iok_service *service, struct iok_error *err)
{
    const struct iok_proto *proto = iok_proto_find(service->url.scheme, &(bool){false});
    struct iok_url *url = &service->url;
    uint32_t i = 0;

    if (proto->hosts == NULL) {
        return iok_err(err, IOK_ESTATE, "%s has no standbys here", proto->name);
    }
    while (i < url->n_options && !iok_span_eq(url->options[i].key, iok_span_of(proto->hosts->wish_key))) {
        i++;
    }
    if (i == IOK_URL_OPTIONS_MAX) {
        return iok_err(err, IOK_EURL, "more than %u options", IOK_URL_OPTIONS_MAX);
    }
    url->n_options += i == url->n_options;
    url->options[i].key = iok_span_of(proto->hosts->wish_key);
    url->options[i].value = iok_span_of(proto->hosts->prefer_standby);
    return 0;
}

/* What the URL leaves open is found elsewhere, if its protocol knows where. */
static int complete(struct iok_url *url, struct iok_error *err)
{
    bool tls;
    const struct iok_proto *proto = iok_proto_find(url->scheme, &tls);
    char *whole = NULL;
    int rc;

    if (proto == NULL || proto->complete == NULL) {
        return 0;
    }
    rc = proto->complete(url, &whole, err);
    if (rc == 0) {
        iok_url_deinit(url);
        rc = iok_url_parse(url, whole, err);
        explicit_bzero(whole, strlen(whole));
    }
    iok_free(whole);
    return rc;
}

static struct iok_service *make(const char *url, bool replica, struct iok_error *err)
{
    struct iok_service *service = iok_calloc_line(sizeof(*service));

    if (service == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a service");
        return NULL;
    }
    if (iok_url_parse(&service->url, url, err) != 0 || complete(&service->url, err) != 0) {
        iok_url_deinit(&service->url);
        iok_free(service);
        return NULL;
    }
    if ((replica && prefer_standby(service, err) != 0) || read_url(service, err) != 0 ||
        read_config(service, err) != 0) {
        iok_endpoints_free(service);
        iok_url_deinit(&service->url);
        iok_free(service);
        return NULL;
    }
    iok_count_set(&service->refs, 1);
    iok_list_init(&service->queue);
    iok_list_init(&service->lease_wait);
    iok_list_init(&service->conns);
    iok_budget_init(&service->retry_budget);
    return service;
}

struct iok_service *iok_service_make(const char *url, struct iok_error *err)
{
    return make(url, false, err);
}

struct iok_service *iok_service_make_replica(const struct iok_service *of, struct iok_error *err)
{
    return make((const char *)of->url.text.p, true, err);
}

void iok_service_drop(struct iok_service *service)
{
    if (iok_count_unref(&service->refs)) {
        iok_endpoints_free(service);
        iok_url_deinit(&service->url);
        iok_free(service);
    }
}

/* ---- the core's side ---- */

void iok_service_start(struct iok_core *core, struct iok_service *service)
{
    if (service->started) {
        return;
    }
    service->started = true;
    service->core = core;
    iok_count_ref(&service->refs);
    iok_list_push(&core->services, &service->node);
    iok_service_fill(service);
}

static void fail_queue(struct iok_service *service, struct iok_list *queue, const struct iok_error *why)
{
    struct iok_node *node;

    while ((node = iok_list_first(queue)) != NULL) {
        iok_call_end(service->core, iok_container(node, struct iok_call, node), IOK_NEVER_SENT, why);
    }
}

static void fail_lease_wait(struct iok_service *service, const struct iok_error *why)
{
    struct iok_node *node;

    while ((node = iok_list_pop(&service->lease_wait)) != NULL) {
        iok_lease_lost(iok_container(node, struct iok_lease, node), why);
    }
}

void iok_service_stop(struct iok_service *service, const struct iok_error *why)
{
    struct iok_node *node;

    if (!service->started || service->closed) {
        return;
    }
    service->closed = true;
    if (iok_node_linked(&service->pump_node)) {
        iok_list_remove(&service->pump_node);
    }
    fail_queue(service, &service->queue, why);
    fail_lease_wait(service, why);
    while ((node = iok_list_first(&service->conns)) != NULL) {
        iok_conn_close(iok_container(node, struct iok_conn, node), why);
    }
    for (uint32_t i = 0; i < service->n_endpoints; i++) {
        iok_endpoint_stop(&service->endpoints[i]);
    }
}

void iok_service_forget_links(struct iok_service *service)
{
    for (uint32_t i = 0; i < service->n_endpoints; i++) {
        service->endpoints[i].query = NULL;
    }
    iok_list_each (&service->conns, node, after) {
        struct iok_conn *conn = iok_container(node, struct iok_conn, node);

        conn->link = conn->cancel.link = NULL;
    }
}

void iok_service_forked(struct iok_service *service, const struct iok_error *why)
{
    iok_service_stop(service, why);
    assert(service->n_pending == 0 && service->n_inflight == 0 && service->n_shared == 0 && service->n_leased == 0);
    iok_count_set(&service->queued_now, 0);
    iok_count_set(&service->inflight_now, 0);
    service->second_choice = service->settled = false;
    service->started = service->closed = false;
}

/* A call for a shared connection; front: it was taken off a lost connection, and keeps its turn. */
void iok_service_enqueue(struct iok_service *service, struct iok_call *call, bool front)
{
    if (front) {
        iok_list_push_front(&service->queue, &call->node);
    } else {
        iok_list_push(&service->queue, &call->node);
    }
}

/* overload=wait: the calls wait here, whatever their number: it is bounded by the ports that they came from. */
int iok_service_admit(struct iok_service *service, struct iok_call *call, struct iok_error *err)
{
    const struct iok_service_config *config = &service->config;
    uint64_t bytes = call->args.held_bytes;
    int rc = 0;

    if (bytes > config->max_pending_bytes) {
        return iok_err(err, IOK_ELIMIT, "arguments of %llu bytes are more than max_pending_bytes=%llu",
                       (unsigned long long)bytes, (unsigned long long)config->max_pending_bytes);
    }
    /* Calls pass through the queue, so it may hold what could be in flight just now, and max_queued beyond. */
    if (!config->overload_waits && service->n_pending >= config->max_queued + config->max_inflight) {
        rc = iok_err(err, IOK_EOVERLOAD,
                     "%u calls wait behind %u in flight (max_queued=%u, max_inflight=%u, "
                     "overload=fail)",
                     service->n_pending - service->n_inflight, service->n_inflight, (unsigned)config->max_queued,
                     (unsigned)config->max_inflight);
    } else if (!config->overload_waits && service->pending_bytes + bytes > config->max_pending_bytes) {
        rc = iok_err(err, IOK_EOVERLOAD,
                     "arguments of %llu bytes wait or are in flight, and %llu more are too many "
                     "(max_pending_bytes=%llu, overload=fail)",
                     (unsigned long long)service->pending_bytes, (unsigned long long)bytes,
                     (unsigned long long)config->max_pending_bytes);
    }
    if (rc != 0) {
        iok_count_add(&service->overloaded, 1);
        return rc;
    }
    service->n_pending++;
    service->pending_bytes += bytes;
    call->admitted = true;
    return 0;
}

void iok_service_dismiss(struct iok_service *service, struct iok_call *call)
{
    if (!call->admitted) {
        return;
    }
    call->admitted = false;
    service->n_pending--;
    service->pending_bytes -= call->args.held_bytes;
    iok_service_want_pump(service); /* figures */
}

void iok_service_credit(struct iok_service *service)
{
    iok_list_each (&service->conns, node, after) {
        struct iok_conn *conn = iok_container(node, struct iok_conn, node);
        bool stands = conn->stream != NULL && (conn->read_paused || conn->notice != NULL);

        if (stands && iok_count_get(&conn->stream->stream->stalled) == 0) {
            iok_flight_tell_dropped(conn);
            iok_conn_resume(conn);
        }
    }
}

void iok_service_want_pump(struct iok_service *service)
{
    if (!service->closed && !iok_node_linked(&service->pump_node)) {
        iok_list_push(&service->core->pumps, &service->pump_node);
    }
}

/* The ready shared connection with the fewest flights, or NULL. */
static struct iok_conn *least_busy(struct iok_service *service)
{
    struct iok_conn *best = NULL;

    iok_list_each (&service->conns, node, after) {
        struct iok_conn *conn = iok_container(node, struct iok_conn, node);

        if (conn->state == IOK_CONN_READY && conn->serves && iok_conn_has_room(conn) &&
            (best == NULL || conn->n_live < best->n_live)) {
            best = conn;
        }
    }
    return best;
}

static struct iok_conn *idle_lease_conn(struct iok_service *service)
{
    iok_list_each (&service->conns, node, after) {
        struct iok_conn *conn = iok_container(node, struct iok_conn, node);

        if (conn->state == IOK_CONN_READY && conn->for_leases && !conn->pinged && !conn->retires &&
            conn->endpoint->state == IOK_ENDPOINT_UP) {
            return conn;
        }
    }
    return NULL;
}

/* A refused sign-in, TLS, or a wrong protocol does not heal by waiting. */
static void fail_fast(struct iok_service *service)
{
    struct iok_error why;

    iok_service_why(service, &why);
    if (iok_service_is_hopeless(service)) {
        if (!iok_service_is_up(service)) {
            fail_queue(service, &service->queue, &why);
        }
        fail_lease_wait(service, &why);
    }
}

void iok_service_pump(struct iok_service *service)
{
    struct iok_conn *conn;

    while (!iok_list_empty(&service->queue) && service->n_inflight < service->config.max_inflight &&
           (conn = least_busy(service)) != NULL) {
        struct iok_call *call = iok_container(iok_list_pop(&service->queue), struct iok_call, node);

        iok_conn_send(conn, call);
    }
    while (!iok_list_empty(&service->lease_wait) && (conn = idle_lease_conn(service)) != NULL) {
        iok_lease_bind(iok_container(iok_list_pop(&service->lease_wait), struct iok_lease, node), conn);
    }
    if (service->endpoints[0].fatal) {
        fail_fast(service);
    }
    iok_count_set(&service->queued_now, service->n_pending - service->n_inflight);
    iok_count_set(&service->inflight_now, service->n_inflight);
    iok_service_fill(service);
}
