/* test_net_tls.c - the real driver with TLS: certificates good and bad, peers good and bad, bytes, ends, fork. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kit/net_kit.h"

#define MEGABYTE ((size_t)1 << 20)
#define NS_PER_MS 1000000u
#define DAY_S 86400L

/* ---- certificates, made once ------------------------------------------------------------------------------------- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
    char cert_file[100], key_file[100];
};

static char directory[] = "/tmp/iok-tls-XXXXXX";
static struct identity ca, other_ca, server, expired, user;
static char junk_file[100], encrypted_file[100];

static EVP_PKEY *make_key(void)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    EVP_PKEY *key = NULL;

    assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_ec_paramgen_curve_nid(ctx, NID_X9_62_prime256v1), 1);
    assert_int_equal(EVP_PKEY_keygen(ctx, &key), 1);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static void write_files(struct identity *id, const char *name)
{
    FILE *file;

    snprintf(id->cert_file, sizeof(id->cert_file), "%s/%s.pem", directory, name);
    snprintf(id->key_file, sizeof(id->key_file), "%s/%s.key", directory, name);
    file = fopen(id->cert_file, "w");
    assert_non_null(file);
    PEM_write_X509(file, id->cert);
    fclose(file);
    file = fopen(id->key_file, "w");
    assert_non_null(file);
    PEM_write_PrivateKey(file, id->key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
}

/* issuer NULL: self-signed. names: of subjectAltName; NULL: a CA. */
static void make_identity(struct identity *id, const char *name, const struct identity *issuer, const char *names,
                          long until_s)
{
    static long serial;
    X509_NAME *subject;

    id->key = make_key();
    id->cert = X509_new();
    X509_set_version(id->cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id->cert), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(id->cert), -2 * DAY_S);
    X509_gmtime_adj(X509_getm_notAfter(id->cert), until_s);
    X509_set_pubkey(id->cert, id->key);
    subject = X509_get_subject_name(id->cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(id->cert, issuer != NULL ? X509_get_subject_name(issuer->cert) : subject);
    add_extension(id->cert, NID_basic_constraints, names == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    if (names != NULL) {
        add_extension(id->cert, NID_subject_alt_name, names);
    }
    assert_true(X509_sign(id->cert, issuer != NULL ? issuer->key : id->key, EVP_sha256()) > 0);
    write_files(id, name);
}

static void free_identity(struct identity *id)
{
    unlink(id->cert_file);
    unlink(id->key_file);
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
}

static int make_all(void **state)
{
    const char *good_names = "DNS:localhost,DNS:redis.test,IP:127.0.0.1";
    char passphrase[] = "open sesame";
    FILE *file;

    (void)state;
    assert_non_null(mkdtemp(directory));
    make_identity(&ca, "ca", NULL, NULL, DAY_S);
    make_identity(&other_ca, "other-ca", NULL, NULL, DAY_S);
    make_identity(&server, "server", &ca, good_names, DAY_S);
    make_identity(&expired, "expired", &ca, good_names, -DAY_S);
    make_identity(&user, "user", &ca, "DNS:user", DAY_S);
    snprintf(junk_file, sizeof(junk_file), "%s/junk.pem", directory);
    file = fopen(junk_file, "w");
    fputs("no certificate in here\n", file);
    fclose(file);
    snprintf(encrypted_file, sizeof(encrypted_file), "%s/encrypted.key", directory);
    file = fopen(encrypted_file, "w");
    PEM_write_PrivateKey(file, user.key, EVP_aes_128_cbc(), NULL, 0, NULL, passphrase);
    fclose(file);
    return 0;
}

static int remove_all(void **state)
{
    (void)state;
    free_identity(&ca);
    free_identity(&other_ca);
    free_identity(&server);
    free_identity(&expired);
    free_identity(&user);
    unlink(junk_file);
    unlink(encrypted_file);
    return rmdir(directory);
}

/* ---- the peer's side --------------------------------------------------------------------------------------------- */

static char seen_name[100]; /* the SNI of the last connection; read after the peer has stopped */

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)alert, (void)arg;
    snprintf(seen_name, sizeof(seen_name), "%s", name != NULL ? name : "none");
    return SSL_TLSEXT_ERR_OK;
}

static int on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *n, const unsigned char *offered,
                   unsigned int n_offered, void *arg)
{
    static const unsigned char known[] = "\4echo";

    (void)ssl, (void)arg;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)chosen, n, known, sizeof(known) - 1, offered,
                                 n_offered) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

static SSL_CTX *server_ctx(const struct identity *id, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    assert_int_equal(SSL_CTX_use_certificate(ctx, id->cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, id->key), 1);
    SSL_CTX_set_min_proto_version(ctx, version);
    SSL_CTX_set_max_proto_version(ctx, version);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"test", 4);
    return ctx;
}

static void require_client_cert(SSL_CTX *ctx)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    assert_int_equal(SSL_CTX_load_verify_locations(ctx, ca.cert_file, NULL), 1);
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static struct iok_tls *load(struct iok_net *net, struct iok_tls_config config)
{
    struct iok_error err = {0};
    struct iok_tls *tls = net->ops->tls_new(&config, &err);

    assert_string_equal(err.text, "");
    assert_non_null(tls);
    return tls;
}

static const struct iok_tls_config good = {.server_name = "localhost", .verify = true, .ca_file = ca.cert_file};

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

/* Connects, sends "hello", waits for its echo. The peer stops. */
static void check_good(struct iok_tls_config config, SSL_CTX *ctx, const char *alpn, const char *sni)
{
    struct client client = {.out = (const uint8_t *)"hello", .n_out = 5};
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, config);
    struct peer peer;

    peer_start(&peer, NULL, peer_echo_tls, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    until(net, client.n_in == 5 || client.closed);
    assert_string_equal(client.err.text, "");
    assert_memory_equal(client.in, "hello", 5);
    assert_string_equal(client.alpn, alpn);
    client_free(&client);
    net_stop(net);
    tls->free_me: (void)0;
    peer_stop(&peer);
    assert_int_equal(peer.clean_ends, 1);
    assert_string_equal(seen_name, sni);
    SSL_CTX_free(ctx);
}
