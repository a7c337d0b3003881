/* service.c - what the program asked for by URL: its options, its name's addresses, its connections and its queue. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "../base/mem.h"
#include "kernel.h"

#define IOK_CONNECTIONS_MAX 1024u /* per service: more is a mistake, as calls are pipelined */
#define IOK_CALLS_MAX 1000000u    /* in flight or queued per service: each may hold a kilobyte and more */

#define IOK_BYTES_MIN (UINT64_C(64) << 10) /* of the bounds in bytes: what a small call or message always fits into */
#define IOK_BYTES_MAX (UINT64_C(64) << 30) /* more is no bound */

static const char *const option_names[] = {
    "connections",   "leases",           "max_inflight", "max_queued", "max_pending_bytes", "overload", "max_reply",
    "slow_consumer", "max_stream_bytes", "retries",      "timeout",    "connect_timeout",   "ping",     "ping_timeout",
    "lease_idle",    "tls_verify",       "tls_ca",       "tls_cert",   "tls_key",           "tls_name", NULL};

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
        .tls = config->tls,
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
    return 0;
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
    if (url->port == 0) {
        url->port = service->proto->default_port;
    }
    if (!url->unix_socket && url->host.n == 0) {
        return iok_err(err, IOK_EURL, "no host: expected %.*s://host:port", (int)url->scheme.n, url->scheme.p);
    }
    if (!url->unix_socket && url->port == 0) {
        return iok_err(err, IOK_EURL, "no port, and %s has no usual one: expected %s://host:port", service->proto->name,
                       service->proto->name);
    }
    if (url->unix_socket) {
        if (!iok_address_unix(url->path, &service->addresses[0])) {
            return iok_err(err, IOK_EURL, "the socket's path is longer than 107 bytes");
        }
        service->n_addresses = 1;
    } else if (iok_address_literal((const char *)url->host.p, url->port, &service->addresses[0])) {
        service->n_addresses = 1;
    }
    service->resolved_until = service->n_addresses != 0 ? UINT64_MAX : 0;
    return service->proto->check == NULL ? 0 : service->proto->check(url, err);
}

struct iok_service *iok_service_make(const char *url, struct iok_error *err)
{
    struct iok_service *service = iok_calloc_line(sizeof(*service));

    if (service == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a service");
        return NULL;
    }
    if (iok_url_parse(&service->url, url, err) != 0) {
        iok_free(service);
        return NULL;
    }
    if (read_url(service, err) != 0 || read_config(service, err) != 0) {
        iok_url_deinit(&service->url);
        iok_free(service);
        return NULL;
    }
    iok_url_safe_text(&service->url, service->name, sizeof(service->name));
    iok_count_set(&service->refs, 1);
    iok_list_init(&service->queue);
    iok_list_init(&service->lease_wait);
    iok_list_init(&service->conns);
    iok_budget_init(&service->retry_budget);
    return service;
}

