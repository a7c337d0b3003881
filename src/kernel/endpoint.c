/* endpoint.c - the hosts of a service: which of them has connections, and why the others have none.
 *
 *     IDLE --> TRYING --> UP      usable, and what the service wishes for: takes calls
 *                     --> UNFIT   usable, but of another role
 *                     --> DOWN    not usable
 *
 * What it is not: a service's queue and options (service.c), connections (conn.c), where hosts come from (the URL, until
 * resolvers publish sets).
 *
 * Invariants: calls go to UP endpoints only. Each endpoint has its own backoff, and none waits for another's longer than
 * SLOW_NS. The order of the URL is that of preference; while one is UP, further connections go to it. An UNFIT or DOWN
 * endpoint is looked at again, by a new connection, only while the wish is not fulfilled. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "../base/mem.h"
#include "kernel.h"

#define SLOW_NS (250 * IOK_NS_MS) /* as RFC 8305 has it for addresses: an attempt this old does not hold up the next */

/* Between two doubts: what a connection of this moment said about itself is not asked again for each call that fails. */
#define DOUBT_NS IOK_NS_S

static const uint8_t allowed[] = {
    /* from: a bit for each state that may follow */
    [IOK_ENDPOINT_IDLE] = 1 << IOK_ENDPOINT_TRYING | 1 << IOK_ENDPOINT_DOWN,
    [IOK_ENDPOINT_TRYING] =
        1 << IOK_ENDPOINT_UP | 1 << IOK_ENDPOINT_UNFIT | 1 << IOK_ENDPOINT_DOWN | 1 << IOK_ENDPOINT_IDLE,
    [IOK_ENDPOINT_UP] =
        1 << IOK_ENDPOINT_TRYING | 1 << IOK_ENDPOINT_UNFIT | 1 << IOK_ENDPOINT_DOWN | 1 << IOK_ENDPOINT_IDLE,
    [IOK_ENDPOINT_UNFIT] =
        1 << IOK_ENDPOINT_TRYING | 1 << IOK_ENDPOINT_UP | 1 << IOK_ENDPOINT_DOWN | 1 << IOK_ENDPOINT_IDLE,
    [IOK_ENDPOINT_DOWN] =
        1 << IOK_ENDPOINT_TRYING | 1 << IOK_ENDPOINT_UP | 1 << IOK_ENDPOINT_UNFIT | 1 << IOK_ENDPOINT_IDLE,
};

#define each_endpoint(service, e)                                                                                      \
    struct iok_endpoint *e = (service)->endpoints;                                                                     \
    e != (service)->endpoints + (service)->n_endpoints;                                                                \
    e++

static void set_state(struct iok_endpoint *endpoint, enum iok_endpoint_state state)
{
    struct iok_service *service = endpoint->service;

    if (endpoint->state == state) {
        return;
    }
    if ((allowed[endpoint->state] & 1u << state) == 0) {
        assert(false);
        return;
    }
    endpoint->state = state;
    endpoint->slow = false;
    iok_list_each (&service->conns, node, after) {
        iok_conn_look(iok_container(node, struct iok_conn, node));
    }
    service->settled = false;
    iok_service_want_pump(service);
}

/* ---- making them ----------------------------------------------------------------------------------------------- */

/* The URL's host, or the socket that is meant by it. */
static int read_host(struct iok_endpoint *endpoint, const struct iok_url_host *host, struct iok_error *err)
{
    const struct iok_service *service = endpoint->service;
    const struct iok_proto_hosts *hosts = service->proto->hosts;
    uint16_t port = host->port != 0 ? host->port : service->proto->default_port;
    int n;

    if (host->name.n == 0) {
        return iok_err(err, IOK_EURL, "no host: expected %s://host:port", service->proto->name);
    }
    if (port == 0) {
        return iok_err(err, IOK_EURL, "no port, and %s has no usual one: expected %s://host:port", service->proto->name,
                       service->proto->name);
    }
    if (!iok_url_is_directory(host->name)) {
        endpoint->port = port;
        n = snprintf(endpoint->host, sizeof(endpoint->host), "%.*s", (int)host->name.n, (const char *)host->name.p);
        return n < (int)sizeof(endpoint->host) ? 0 : iok_err(err, IOK_EURL, "a host's name is longer than 255 bytes");
    }
    if (hosts == NULL) {
        return iok_err(err, IOK_EURL, "bad host: a directory means nothing to %s", service->proto->name);
    }
    n = snprintf(endpoint->host, sizeof(endpoint->host), "%.*s/%s%u", (int)host->name.n, (const char *)host->name.p,
                 hosts->socket, port);
    return n < (int)sizeof(endpoint->host) ? 0 : iok_err(err, IOK_EURL, "the socket's path is longer than 107 bytes");
}

