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

#include "../../src/base/mem.h"
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
static struct identity ca, other_ca, server, expired, user, revoked;
static char junk_file[100], encrypted_file[100], crl_file[100];

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

/* A list of the authority, with one revoked certificate. */
static void write_crl(const struct identity *issuer, const struct identity *which)
{
    X509_CRL *crl = X509_CRL_new();
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -DAY_S), *later = X509_gmtime_adj(NULL, DAY_S);
    FILE *file;

    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(which->cert));
    X509_REVOKED_set_revocationDate(entry, now);
    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert));
    X509_CRL_set1_lastUpdate(crl, now);
    X509_CRL_set1_nextUpdate(crl, later);
    X509_CRL_add0_revoked(crl, entry);
    assert_true(X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0);
    snprintf(crl_file, sizeof(crl_file), "%s/crl.pem", directory);
    file = fopen(crl_file, "w");
    assert_non_null(file);
    PEM_write_X509_CRL(file, crl);
    fclose(file);
    ASN1_TIME_free(now);
    ASN1_TIME_free(later);
    X509_CRL_free(crl);
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
    make_identity(&revoked, "revoked", &ca, good_names, DAY_S);
    write_crl(&ca, &revoked);
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
    free_identity(&revoked);
    unlink(crl_file);
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

/* Connects, sends "hello", waits for its echo, closes. */
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
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    assert_int_equal(peer.clean_ends, 1);
    assert_string_equal(seen_name, sni);
    SSL_CTX_free(ctx);
}

static void test_good(void **state)
{
    static const char *const protocols[] = {"nonsense", "echo", NULL}, *const unknown[] = {"nonsense", NULL};

    (void)state;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        struct iok_tls_config config = good;

        check_good(config, server_ctx(&server, versions[i]), "", "localhost");
        config.server_name = "redis.test.";
        check_good(config, server_ctx(&server, versions[i]), "", "redis.test");
        config.server_name = "127.0.0.1";
        config.alpn = protocols;
        check_good(config, server_ctx(&server, versions[i]), "echo", "none");
        config.alpn = unknown;
        check_good(config, server_ctx(&server, versions[i]), "", "none");
    }
}

static void test_verification_off(void **state)
{
    struct iok_tls_config config = {.server_name = "wrong.test"};

    (void)state;
    check_good(config, server_ctx(&expired, TLS1_3_VERSION), "", "wrong.test");
    config.server_name = NULL;
    check_good(config, server_ctx(&expired, TLS1_3_VERSION), "", "none");
}

static void check_bad(struct iok_tls_config config, peer_fn *serve, SSL_CTX *ctx, const char *wanted)
{
    struct client client = {.out = (const uint8_t *)"hello", .n_out = 5};
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, config);
    struct peer peer;

    peer_start(&peer, NULL, serve, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    until(net, client.closed);
    if (strstr(client.err.text, wanted) == NULL) {
        assert_string_equal(client.err.text, wanted);
    }
    assert_int_equal(client.err.code, IOK_ETLS);
    assert_int_equal(client.n_in, 0);
    assert_int_equal(ERR_peek_error(), 0);
    client_free(&client);
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    SSL_CTX_free(ctx);
}

static void test_bad_certificates(void **state)
{
    struct iok_tls_config config = good;

    (void)state;
    check_bad(config, peer_echo_tls, server_ctx(&expired, TLS1_3_VERSION),
              "certificate verify failed: certificate has expired (expected localhost)");
    check_bad(config, peer_echo_tls, server_ctx(&other_ca, TLS1_3_VERSION), "self-signed certificate");
    config.server_name = "wrong.test";
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        check_bad(config, peer_echo_tls, server_ctx(&server, versions[i]),
                  "certificate verify failed: hostname mismatch (expected wrong.test)");
    }
    config.server_name = "127.0.0.2";
    check_bad(config, peer_echo_tls, server_ctx(&server, TLS1_3_VERSION),
              "certificate verify failed: IP address mismatch (expected 127.0.0.2)");
    config.server_name = "localhost";
    config.ca_file = other_ca.cert_file;
    check_bad(config, peer_echo_tls, server_ctx(&server, TLS1_3_VERSION), "certificate verify failed: ");
    config.ca_file = NULL; /* the system's store does not know ours */
    check_bad(config, peer_echo_tls, server_ctx(&server, TLS1_3_VERSION), "certificate verify failed: ");
}

