/* api_service.c - the program's side of the public API: services and leases. */
#include <assert.h>
#include <sched.h>

#include "base/mem.h"
#include "run.h"

/* Takes the service over; NULL with *err, and it is gone. */
static struct iok_service *begin(struct iok_port *port, struct iok_service *service, struct iok_error *err)
{
    if (service == NULL) {
        return NULL;
    }
    service->owner = port->owner;
    if (iok_service_load_tls(service, err) != 0) {
        iok_service_drop(service);
        return NULL;
    }
    iok_count_ref(&service->refs); /* the message's */
    if (!iok_ring_push(&port->link.sq, iok_entry(service, IOK_SQ_OPEN))) {
        iok_service_drop(service); /* then its first call opens it */
    }
    iok_kick(port);
    return service;
}

struct iok_service *iok_service_new(struct iok_port *port, const char *url, struct iok_error *err)
{
    struct iok_error local;

    err = err == NULL ? &local : err;
    return iok_port_check(port, err) != 0 ? NULL : begin(port, iok_service_make(url, err), err);
}

struct iok_service *iok_service_replica(struct iok_port *port, const struct iok_service *service, struct iok_error *err)
{
    struct iok_error local;

    err = err == NULL ? &local : err;
    return iok_port_check(port, err) != 0 ? NULL : begin(port, iok_service_make_replica(service, err), err);
}

void iok_service_close(struct iok_service *service, struct iok_port *port)
{
    if (iok_port_check_owner(port, NULL) != 0) {
        return;
    }
    iok_count_ref(&service->refs); /* the message's */
    while (!iok_ring_push(&port->link.sq, iok_entry(service, IOK_SQ_CLOSE))) {
        if (iok_port_check(port, NULL) != 0 || iok_port_is_detached(&port->link)) { /* the kernel has closed all */
            iok_service_drop(service);
            return;
        }
        iok_kick(port);
        (void)sched_yield();
    }
    iok_kick(port);
}

void iok_service_unref(struct iok_service *service)
{
    iok_service_drop(service);
}

void iok_service_ref(struct iok_service *service)
{
    iok_count_ref(&service->refs);
}

const char *iok_service_name(const struct iok_service *service)
{
    return service->name;
}

const char *iok_service_protocol(const struct iok_service *service)
{
    return service->proto->name;
}

uint64_t iok_service_timeout_ms(const struct iok_service *service)
{
    return service->config.timeout / IOK_NS_MS;
}

uint64_t iok_service_max_reply(const struct iok_service *service)
{
    return service->config.max_reply;
}

void iok_service_stats(struct iok_service *service, struct iok_service_stats *out)
{
    *out = (struct iok_service_stats){
        .calls = iok_count_get(&service->calls),
        .retries = iok_count_get(&service->retries),
        .cancelled = iok_count_get(&service->cancelled),
        .connects = iok_count_get(&service->connects),
        .connect_failures = iok_count_get(&service->connect_failures),
        .disconnects = iok_count_get(&service->disconnects),
        .pings = iok_count_get(&service->pings),
        .bytes_in = iok_count_get(&service->bytes_in),
        .bytes_out = iok_count_get(&service->bytes_out),
        .connections = (uint32_t)iok_count_get(&service->ready_conns),
        .leased = (uint32_t)iok_count_get(&service->leased_conns),
        .queued = (uint32_t)iok_count_get(&service->queued_now),
        .inflight = (uint32_t)iok_count_get(&service->inflight_now),
        .overloaded = iok_count_get(&service->overloaded),
        .dropped = iok_count_get(&service->dropped),
    };
    for (unsigned i = 0; i < 5; i++) {
        out->ended[i] = iok_count_get(&service->ended[i]);
    }
    iok_hist_read(&service->hist_submit, &out->submit);
    iok_hist_read(&service->hist_queue, &out->queue);
    iok_hist_read(&service->hist_service, &out->service);
    iok_hist_shared_read(&service->hist_pickup, &out->pickup);
    iok_hist_shared_read(&service->hist_total, &out->total);
    iok_note_read(&service->last_failure, out->last_failure);
}

/* ---- leases ---- */

struct iok_lease *iok_lease_new(struct iok_port *port, struct iok_service *service, struct iok_error *err)
{
    struct iok_lease *lease;
    uint32_t leases_max;

    if (iok_port_check(port, err) != 0) {
        return NULL;
    }
    leases_max = port->calls_max < 2 ? 1 : port->calls_max / 2;
    if (port->n_leases >= leases_max) {
        iok_err(err, IOK_EOVERLOAD, "%u leases are alive on this port (half of port_calls_max=%u)", port->n_leases,
                port->calls_max);
        return NULL;
    }
    lease = iok_malloc(sizeof(*lease));
    if (lease == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a lease");
        return NULL;
    }
    iok_lease_init(lease, port, service);
    iok_count_ref(&service->refs);
    iok_list_push(&port->leases, &lease->app_node);
    port->n_leases++;
    return lease;
}

void iok_lease_free(struct iok_lease *lease)
{
    bool pushed;

    if (lease->released || lease->port->lost) {
        return;
    }
    lease->released = true;
    if (lease->port->n_parked != 0) {
        iok_parked_release(lease);
    }
    pushed = iok_ring_push(&lease->port->link.sq, iok_entry(lease, IOK_SQ_RELEASE));
    assert(pushed); /* see port.h */
    (void)pushed;
    iok_kick(lease->port);
}