static int read_address(struct iok_endpoint *endpoint, struct iok_error *err)
{
    if (endpoint->port == 0) {
        if (!iok_address_unix(iok_span_of(endpoint->host), &endpoint->addresses[0])) {
            return iok_err(err, IOK_EURL, "the socket's path is longer than 107 bytes");
        }
        endpoint->n_addresses = 1;
    } else if (iok_address_literal(endpoint->host, endpoint->port, &endpoint->addresses[0])) {
        endpoint->n_addresses = 1;
    }
    endpoint->resolved_until = endpoint->n_addresses != 0 ? UINT64_MAX : 0;
    return 0;
}

int iok_endpoints_make(struct iok_service *service, struct iok_error *err)
{
    const struct iok_url *url = &service->url;
    uint32_t n = url->unix_socket ? 1 : url->n_hosts;
    int rc = 0;

    if (n == 0) {
        return iok_err(err, IOK_EURL, "no host: expected %s://host:port", service->proto->name);
    }
    if (n > 1 && service->proto->hosts == NULL) {
        return iok_err(err, IOK_EURL, "several hosts in one URL are not possible with %s", service->proto->name);
    }
    service->endpoints = iok_calloc(n * sizeof(*service->endpoints));
    if (service->endpoints == NULL) {
        return iok_err(err, IOK_ENOMEM, "out of memory for a service's hosts");
    }
    service->n_endpoints = n;
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        struct iok_endpoint *endpoint = &service->endpoints[i];

        endpoint->service = service;
        endpoint->retry.kind = IOK_TIMER_ENDPOINT;
        if (!url->unix_socket) {
            rc = read_host(endpoint, &url->hosts[i], err);
        } else if (url->path.n >= sizeof(endpoint->host)) {
            rc = iok_err(err, IOK_EURL, "the socket's path is longer than 107 bytes");
        } else {
            memcpy(endpoint->host, url->path.p, url->path.n);
        }
        if (rc == 0) {
            rc = read_address(endpoint, err);
        }
    }
    return rc;
}

void iok_endpoints_free(struct iok_service *service)
{
    for (each_endpoint(service, e)) {
        if (e->tls != NULL) {
            service->tls_free(e->tls);
        }
    }
    iok_free(service->endpoints);
}

void iok_endpoint_stop(struct iok_endpoint *endpoint)
{
    struct iok_core *core = endpoint->service->core;

    if (endpoint->query != NULL) {
        core->net->ops->cancel(endpoint->query);
        endpoint->query = NULL;
    }
    iok_timer_stop(&core->wheel, &endpoint->retry);
    set_state(endpoint, IOK_ENDPOINT_IDLE);
    endpoint->role = 0;
    endpoint->fatal = false;
    endpoint->failure.code = 0;
    iok_backoff_reset(&endpoint->backoff);
}

/* ---- what is known of them ------------------------------------------------------------------------------------- */

bool iok_service_is_up(const struct iok_service *service)
{
    for (each_endpoint(service, e)) {
        if (e->state == IOK_ENDPOINT_UP) {
            return true;
        }
    }
    return false;
}

bool iok_service_is_hopeless(const struct iok_service *service)
{
    for (each_endpoint(service, e)) {
        if (!e->fatal) {
            return false;
        }
    }
    return true;
}