static void test_client_certificate(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        struct iok_tls_config config = good;
        SSL_CTX *ctx = server_ctx(&server, versions[i]);

        require_client_cert(ctx);
        check_bad(config, peer_echo_tls, ctx, versions[i] == TLS1_3_VERSION ? "certificate required" : "alert");
        ctx = server_ctx(&server, versions[i]);
        require_client_cert(ctx);
        config.cert_file = user.cert_file;
        config.key_file = user.key_file;
        check_good(config, ctx, "", "localhost");
        ctx = server_ctx(&server, versions[i]);
        require_client_cert(ctx);
        config.key_file = encrypted_file;
        config.passphrase = "open sesame";
        check_good(config, ctx, "", "localhost");
    }
}

static void test_revoked(void **state)
{
    struct iok_tls_config config = good;

    (void)state;
    check_good(config, server_ctx(&revoked, TLS1_3_VERSION), "", "localhost");
    config.crl_file = crl_file;
    check_good(config, server_ctx(&server, TLS1_3_VERSION), "", "localhost");
    check_bad(config, peer_echo_tls, server_ctx(&revoked, TLS1_3_VERSION),
              "certificate verify failed: certificate revoked (expected localhost)");
}

static void serve_nothing(struct peer *peer, int fd)
{
    char bytes[4096];

    (void)peer;
    recv(fd, bytes, sizeof(bytes), 0);
}

static void test_peer_without_tls(void **state)
{
    (void)state;
    check_bad(good, peer_error, NULL, "the peer does not speak TLS (");
    check_bad(good, serve_nothing, NULL, "closed by the peer during the TLS handshake");
}

static void test_old_version(void **state)
{
    SSL_CTX *ctx = server_ctx(&server, TLS1_1_VERSION);

    (void)state;
    check_bad(good, peer_echo_tls, ctx, "TLS failure: tlsv1 alert protocol version");
}

/* ---- TLS that begins within the connection ----------------------------------------------------------------------- */

static const char *said; /* to "tls?" */

static void serve_asked(struct peer *peer, int fd)
{
    char bytes[5] = "";

    assert_int_equal(recv(fd, bytes, 4, MSG_WAITALL), 4);
    assert_string_equal(bytes, "tls?");
    assert_int_equal(send(fd, said, strlen(said), MSG_NOSIGNAL), strlen(said));
    if (said[0] == 'S') {
        peer_echo_tls(peer, fd);
    } else if (said[0] != '\0') {
        peer_echo(peer, fd);
    }
}

static void check_asked(const char *answer, struct iok_tls_config config, bool required, bool plain, const char *wanted)
{
    const struct iok_starttls starttls = {iok_span("tls?", 4), 'S', 'N', required};
    struct client client = {.out = (const uint8_t *)"hello", .n_out = 5, .starttls = &starttls};
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, config);
    SSL_CTX *ctx = server_ctx(&server, TLS1_3_VERSION);
    struct peer peer;

    said = answer;
    peer_start(&peer, NULL, serve_asked, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    until(net, client.n_in == 5 || client.closed);
    if (wanted == NULL) {
        assert_string_equal(client.err.text, "");
        assert_memory_equal(client.in, "hello", 5);
        assert_int_equal(client.plain, plain);
    } else {
        assert_non_null(strstr(client.err.text, wanted));
        assert_int_equal(client.err.code, strstr(wanted, "not encrypted") != NULL ? IOK_EPROTO : IOK_ETLS);
        assert_false(client.connected);
    }
    client_free(&client);
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    SSL_CTX_free(ctx);
}

static void test_asked(void **state)
{
    struct iok_tls_config wrong_name = good, none = {.server_name = "localhost"};

    (void)state;
    wrong_name.server_name = "wrong.test";
    check_asked("S", good, true, false, NULL);
    check_asked("S", none, false, false, NULL);
    check_asked("S", wrong_name, true, false, "hostname mismatch");
    wrong_name.any_name = true;
    check_asked("S", wrong_name, true, false, NULL);
    wrong_name.ca_file = other_ca.cert_file;
    check_asked("S", wrong_name, true, false, "certificate verify failed");
    check_asked("N", good, false, true, NULL);
    check_asked("N", good, true, false, "does not speak TLS");
    check_asked("E", good, false, false, "did not answer the question");
}

