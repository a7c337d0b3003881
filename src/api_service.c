/* api_service.c - the program's side of the public API: services. */
#include <sched.h>

#include "run.h"

static const char *option_text(const struct iok_url *url, const char *key)
{
    struct iok_span value;

    return iok_url_option(url, key, &value) ? (const char *)value.p : NULL;
}

static int load_tls(struct iok_service *service, struct iok_error *err)
{
    const struct iok_url *url = &service->url;
    struct iok_tls_config *config = &service->tls_config;
    const char *name = option_text(url, "tls_name");
    struct iok_net *net;
    int rc;

    *config = (struct iok_tls_config){.server_name = name != NULL ? name : (const char *)url->host.p,
                                      .verify = true,
                                      .ca_file = option_text(url, "tls_ca"),
                                      .cert_file = option_text(url, "tls_cert"),
                                      .key_file = option_text(url, "tls_key")};
    rc = iok_url_option_bool(url, "tls_verify", &config->verify, err);
    if (rc != 0) {
        return rc;
    }
    if (!service->config.tls) {
        return config->ca_file == NULL && config->cert_file == NULL && config->key_file == NULL && name == NULL
                   ? 0
                   : iok_err(err, IOK_EOPTION, "tls_... options need a TLS scheme such as rediss://");
    }
    iok_fork_hold(); /* or a child might inherit a lock of OpenSSL that nobody would open */
    net = service->owner->net;
    if (net != NULL) {
        service->tls = net->ops->tls_new(config, err);
        service->tls_free = net->ops->tls_free;
    } else {
        iok_err(err, IOK_ECLOSED, "the kernel is stopped");
    }
    iok_fork_release();
    return service->tls == NULL ? err->code : 0;
}

struct iok_service *iok_service_new(struct iok_port *port, const char *url, struct iok_error *err)
{
    struct iok_error local;
    struct iok_service *service;

    err = err == NULL ? &local : err;
    if (iok_port_check(port, err) != 0) {
        return NULL;
    }
    service = iok_service_make(url, err);
    if (service == NULL) {
        return NULL;
    }
    service->owner = port->owner;
    if (load_tls(service, err) != 0) {
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
    iok_hist_read(&service->hist_pickup, &out->pickup);
    iok_hist_read(&service->hist_total, &out->total);
    iok_note_read(&service->last_failure, out->last_failure);
}