void iok_service_why(const struct iok_service *service, struct iok_error *err)
{
    size_t room = sizeof(err->text) / service->n_endpoints, n = 0;

    *err = service->endpoints[0].failure;
    if (service->n_endpoints == 1) {
        return;
    }
    for (each_endpoint(service, e)) {
        const char *why = e->failure.code != 0 ? e->failure.text : "not tried yet";
        char text[sizeof(err->text) + IOK_HOST_TEXT_MAX + 16];
        int cut = (int)room - 3; /* "; " and the end */

        (void)(e->port == 0 ? snprintf(text, sizeof(text), "%s: %s", e->host, why)
                            : snprintf(text, sizeof(text), "%s:%u: %s", e->host, e->port, why));
        n += (size_t)snprintf(err->text + n, sizeof(err->text) - n, "%s%.*s", n > 0 ? "; " : "", cut, text);
        if (err->code == 0) {
            err->code = e->failure.code;
            err->file = e->failure.file;
            err->line = e->failure.line;
        }
    }
}

static const char *role_text(uint32_t role)
{
    return (role & IOK_ROLE_KNOWN) == 0       ? "of a role that is not known"
           : (role & IOK_ROLE_STANDBY) != 0   ? "a standby"
           : (role & IOK_ROLE_READ_ONLY) != 0 ? "a read-only primary"
                                              : "a primary";
}

static const char *wish_text(enum iok_wish wish)
{
    static const char *const texts[] = {"any", "a primary", "a standby", "a standby", "read-write", "read-only"};

    return texts[wish];
}

static void wait_for_retry(struct iok_endpoint *endpoint)
{
    struct iok_core *core = endpoint->service->core;

    iok_timer_set(&core->wheel, &endpoint->retry,
                  core->now + iok_backoff_next(&endpoint->backoff, core->net->ops->random(core->net)));
}

/* It is usable: is it what is wished for? */
static void judge(struct iok_endpoint *endpoint)
{
    struct iok_service *service = endpoint->service;
    enum iok_wish wish = service->config.wish;

    if (service->second_choice || iok_role_fits(endpoint->role, wish)) {
        if (endpoint->state == IOK_ENDPOINT_TRYING || endpoint->state == IOK_ENDPOINT_UNFIT) {
            iok_timer_stop(&service->core->wheel, &endpoint->retry);
        }
        iok_backoff_reset(&endpoint->backoff);
        endpoint->failure.code = 0;
        endpoint->fatal = false;
        set_state(endpoint, IOK_ENDPOINT_UP);
        return;
    }
    endpoint->fatal = false;
    iok_err(&endpoint->failure, IOK_ECONNECT, "it is %s, and the wish is %s", role_text(endpoint->role),
            wish_text(wish));
    iok_note_write(&service->last_failure, endpoint->failure.text);
    if (endpoint->state != IOK_ENDPOINT_UNFIT) {
        set_state(endpoint, IOK_ENDPOINT_UNFIT);
        wait_for_retry(endpoint);
    }
}

/* PREFER_STANDBY takes anything once every endpoint was tried in vain, until a standby is there. */
static void choose(struct iok_service *service)
{
    bool tried = true, found = false;

    for (each_endpoint(service, e)) {
        tried &= e->state != IOK_ENDPOINT_IDLE && (e->state != IOK_ENDPOINT_TRYING || e->slow);
        found |= e->n_ready > 0 && (e->role & IOK_ROLE_STANDBY) != 0 && e->state != IOK_ENDPOINT_DOWN;
    }
    if (found == service->second_choice && (found || tried)) {
        service->second_choice = !found;
        for (each_endpoint(service, e)) {
            if (e->n_ready > 0 && (e->state == IOK_ENDPOINT_UP || e->state == IOK_ENDPOINT_UNFIT)) {
                judge(e);
            } else if (e->state == IOK_ENDPOINT_UNFIT) { /* its connections are closed: as if it was new */
                iok_timer_stop(&service->core->wheel, &e->retry);
                set_state(e, IOK_ENDPOINT_IDLE);
            }
        }
    }
}