/* CVE-2021-23222: what somebody in between put behind the answer must never be taken for the server's words. */
static void test_bytes_before_tls(void **state)
{
    (void)state;
    check_asked("SR", good, true, false, "bytes that are not encrypted");
    check_asked("NR", good, false, false, "bytes that are not encrypted");
    check_asked("", good, true, false, "during the TLS handshake");
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static void check_config(struct iok_tls_config config, const char *file, const char *wanted)
{
    struct iok_net *net = net_start();
    struct iok_error err = {0};

    assert_null(net->ops->tls_new(&config, &err));
    assert_int_equal(err.code, IOK_ETLS);
    assert_ptr_equal(strstr(err.text, file), err.text);
    if (strstr(err.text, wanted) == NULL) {
        assert_string_equal(err.text, wanted);
    }
    assert_int_equal(ERR_peek_error(), 0);
    net_stop(net);
}

static void test_bad_configurations(void **state)
{
    static const char *const empty_name[] = {"", NULL};
    struct iok_tls_config config = good;

    (void)state;
    config.ca_file = "/nowhere/ca.pem";
    check_config(config, "/nowhere/ca.pem: ", "No such file or directory");
    config.ca_file = junk_file;
    check_config(config, junk_file, ": cannot load CA certificates in PEM (");
    config = good;
    config.cert_file = "/nowhere/cert.pem";
    check_config(config, "/nowhere/cert.pem: ", "No such file or directory");
    config.cert_file = user.cert_file; /* there is no key in it */
    check_config(config, user.cert_file, "cannot load the private key");
    config.key_file = server.key_file;
    check_config(config, server.key_file, "key values mismatch");
    config.key_file = encrypted_file;
    check_config(config, encrypted_file, "without a passphrase");
    config.passphrase = "open barley";
    check_config(config, encrypted_file, "with this passphrase");
    config.passphrase = NULL;
    config.crl_file = junk_file;
    check_config(config, junk_file, "revoked certificates");
    config.crl_file = NULL;
    config.cert_file = NULL;
    check_config(config, encrypted_file, "needs a certificate file");
    config = good;
    config.alpn = empty_name;
    check_config(config, "bad ALPN", "1 to 255 bytes");
    config = good;
    config.server_name = NULL;
    check_config(config, "verifying", "needs the server's name");
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void serve_echo_late(struct peer *peer, int fd)
{
    sem_wait_for(&peer->go);
    peer_echo_tls(peer, fd);
}

/* The peer's handshake waits for go too, so that more bytes than go into the buffers meet it. */
static void check_echo(int version, size_t n, size_t space)
{
    uint8_t *bytes = make_bytes(n);
    struct client client = {.out = bytes, .n_out = n, .space = space};
    SSL_CTX *ctx = server_ctx(&server, version);
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, good);
    struct peer peer;

    peer_start(&peer, NULL, serve_echo_late, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    sem_post(&peer.go);
    until(net, client.n_in == n || client.closed);
    assert_string_equal(client.err.text, "");
    assert_memory_equal(client.in, bytes, n);
    client_free(&client);
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    assert_int_equal(peer.clean_ends, 1);
    SSL_CTX_free(ctx);
    free(bytes);
}

static void test_echo(void **state)
{
    (void)state;
    check_echo(TLS1_2_VERSION, MEGABYTE, 0);
    check_echo(TLS1_3_VERSION, MEGABYTE, 0);
    check_echo(TLS1_3_VERSION, MEGABYTE, 777);
    check_echo(TLS1_3_VERSION, 1, 1);
}

static void serve_when_told(struct peer *peer, int fd)
{
    SSL *ssl = SSL_new(peer->ctx);
    char bytes[16384];
    size_t left = 16 * MEGABYTE;
    int got = 1;

    SSL_set_fd(ssl, fd);
    SSL_accept(ssl);
    sem_post(&peer->said);
    sem_wait_for(&peer->go);
    while (left > 0 && got > 0) {
        got = SSL_read(ssl, bytes, sizeof(bytes));
        left -= got > 0 ? (size_t)got : 0;
    }
    SSL_write(ssl, left == 0 ? "all" : "bad", 3);
    SSL_shutdown(ssl);
    SSL_free(ssl);
}

/* A peer that does not read makes sending fall short, and memory stays bounded; then everything gets there. */
static void test_backpressure(void **state)
{
    uint8_t *bytes = make_bytes(16 * MEGABYTE);
    struct client client = {.out = bytes, .n_out = 16 * MEGABYTE};
    SSL_CTX *ctx = server_ctx(&server, TLS1_3_VERSION);
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, good);
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, serve_when_told, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    until(net, client.shortfalls > 0);
    assert_true(client.n_sent < client.n_out);
    sem_post(&peer.go);
    until(net, client.closed);
    assert_int_equal(client.err.code, 0);
    assert_int_equal(client.n_in, 3);
    assert_memory_equal(client.in, "all", 3);
    assert_true(client.writables > 0);
    client_free(&client);
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    SSL_CTX_free(ctx);
    free(bytes);
}

static void stop_reading(struct client *client)
{
    client->net->ops->want_read(client->link, false);
}

static void pause_in_space(struct client *client)
{
    client->paused = client->n_in % 2 == 1;
}

/* All bytes have come long ago and sit inside the driver; each resumption must bring some, with no help from the
 * socket. */
static void test_pause_and_resume(void **state)
{
    size_t n = 30000;
    uint8_t *bytes = make_bytes(n);
    struct client client = {.out = bytes, .n_out = n, .on_arrived = stop_reading, .space = 999};
    SSL_CTX *ctx = server_ctx(&server, TLS1_3_VERSION);
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, good);
    struct peer peer;

    (void)state;
    peer_start(&peer, NULL, peer_echo_tls, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    while (client.n_in < n) {
        size_t before = client.n_in;

        until(net, client.n_in > before);
        if (client.n_in < n) {
            before = client.n_in;
            iok_uv_turn(net, net->ops->now(net) + NS_PER_MS);
            assert_int_equal(client.n_in, before);
        }
        client.paused = false;
        client.on_space = client.n_in > n / 2 ? pause_in_space : NULL;
        client.space = client.n_in > n / 2 ? 501 : 999;
        net->ops->want_read(client.link, true);
        if (client.on_space == pause_in_space && client.n_in % 2 == 1) {
            iok_uv_turn(net, net->ops->now(net) + NS_PER_MS);
            client.on_space = NULL;
            client.paused = false;
            net->ops->want_read(client.link, true);
        }
    }
    assert_memory_equal(client.in, bytes, n);
    client_free(&client);
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    SSL_CTX_free(ctx);
    free(bytes);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void serve_bye(struct peer *peer, int fd)
{
    SSL *ssl = SSL_new(peer->ctx);
    char byte;

    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
        SSL_write(ssl, "bye", 3);
        SSL_shutdown(ssl);
        while (recv(fd, &byte, 1, 0) > 0) {
        }
    }
    SSL_free(ssl);
}

static void check_end(peer_fn *serve, const char *out, int code, const char *text)
{
    struct client client = {.out = (const uint8_t *)out, .n_out = strlen(out)};
    SSL_CTX *ctx = server_ctx(&server, TLS1_3_VERSION);
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, good);
    struct peer peer;

    peer_start(&peer, NULL, serve, ctx);
    client_open(&client, net, &peer.address, 1, tls);
    until(net, client.closed);
    assert_int_equal(client.err.code, code);
    assert_string_equal(client.err.text, text);
    assert_int_equal(client.n_in, 3);
    assert_memory_equal(client.in, "bye", 3);
    client_free(&client);
    net->ops->tls_free(tls);
    net_stop(net);
    peer_stop(&peer);
    SSL_CTX_free(ctx);
}