void iok_service_drop(struct iok_service *service)
{
    if (iok_count_unref(&service->refs)) {
        if (service->tls != NULL) {
            service->tls_free(service->tls);
        }
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
    struct iok_core *core = service->core;
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
    if (service->query != NULL) {
        core->net->ops->cancel(service->query);
        service->query = NULL;
    }
    iok_timer_stop(&core->wheel, &service->retry);
}

void iok_service_forget_links(struct iok_service *service)
{
    service->query = NULL;
    iok_list_each (&service->conns, node, after) {
        iok_container(node, struct iok_conn, node)->link = NULL;
    }
}

void iok_service_forked(struct iok_service *service, const struct iok_error *why)
{
    iok_service_stop(service, why);
    assert(service->n_pending == 0 && service->n_inflight == 0 && service->n_shared == 0 && service->n_leased == 0);
    iok_count_set(&service->queued_now, 0);
    iok_count_set(&service->inflight_now, 0);
    iok_service_healthy(service);
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
    call->flags |= IOK_CALL_ADMITTED;
    return 0;
}

void iok_service_dismiss(struct iok_service *service, struct iok_call *call)
{
    if ((call->flags & IOK_CALL_ADMITTED) == 0) {
        return;
    }
    call->flags &= ~(uint32_t)IOK_CALL_ADMITTED;
    service->n_pending--;
    service->pending_bytes -= call->args.held_bytes;
    iok_service_want_pump(service); /* figures */
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

        if (conn->state == IOK_CONN_READY && !conn->for_leases && iok_conn_has_room(conn) &&
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

        if (conn->state == IOK_CONN_READY && conn->for_leases && !conn->pinged) {
            return conn;
        }
    }
    return NULL;
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
    if (service->fatal && iok_count_get(&service->ready_conns) == 0) {
        fail_queue(service, &service->queue, &service->failure);
    }
    if (service->fatal) {
        fail_lease_wait(service, &service->failure);
    }
    iok_count_set(&service->queued_now, service->n_pending - service->n_inflight);
    iok_count_set(&service->inflight_now, service->n_inflight);
    iok_service_fill(service);
}

static void resolved(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                     const struct iok_error *err)
{
    struct iok_service *service = owner;

    service->query = NULL;
    iok_core_look_at_clock(service->core);
    if (n == 0 || err->code != 0) {
        /* The last good set stays: it is tried, and the name again later. */
        if (service->n_addresses == 0) {
            iok_service_failed(service, err, false);
            return;
        }
        service->resolved_until = service->core->now + IOK_BACKOFF_CAP_NS;
    } else {
        service->n_addresses = n < IOK_ADDRESSES_MAX ? n : IOK_ADDRESSES_MAX;
        memcpy(service->addresses, addresses, service->n_addresses * sizeof(*addresses));
        service->resolved_until = service->core->now + ttl_ns;
    }
    iok_service_fill(service);
}

/* true when there are addresses to try now. */
static bool have_addresses(struct iok_service *service)
{
    struct iok_core *core = service->core;
    struct iok_error err;

    if (service->query != NULL) {
        return false;
    }
    if (service->n_addresses != 0 && core->now < service->resolved_until) {
        return true;
    }
    service->query = core->net->ops->resolve(core->net, (const char *)service->url.host.p, service->url.port, resolved,
                                             service, &err);
    if (service->query == NULL) {
        iok_service_failed(service, &err, false);
    }
    return false;
}

static uint32_t count_waiting_leases(const struct iok_service *service)
{
    uint32_t n = 0;

    iok_list_each (&service->lease_wait, node, after) {
        n++;
    }
    iok_list_each (&service->conns, node, after) {
        const struct iok_conn *conn = iok_container(node, struct iok_conn, node);

        /* One that is being made, or made clean, will serve a waiting lease. */
        if (n > 0 && conn->for_leases && conn->state != IOK_CONN_LEASED) {
            n--;
        }
    }
    return n;
}

void iok_service_fill(struct iok_service *service)
{
    struct iok_error err;
    uint32_t leases;

    if (service->closed || service->core->stopping || iok_timer_is_set(&service->retry)) {
        return;
    }
    leases = iok_list_empty(&service->lease_wait) ? 0 : count_waiting_leases(service);
    while (service->n_shared < service->config.connections ||
           (leases > 0 && service->n_leased < service->config.leases)) {
        bool for_leases = service->n_shared >= service->config.connections;

        if (!have_addresses(service)) {
            return;
        }
        if (iok_conn_open(service, for_leases, &err) != 0) {
            iok_service_failed(service, &err, false);
            return;
        }
        leases -= for_leases;
    }
}

void iok_service_retry_due(struct iok_service *service)
{
    iok_service_fill(service);
}

void iok_service_failed(struct iok_service *service, const struct iok_error *err, bool ready)
{
    struct iok_core *core = service->core;

    if (service->closed || core->stopping) {
        return;
    }
    iok_count_own_add(ready ? &service->disconnects : &service->connect_failures, 1);
    service->failure = *err;
    service->fatal = !ready && (err->code == IOK_EAUTH || err->code == IOK_ETLS || err->code == IOK_EPROTO ||
                                err->code == IOK_EOPTION);
    iok_note_write(&service->last_failure, err->text);
    if (!ready && service->resolved_until != UINT64_MAX) {
        service->resolved_until = 0; /* it may have moved: look the name up again */
    }
    if (!iok_timer_is_set(&service->retry)) {
        service->retry.kind = IOK_TIMER_ENDPOINT;
        iok_timer_set(&core->wheel, &service->retry,
                      core->now + iok_backoff_next(&service->backoff, core->net->ops->random(core->net)));
    }
    iok_service_want_pump(service);
}

void iok_service_healthy(struct iok_service *service)
{
    iok_backoff_reset(&service->backoff);
    service->failure.code = 0;
    service->fatal = false;
}