static void changed(struct iok_service *service)
{
    service->settled = false;
    if (service->config.wish == IOK_WISH_PREFER_STANDBY) {
        choose(service);
    }
    iok_service_want_pump(service);
}

void iok_endpoint_ready(struct iok_endpoint *endpoint)
{
    judge(endpoint);
    changed(endpoint->service);
}

static void begin(struct iok_endpoint *endpoint)
{
    struct iok_core *core = endpoint->service->core;

    endpoint->role = 0;
    set_state(endpoint, IOK_ENDPOINT_TRYING);
    if (endpoint->service->n_endpoints > 1) {
        iok_timer_set(&core->wheel, &endpoint->retry, core->now + SLOW_NS);
    }
}

void iok_endpoint_role(struct iok_endpoint *endpoint, uint32_t role)
{
    struct iok_service *service = endpoint->service;

    if (service->closed || service->config.wish == IOK_WISH_ANY || role == endpoint->role) {
        return;
    }
    endpoint->role = role;
    if (endpoint->n_ready > 0) {
        judge(endpoint);
    }
    changed(service);
}

bool iok_endpoint_doubt(struct iok_endpoint *endpoint, bool ask)
{
    uint64_t now = endpoint->service->core->now;

    if (endpoint->service->closed || (endpoint->doubted_at != 0 && now - endpoint->doubted_at < DOUBT_NS)) {
        return false;
    }
    if (ask && endpoint->state == IOK_ENDPOINT_UP) {
        endpoint->doubted_at = now;
        begin(endpoint);
        changed(endpoint->service);
    }
    return true;
}

static bool heals(const struct iok_error *err)
{
    return err->code != IOK_EAUTH && err->code != IOK_ETLS && err->code != IOK_EPROTO && err->code != IOK_EOPTION;
}

void iok_endpoint_lost(struct iok_endpoint *endpoint, const struct iok_error *err, bool ready)
{
    struct iok_service *service = endpoint->service;
    bool trying = endpoint->state == IOK_ENDPOINT_TRYING, usable = endpoint->state == IOK_ENDPOINT_UP;

    if (service->closed || service->core->stopping) {
        return;
    }
    if (err->code == 0) { /* we wanted its end */
        if (endpoint->n_ready == 0 && endpoint->n_opening == 0 && endpoint->query == NULL && (usable || trying)) {
            iok_timer_stop(&service->core->wheel, &endpoint->retry);
            set_state(endpoint, IOK_ENDPOINT_IDLE);
        } else if (endpoint->n_ready == 0 && usable) {
            set_state(endpoint, IOK_ENDPOINT_TRYING);
        }
        changed(service);
        return;
    }
    iok_count_own_add(ready ? &service->disconnects : &service->connect_failures, 1);
    iok_note_write(&service->last_failure, err->text);
    endpoint->failure = *err;
    endpoint->fatal = !ready && !heals(err);
    if (!ready && endpoint->resolved_until != UINT64_MAX) {
        endpoint->resolved_until = 0; /* it may have moved: look the name up again */
    }
    if (trying || endpoint->n_ready == 0) {
        endpoint->role = 0;
        set_state(endpoint, IOK_ENDPOINT_DOWN);
    }
    if (trying || !iok_timer_is_set(&endpoint->retry)) {
        wait_for_retry(endpoint);
    }
    changed(service);
}

/* ---- making connections ---------------------------------------------------------------------------------------- */

static void resolved(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                     const struct iok_error *err)
{
    struct iok_endpoint *endpoint = owner;
    struct iok_core *core = endpoint->service->core;

    endpoint->query = NULL;
    iok_core_look_at_clock(core);
    if (n == 0 || err->code != 0) {
        /* The last good set stays: it is tried, and the name again later. */
        if (endpoint->n_addresses == 0) {
            iok_endpoint_lost(endpoint, err, false);
            return;
        }
        endpoint->resolved_until = core->now + IOK_BACKOFF_CAP_NS;
    } else {
        endpoint->n_addresses = n < IOK_ADDRESSES_MAX ? n : IOK_ADDRESSES_MAX;
        memcpy(endpoint->addresses, addresses, endpoint->n_addresses * sizeof(*addresses));
        endpoint->resolved_until = core->now + ttl_ns;
    }
    endpoint->service->settled = false;
    iok_service_fill(endpoint->service);
}