static void test_ends(void **state)
{
    (void)state;
    check_end(serve_bye, "", 0, "closed by the peer");
    check_end(peer_eof_tls, "x", IOK_ERESET, "closed without close_notify");
}

static void close_in_event(struct client *client)
{
    client_close(client);
}

static void test_close_in_events(void **state)
{
    uint8_t *bytes = make_bytes(16 * MEGABYTE);
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, good);
    struct client clients[4] = {{.on_connected = close_in_event},
                                {.out = bytes, .n_out = 50000, .on_space = close_in_event},
                                {.out = bytes, .n_out = 50000, .on_arrived = close_in_event, .space = 100},
                                {.out = bytes, .n_out = 16 * MEGABYTE, .on_writable = close_in_event}};
    SSL_CTX *ctx = server_ctx(&server, TLS1_3_VERSION);

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct peer peer;

        peer_start(&peer, NULL, peer_echo_tls, ctx);
        client_open(&clients[i], net, &peer.address, 1, tls);
        until(net, clients[i].link == NULL);
        assert_string_equal(clients[i].err.text, "");
        assert_false(clients[i].closed);
        until(net, iok_uv_objects(net) == 0);
        client_free(&clients[i]);
        peer_stop(&peer);
    }
    net->ops->tls_free(tls);
    net_stop(net);
    SSL_CTX_free(ctx);
    free(bytes);
}

