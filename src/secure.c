/* secure.c - whether a service's connections have TLS, and how: by the URL's scheme, or as its protocol says.
 *
 * The certificates themselves are loaded by the network's driver, on the program's thread. */
#include "run.h"

static const char *option_text(const struct iok_url *url, const char *key)
{
    struct iok_span value;

    return iok_url_option(url, key, &value) ? (const char *)value.p : NULL;
}

/* The protocol itself says whether there is TLS, and how it begins. */
static int read_starttls(struct iok_service *service, struct iok_error *err)
{
    struct iok_tls_config *config = &service->tls_config;
    struct iok_proto_tls wish;
    int rc = service->proto->tls(&service->url, &wish, err);

    if (rc == 0 && option_text(&service->url, "tls_verify") != NULL) {
        rc = iok_err(err, IOK_EOPTION, "tls_verify: with %s another option says so", service->proto->name);
    }
    if (rc != 0) {
        return rc;
    }
    config->verify = wish.verify_chain;
    config->any_name = !wish.verify_name;
    config->ca_file = wish.ca_file;
    config->cert_file = wish.cert_file;
    config->key_file = wish.key_file;
    service->starttls = (struct iok_starttls){wish.ask, wish.yes, wish.no, wish.required};
    service->config.tls = wish.wanted;
    return 0;
}

int iok_service_load_tls(struct iok_service *service, struct iok_error *err)
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
    if (service->proto->tls != NULL) {
        rc = read_starttls(service, err);
    } else {
        rc = iok_url_option_bool(url, "tls_verify", &config->verify, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (!service->config.tls && service->proto->tls != NULL) {
        return 0;
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