/* true when there are addresses to try now. */
static bool have_addresses(struct iok_endpoint *endpoint)
{
    struct iok_core *core = endpoint->service->core;
    struct iok_error err;

    if (endpoint->query != NULL) {
        return false;
    }
    if (endpoint->n_addresses != 0 && core->now < endpoint->resolved_until) {
        return true;
    }
    endpoint->query = core->net->ops->resolve(core->net, endpoint->host, endpoint->port, resolved, endpoint, &err);
    if (endpoint->query == NULL) {
        iok_endpoint_lost(endpoint, &err, false);
    }
    return false;
}

/* One more connection to this endpoint; false: not now. */
static bool open_one(struct iok_endpoint *endpoint, bool for_leases)
{
    struct iok_error err;

    if (endpoint->state != IOK_ENDPOINT_UP && endpoint->state != IOK_ENDPOINT_TRYING) {
        begin(endpoint);
    }
    if (!have_addresses(endpoint)) {
        return false;
    }
    if (iok_conn_open(endpoint, for_leases, &err) != 0) {
        iok_endpoint_lost(endpoint, &err, false);
        return false;
    }
    return true;
}

/* Nothing depends on what the first connection finds, so all may be made at once. */
static bool is_plain(const struct iok_service *service)
{
    return (service->n_endpoints == 1 || service->config.shuffle) && service->config.wish == IOK_WISH_ANY;
}

/* May it be given a connection now? */
static bool is_free(const struct iok_endpoint *endpoint)
{
    if (endpoint->state == IOK_ENDPOINT_TRYING) {
        return endpoint->query == NULL && (endpoint->n_opening == 0 || is_plain(endpoint->service));
    }
    return !iok_timer_is_set(&endpoint->retry);
}

/* The first that is up, else the first that may be tried; NULL: none now. */
static struct iok_endpoint *pick_first(struct iok_service *service)
{
    if (iok_service_is_up(service)) {
        for (each_endpoint(service, e)) {
            if (e->state == IOK_ENDPOINT_UP && is_free(e)) {
                return e;
            }
        }
        return NULL;
    }
    for (each_endpoint(service, e)) {
        if (is_free(e)) {
            return e;
        }
        if (e->state == IOK_ENDPOINT_TRYING && !e->slow) {
            return NULL;
        }
    }
    return NULL;
}

/* Any of those that are up or were not tried, else of those that may be tried again. The first that is up does not get
 * what the others would have had a moment later. */
static struct iok_endpoint *pick_any(struct iok_service *service)
{
    struct iok_net *net = service->core->net;
    struct iok_endpoint *good[IOK_URL_HOSTS_MAX], *rest[IOK_URL_HOSTS_MAX];
    uint32_t n_good = 0, n_rest = 0;
    bool trying = false, fresh = false;

    for (each_endpoint(service, e)) {
        if (!is_free(e)) {
            trying |= e->state == IOK_ENDPOINT_TRYING && !e->slow;
        } else if (e->state == IOK_ENDPOINT_DOWN || e->state == IOK_ENDPOINT_UNFIT) {
            rest[n_rest++] = e;
        } else {
            fresh |= e->state != IOK_ENDPOINT_UP;
            good[n_good++] = e;
        }
    }
    if (trying && !fresh) {
        return NULL;
    }
    if (n_good > 0) {
        return good[net->ops->random(net) % n_good];
    }
    return n_rest > 0 && !iok_service_is_up(service) ? rest[net->ops->random(net) % n_rest] : NULL;
}

static struct iok_endpoint *pick(struct iok_service *service)
{
    return service->config.shuffle ? pick_any(service) : pick_first(service);
}