/* ---- sessions, fork ---------------------------------------------------------------------------------------------- */

static void test_resumption(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        SSL_CTX *ctx = server_ctx(&server, versions[i]);
        struct iok_net *net = net_start();
        struct iok_tls *tls = load(net, good);
        struct peer peer;

        peer_start(&peer, NULL, peer_echo_tls, ctx);
        for (int j = 0; j < 3; j++) {
            struct client client = {.out = (const uint8_t *)"hello", .n_out = 5};

            client_open(&client, net, &peer.address, 1, tls);
            until(net, client.n_in == 5 || client.closed);
            assert_string_equal(client.err.text, "");
            client_free(&client);
        }
        net->ops->tls_free(tls);
        net_stop(net);
        peer_stop(&peer);
        assert_int_equal(SSL_CTX_sess_hits(ctx), 2);
        SSL_CTX_free(ctx);
    }
}

/* A process of its own: a thread's memory would look lost in the forked child. Its status is 0 when the one connection
 * ended with close_notify. */
static pid_t serve_in_process(struct peer *peer)
{
    pid_t pid = fork();

    if (pid == 0) {
        alarm(60); /* a failed test must not leave it behind */
        peer_echo_tls(peer, accept(peer->listener, NULL, NULL));
        _exit(peer->clean_ends == 1 ? 0 : 1);
    }
    return pid;
}

static void check_status(pid_t child)
{
    int status = -1;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_fork(void **state)
{
    struct client client = {.out = (const uint8_t *)"onetwo", .n_out = 3};
    SSL_CTX *ctx = server_ctx(&server, TLS1_3_VERSION);
    struct iok_net *net = net_start();
    struct iok_tls *tls = load(net, good);
    struct peer peer;
    pid_t child, peer_child;

    (void)state;
    peer_listen(&peer, NULL, ctx);
    peer_child = serve_in_process(&peer);
    client_open(&client, net, &peer.address, 1, tls);
    until(net, client.n_in == 3);
    child = fork();
    if (child == 0) {
        iok_uv_forget(net);
        iok_uv_free_forgotten(net);
        _exit(client.closed ? 1 : leaks());
    }
    check_status(child);
    client.n_out = 6;
    client_send(&client);
    until(net, client.n_in == 6 || client.closed);
    assert_string_equal(client.err.text, "");
    assert_memory_equal(client.in, "onetwo", 6);
    client_free(&client);
    check_status(peer_child);
    net->ops->tls_free(tls);
    net_stop(net);
    close(peer.listener);
    SSL_CTX_free(ctx);
}

/* Each allocation of our own fails in turn, first of the configuration, then of a connection: an error at once. */
static void test_out_of_memory(void **state)
{
    struct iok_net *net = net_start();
    struct iok_link_events events = {0};
    struct iok_tls *tls = NULL;
    struct iok_link *link = NULL;
    struct iok_error err;
    unsigned long n = 0;
    int fd;
    struct iok_address address = refusing_address(&fd);

    (void)state;
    while (tls == NULL) {
        iok_mem_fail_at(++n);
        tls = net->ops->tls_new(&good, &err);
        iok_mem_fail_at(0);
        assert_true(tls != NULL || err.code == IOK_ENOMEM);
    }
    assert_int_equal(n, 3); /* itself, the server's name */
    for (n = 0; link == NULL;) {
        struct iok_target target = {.addresses = &address, .n_addresses = 1, .tls = tls};

        iok_mem_fail_at(++n);
        link = net->ops->open(net, &target, &events, NULL, &err);
        iok_mem_fail_at(0);
        assert_true(link != NULL || err.code == IOK_ENOMEM);
    }
    assert_true(n > 3); /* link, TLS, race */
    net->ops->close(link);
    net->ops->tls_free(tls);
    net_stop(net);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_verification_off),
        cmocka_unit_test(test_bad_certificates),
        cmocka_unit_test(test_client_certificate),
        cmocka_unit_test(test_revoked),
        cmocka_unit_test(test_peer_without_tls),
        cmocka_unit_test(test_old_version),
        cmocka_unit_test(test_asked),
        cmocka_unit_test(test_bytes_before_tls),
        cmocka_unit_test(test_bad_configurations),
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_close_in_events),
        cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, make_all, remove_all);
}
