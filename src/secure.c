/* secure.c - whether the connections of a service or a listener have TLS, and how: by the URL's scheme, or as its protocol
 * says.
 *
 * The certificates themselves are loaded by the network's driver, on the program's thread. */
#include "base/mem.h"
#include "kernel/serve.h"
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
    config->crl_file = wish.crl_file;
    config->cert_file = wish.cert_file;
    config->key_file = wish.key_file;
    config->passphrase = wish.passphrase;
    service->tls_ways = wish.ways;
    service->starttls = (struct iok_starttls){wish.ask, wish.yes, wish.no, wish.required};
    service->config.tls = wish.wanted;
    return 0;
}

/* One for each host, as each has a name of its own. */
static int load(struct iok_service *service, const char *name, struct iok_error *err)
{
    struct iok_net *net = service->owner->net;

    if (net == NULL) {
        return iok_err(err, IOK_ECLOSED, "the kernel is stopped");
    }
    service->tls_free = net->ops->tls_free;
    for (uint32_t i = 0; i < service->n_endpoints; i++) {
        struct iok_endpoint *endpoint = &service->endpoints[i];
        struct iok_tls_config config = service->tls_config;

        if (endpoint->port == 0 && service->proto->tls != NULL) {
            continue; /* TLS is not asked for on a unix socket */
        }
        config.server_name = name != NULL ? name : endpoint->port == 0 ? NULL : endpoint->host;
        endpoint->tls = net->ops->tls_new(&config, err);
        if (endpoint->tls == NULL) {
            return err->code;
        }
    }
    return 0;
}

int iok_service_load_tls(struct iok_service *service, struct iok_error *err)
{
    const struct iok_url *url = &service->url;
    struct iok_tls_config *config = &service->tls_config;
    const char *name = option_text(url, "tls_name");
    int rc;

    *config = (struct iok_tls_config){.verify = true,
                                      .ca_file = option_text(url, "tls_ca"),
                                      .crl_file = option_text(url, "tls_crl"),
                                      .cert_file = option_text(url, "tls_cert"),
                                      .key_file = option_text(url, "tls_key"),
                                      .passphrase = option_text(url, "tls_key_password")};
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
        return config->ca_file == NULL && config->crl_file == NULL && config->cert_file == NULL &&
                       config->key_file == NULL && config->passphrase == NULL && name == NULL
                   ? 0
                   : iok_err(err, IOK_EOPTION, "tls_... options need a TLS scheme such as rediss://");
    }
    iok_fork_hold(); /* or a child might inherit a lock of OpenSSL that nobody would open */
    rc = load(service, name, err);
    iok_fork_release();
    return rc;
}

/* ---- of listeners ---- */

#define IOK_IDENTITIES_MAX 64u

/* Cuts a list at its commas, in place. How many; 0: more than there is room for. */
static uint32_t split(char *list, const char *at[IOK_IDENTITIES_MAX])
{
    uint32_t n = 0;

    for (char *rest = list, *part; (part = strsep(&rest, ",")) != NULL;) {
        if (n == IOK_IDENTITIES_MAX) {
            return 0;
        }
        at[n++] = part;
    }
    return n;
}

static int load_identities(const struct iok_listener *listener, char *certs, char *keys, struct iok_tls **out,
                           struct iok_error *err)
{
    const char *cert_files[IOK_IDENTITIES_MAX], *key_files[IOK_IDENTITIES_MAX];
    struct iok_tls_identity identities[IOK_IDENTITIES_MAX];
    uint32_t n = split(certs, cert_files), n_keys = keys == NULL ? n : split(keys, key_files);
    struct iok_tls_serve_config config = {.identities = identities,
                                          .n_identities = n,
                                          .passphrase = option_text(&listener->url, "tls_key_password"),
                                          .ca_file = option_text(&listener->url, "tls_ca"),
                                          .alpn = "http/1.1"};

    if (n == 0 || n != n_keys) {
        return iok_err(err, IOK_EOPTION, "tls_key= has to name as many files as tls_cert=, at most %u",
                       IOK_IDENTITIES_MAX);
    }
    for (uint32_t i = 0; i < n; i++) {
        identities[i] = (struct iok_tls_identity){cert_files[i], keys == NULL ? NULL : key_files[i]};
    }
    iok_fork_hold(); /* as above */
    *out = listener->owner->net->ops->tls_serve(&config, err);
    iok_fork_release();
    return *out == NULL ? err->code : 0;
}

int iok_listener_load_tls(const struct iok_listener *listener, struct iok_tls **out, struct iok_error *err)
{
    const char *certs = option_text(&listener->url, "tls_cert"), *keys = option_text(&listener->url, "tls_key");
    char *cert_list, *key_list;
    int rc;

    *out = NULL;
    if (!listener->config.tls) {
        return certs == NULL && keys == NULL && option_text(&listener->url, "tls_ca") == NULL &&
                       option_text(&listener->url, "tls_key_password") == NULL
                   ? 0
                   : iok_err(err, IOK_EOPTION, "tls_... options need https://");
    }
    if (certs == NULL) {
        return iok_err(err, IOK_EOPTION, "https:// needs tls_cert=, a certificate chain in PEM, and tls_key=");
    }
    cert_list = iok_strndup(certs, strlen(certs));
    key_list = keys == NULL ? NULL : iok_strndup(keys, strlen(keys));
    rc = cert_list == NULL || (keys != NULL && key_list == NULL)
             ? iok_err(err, IOK_ENOMEM, "out of memory for TLS")
             : load_identities(listener, cert_list, key_list, out, err);
    iok_free(cert_list);
    iok_free(key_list);
    return rc;
}