/* Shared connections that serve, or will if all goes well: not those of an endpoint in doubt. */
static uint32_t count_shared(const struct iok_service *service)
{
    uint32_t n = 0;

    for (each_endpoint(service, e)) {
        if (e->state == IOK_ENDPOINT_UP || e->n_ready == 0) {
            n += e->n_shared;
        } else if (e->state != IOK_ENDPOINT_UNFIT) {
            n += e->n_shared < e->n_opening ? e->n_shared : e->n_opening;
        }
    }
    return n;
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
        if (n > 0 && conn->for_leases && !conn->retires && conn->state != IOK_CONN_LEASED) {
            n--;
        }
    }
    return n;
}

/* No call will come to it any more: its endpoint is not what is wished for, or in doubt while another is up; or there is
 * one too many, as a new one was asked about the endpoint's role. */
static bool is_useless(const struct iok_conn *conn, bool up)
{
    const struct iok_endpoint *endpoint = conn->endpoint;

    return endpoint->state == IOK_ENDPOINT_UNFIT || (endpoint->state == IOK_ENDPOINT_TRYING && up) ||
           (conn->serves && endpoint->n_shared > conn->service->config.connections);
}

static void close_useless(struct iok_service *service)
{
    bool up = iok_service_is_up(service);
    struct iok_error err;

    iok_err(&err, 0, "not needed any more");
    iok_list_each (&service->conns, node, after) {
        struct iok_conn *conn = iok_container(node, struct iok_conn, node);

        if (conn->state == IOK_CONN_READY && is_useless(conn, up)) {
            iok_conn_retire(conn);
        }
        if (conn->retires && conn->state == IOK_CONN_READY && conn->n_live == 0) {
            iok_conn_close(conn, &err);
        }
        service->settled &= !conn->retires; /* looked at again after each answer */
    }
}

static bool is_by_need(const struct iok_service *service)
{
    return (service->proto->flags & IOK_PROTO_SINGLE) != 0;
}

/* How many connections for shared calls there should be. */
static uint64_t count_wanted(const struct iok_service *service)
{
    uint64_t max = service->config.connections;
    uint64_t needed = service->n_pending > service->n_raw ? service->n_pending - service->n_raw : 0;

    if (!is_by_need(service)) {
        return max;
    }
    if (needed == 0 && iok_count_get(&service->connects) == 0) {
        return 1; /* the first is made before it is needed */
    }
    return needed < max ? needed : max;
}

void iok_service_fill(struct iok_service *service)
{
    struct iok_endpoint *endpoint;
    uint64_t wanted = count_wanted(service);
    uint32_t shared, leases;

    if (service->closed || service->core->stopping ||
        (service->settled && iok_list_empty(&service->lease_wait) &&
         (!is_by_need(service) || iok_list_empty(&service->queue)))) {
        return;
    }
    service->settled = true;
    close_useless(service);
    shared = count_shared(service);
    leases = iok_list_empty(&service->lease_wait) ? 0 : count_waiting_leases(service);
    while (shared < wanted || (leases > 0 && service->n_leased < service->config.leases)) {
        bool for_leases = shared >= wanted;

        endpoint = pick(service);
        if (endpoint == NULL || !open_one(endpoint, for_leases)) {
            break;
        }
        shared += !for_leases;
        leases -= for_leases;
    }
    for (each_endpoint(service, e)) { /* is there a better one by now? */
        if (service->second_choice && e->state != IOK_ENDPOINT_UP && e->state != IOK_ENDPOINT_TRYING && is_free(e)) {
            (void)open_one(e, false);
        }
    }
}

void iok_endpoint_timer(struct iok_endpoint *endpoint)
{
    if (endpoint->state == IOK_ENDPOINT_TRYING) {
        endpoint->slow = true;
    } else if (endpoint->state == IOK_ENDPOINT_UNFIT && iok_service_is_up(endpoint->service)) {
        iok_backoff_reset(&endpoint->backoff); /* when it is needed, it will be looked at again at once, and often */
    }
    changed(endpoint->service);
    iok_service_fill(endpoint->service);
}
