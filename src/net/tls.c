/* tls.c - OpenSSL between two memory BIOs.
 *
 *     peer --feed--> [from_peer] --\       /--> read  --> core
 *                                   > SSL <
 *     peer <--take-- [to_peer] ----/       \<-- write <-- core
 *
 * TLS 1.2 and later, verification on unless switched off, no renegotiation (so writing never has to wait for reading),
 * no prompts for passphrases. Bounds: from_peer holds what the caller feeds before it reads again (it feeds only when
 * nothing is buffered), to_peer IOK_TLS_PENDING_MAX and one record. */
#include "tls.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "../base/mem.h"

#define RECORD_BYTES_MAX 16384u /* RFC 8446 5.1 */
#define ALPN_WIRE_MAX 512u      /* far more than the names of one service */
#define REASON_MAX 96u

struct iok_tls {
    SSL_CTX *ctx;
    SSL_CTX **others; /* of a server: for further names */
    uint32_t n_others;
    uint32_t refs;         /* the caller's, and of a server one a stream, as it may be replaced meanwhile */
    char alpn[16];         /* of a server: as on the wire; [0] 0: none */
    char *server_name;     /* NULL: none was given */
    bool literal;          /* server_name is an IP address */
    bool verify, any_name; /* any_name: the chain only */
    SSL_SESSION *session;  /* the newest that the peer offered to resume, or NULL */
};

struct iok_tls_stream {
    struct iok_tls *tls;
    SSL *ssl; /* owns the BIOs */
    BIO *from_peer, *to_peer;
    int first_byte; /* that the peer sent; -1: none yet */
    bool served;    /* the server's side, which holds a reference to tls */
    bool broken;    /* after a fatal error nothing more may be asked of it */
};

/* The oldest error of the queue, which is the one nearest to the cause; empties the queue. Returns at. */
static const char *take_reason(char at[REASON_MAX])
{
    unsigned long code = ERR_get_error();
    const char *text = NULL;
    char system[REASON_MAX];

    if (code != 0) {
        text = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror_r(ERR_GET_REASON(code), system, sizeof(system))
                                                : ERR_reason_error_string(code);
    }
    snprintf(at, REASON_MAX, "%s", text != NULL ? text : "unknown reason");
    ERR_clear_error();
    return at;
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

/* Without this OpenSSL would ask on the terminal. */
static int give_passphrase(char *at, int n, int writing, void *arg)
{
    const char *passphrase = arg;
    size_t length = passphrase != NULL ? strlen(passphrase) : 0;

    (void)writing;
    if (length == 0 || length > (size_t)n) {
        return -1;
    }
    memcpy(at, passphrase, length);
    return (int)length;
}

/* Keeps the newest session for the next connection of the same service. */
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct iok_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    SSL_SESSION_free(tls->session);
    tls->session = session;
    return 1; /* the reference is ours now */
}

static int load_authorities(struct iok_tls *tls, const struct iok_tls_config *config, struct iok_error *err)
{
    char reason[REASON_MAX];

    SSL_CTX_set_verify(tls->ctx, config->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (config->ca_file != NULL) {
        if (SSL_CTX_load_verify_locations(tls->ctx, config->ca_file, NULL) != 1) {
            return iok_err(err, IOK_ETLS, "%s: cannot load CA certificates in PEM (%s)", config->ca_file,
                           take_reason(reason));
        }
    } else if (config->verify && SSL_CTX_set_default_verify_paths(tls->ctx) != 1) {
        return iok_err(err, IOK_ETLS, "cannot use the system's CA certificates (%s)", take_reason(reason));
    }
    if (config->crl_file != NULL) {
        X509_STORE *store = SSL_CTX_get_cert_store(tls->ctx);

        if (X509_STORE_load_locations(store, config->crl_file, NULL) != 1) {
            return iok_err(err, IOK_ETLS, "%s: cannot load a list of revoked certificates in PEM (%s)",
                           config->crl_file, take_reason(reason));
        }
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    return 0;
}

static int load_identity(SSL_CTX *ctx, const char *cert_file, const char *key_file, const char *passphrase,
                         const char *whose, struct iok_error *err)
{
    char reason[REASON_MAX];

    key_file = key_file != NULL ? key_file : cert_file;
    if (cert_file == NULL) {
        return key_file == NULL
                   ? 0
                   : iok_err(err, IOK_ETLS, "%s: a private key needs a certificate file as well", key_file);
    }
    SSL_CTX_set_default_passwd_cb(ctx, give_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(ctx, (void *)(uintptr_t)passphrase);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1) {
        return iok_err(err, IOK_ETLS, "%s: cannot load the %s certificate in PEM (%s)", cert_file, whose,
                       take_reason(reason));
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1) {
        iok_err(err, IOK_ETLS, "%s: cannot load the private key, in PEM and %s (%s)", key_file,
                passphrase != NULL ? "with this passphrase" : "without a passphrase", take_reason(reason));
        return IOK_ETLS;
    }
    SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
    return 0;
}

static int set_alpn(struct iok_tls *tls, const char *const *names, struct iok_error *err)
{
    uint8_t wire[ALPN_WIRE_MAX];
    unsigned n = 0;

    for (; names != NULL && *names != NULL; names++) {
        size_t len = strlen(*names);

        if (len == 0 || len >= IOK_TLS_ALPN_MAX || n + 1 + len > sizeof(wire)) {
            return iok_err(err, IOK_ETLS, "bad ALPN protocol name: 1 to 255 bytes each, %u in all, are allowed",
                           ALPN_WIRE_MAX);
        }
        wire[n] = (uint8_t)len;
        memcpy(wire + n + 1, *names, len);
        n += 1 + (unsigned)len;
    }
    if (n > 0 && SSL_CTX_set_alpn_protos(tls->ctx, wire, n) != 0) {
        return iok_err(err, IOK_ENOMEM, "out of memory for TLS");
    }
    return 0;
}

static int configure(struct iok_tls *tls, const struct iok_tls_config *config, struct iok_error *err)
{
    struct iok_address literal;
    int rc;

    if (config->verify && config->server_name == NULL) {
        return iok_err(err, IOK_ETLS, "verifying a TLS certificate needs the server's name");
    }
    if (config->server_name != NULL) {
        size_t n = strlen(config->server_name);

        /* RFC 6066 3: the name goes without the dot that ends an absolute one. */
        n -= n > 0 && config->server_name[n - 1] == '.';
        tls->server_name = iok_strndup(config->server_name, n);
        if (tls->server_name == NULL) {
            return iok_err(err, IOK_ENOMEM, "out of memory for TLS");
        }
        tls->literal = iok_address_literal(tls->server_name, 0, &literal);
    }
    tls->verify = config->verify;
    tls->any_name = config->any_name;
    SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_app_data(tls->ctx, tls);
    SSL_CTX_set_session_cache_mode(tls->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(tls->ctx, on_new_session);
    rc = load_authorities(tls, config, err);
    if (rc == 0) {
        rc = load_identity(tls->ctx, config->cert_file, config->key_file, config->passphrase, "client", err);
    }
    return rc == 0 ? set_alpn(tls, config->alpn, err) : rc;
}

struct iok_tls *iok_tls_new(const struct iok_tls_config *config, struct iok_error *err)
{
    struct iok_tls *tls = iok_calloc(sizeof(*tls));

    if (tls == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for TLS");
        return NULL;
    }
    ERR_clear_error();
    tls->refs = 1;
    tls->ctx = SSL_CTX_new(TLS_client_method());
    if (tls->ctx == NULL) {
        char reason[REASON_MAX];

        iok_err(err, IOK_ETLS, "cannot set up TLS (%s)", take_reason(reason));
        iok_tls_free(tls);
        return NULL;
    }
    if (configure(tls, config, err) < 0) {
        iok_tls_free(tls);
        tls = NULL;
    }
    ERR_clear_error(); /* a file's end leaves one even when all went well */
    return tls;
}

/* ---- of servers -------------------------------------------------------------------------------------------------- */

static bool has_name(SSL_CTX *ctx, const char *name)
{
    X509 *certificate = SSL_CTX_get0_certificate(ctx);
    struct iok_address literal;

    if (certificate == NULL || iok_address_literal(name, 0, &literal)) {
        return false;
    }
    return X509_check_host(certificate, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

/* RFC 6066, 3: a name that nobody has is no failure; the first certificate is shown, and the client decides. */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct iok_tls *tls = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)alert;
    if (name == NULL || has_name(tls->ctx, name)) {
        return SSL_TLSEXT_ERR_OK;
    }
    for (uint32_t i = 0; i < tls->n_others; i++) {
        if (has_name(tls->others[i], name)) {
            SSL_set_SSL_CTX(ssl, tls->others[i]);
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_OK;
}

/* A client that offers only others, such as h2 alone, hears that there is none (RFC 7301, 3.2). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                   unsigned in_len, void *arg)
{
    const struct iok_tls *tls = arg;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_len, (const unsigned char *)tls->alpn, 1u + (unsigned)tls->alpn[0], in,
                              in_len) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *serve_context(struct iok_tls *tls, const struct iok_tls_serve_config *config,
                              const struct iok_tls_identity *identity, struct iok_error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    char reason[REASON_MAX];

    if (ctx == NULL) {
        iok_err(err, IOK_ETLS, "cannot set up TLS (%s)", take_reason(reason));
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets do, and hold no memory here */
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"iokernel", 8);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, tls);
    if (tls->alpn[0] != 0) {
        SSL_CTX_set_alpn_select_cb(ctx, on_alpn, tls);
    }
    if (load_identity(ctx, identity->cert_file, identity->key_file, config->passphrase, "server", err) == 0) {
        if (config->ca_file == NULL) {
            return ctx;
        }
        if (SSL_CTX_load_verify_locations(ctx, config->ca_file, NULL) == 1) {
            SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
            return ctx;
        }
        iok_err(err, IOK_ETLS, "%s: cannot load CA certificates in PEM (%s)", config->ca_file, take_reason(reason));
    }
    SSL_CTX_free(ctx);
    return NULL;
}

static bool configure_server(struct iok_tls *tls, const struct iok_tls_serve_config *config, struct iok_error *err)
{
    if (config->alpn != NULL) {
        tls->alpn[0] = (char)strlen(config->alpn);
        memcpy(tls->alpn + 1, config->alpn, strlen(config->alpn));
    }
    tls->others = iok_calloc(config->n_identities * sizeof(*tls->others));
    if (tls->others == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for TLS");
        return false;
    }
    tls->ctx = serve_context(tls, config, &config->identities[0], err);
    for (uint32_t i = 1; tls->ctx != NULL && i < config->n_identities; i++) {
        tls->others[tls->n_others] = serve_context(tls, config, &config->identities[i], err);
        if (tls->others[tls->n_others] == NULL) {
            return false;
        }
        tls->n_others++;
    }
    return tls->ctx != NULL;
}

struct iok_tls *iok_tls_serve(const struct iok_tls_serve_config *config, struct iok_error *err)
{
    struct iok_tls *tls = iok_calloc(sizeof(*tls));

    if (tls == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for TLS");
        return NULL;
    }
    tls->refs = 1;
    ERR_clear_error();
    if (!configure_server(tls, config, err)) {
        iok_tls_free(tls);
        tls = NULL;
    }
    ERR_clear_error();
    return tls;
}

void iok_tls_free(struct iok_tls *tls)
{
    if (tls != NULL && --tls->refs == 0) {
        for (uint32_t i = 0; i < tls->n_others; i++) {
            SSL_CTX_free(tls->others[i]);
        }
        iok_free(tls->others);
        SSL_SESSION_free(tls->session);
        SSL_CTX_free(tls->ctx);
        iok_free(tls->server_name);
        iok_free(tls);
    }
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

/* The name to verify and, unless it is an IP literal (RFC 6066 3), to send. */
static bool set_name(struct iok_tls_stream *stream)
{
    const struct iok_tls *tls = stream->tls;
    X509_VERIFY_PARAM *param = SSL_get0_param(stream->ssl);

    if (tls->server_name == NULL) {
        return true;
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (tls->any_name) {
        return tls->literal || SSL_set_tlsext_host_name(stream->ssl, tls->server_name) == 1;
    }
    if (tls->literal) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, tls->server_name) == 1;
    }
    return X509_VERIFY_PARAM_set1_host(param, tls->server_name, 0) == 1 &&
           SSL_set_tlsext_host_name(stream->ssl, tls->server_name) == 1;
}

static void offer_session(struct iok_tls_stream *stream)
{
    struct iok_tls *tls = stream->tls;

    if (tls->session != NULL && SSL_set_session(stream->ssl, tls->session) == 1 &&
        SSL_SESSION_get_protocol_version(tls->session) == TLS1_3_VERSION) {
        /* RFC 8446 C.4: a ticket should be used once. The server sends new ones. */
        SSL_SESSION_free(tls->session);
        tls->session = NULL;
    }
}

static bool set_up(struct iok_tls_stream *stream)
{
    ERR_clear_error();
    stream->first_byte = -1;
    stream->ssl = SSL_new(stream->tls->ctx);
    stream->from_peer = BIO_new(BIO_s_mem());
    stream->to_peer = BIO_new(BIO_s_mem());
    if (stream->ssl == NULL || stream->from_peer == NULL || stream->to_peer == NULL) {
        BIO_free(stream->from_peer);
        BIO_free(stream->to_peer);
        return false;
    }
    SSL_set_bio(stream->ssl, stream->from_peer, stream->to_peer);
    return true;
}

struct iok_tls_stream *iok_tls_stream_accept(struct iok_tls *tls)
{
    struct iok_tls_stream *stream = iok_calloc(sizeof(*stream));

    if (stream == NULL) {
        return NULL;
    }
    stream->tls = tls;
    stream->served = true;
    tls->refs++;
    if (!set_up(stream)) {
        iok_tls_stream_free(stream);
        stream = NULL;
    } else {
        SSL_set_accept_state(stream->ssl);
    }
    ERR_clear_error();
    return stream;
}

struct iok_tls_stream *iok_tls_stream_new(struct iok_tls *tls, struct iok_error *err)
{
    struct iok_tls_stream *stream = iok_calloc(sizeof(*stream));
    char reason[REASON_MAX];

    if (stream == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a TLS connection");
        return NULL;
    }
    stream->tls = tls;
    if (!set_up(stream) || !set_name(stream)) {
        iok_err(err, IOK_ETLS, "cannot set up a TLS connection (%s)", take_reason(reason));
        iok_tls_stream_free(stream);
        return NULL;
    }
    offer_session(stream);
    SSL_set_connect_state(stream->ssl);
    ERR_clear_error();
    return stream;
}

void iok_tls_stream_free(struct iok_tls_stream *stream)
{
    SSL_free(stream->ssl);
    if (stream->served) {
        iok_tls_free(stream->tls);
    }
    iok_free(stream);
}

/* Explains a failed operation and clears the queue. Returns IOK_ETLS. */
static int fail(struct iok_tls_stream *stream, struct iok_error *err)
{
    unsigned long code = ERR_peek_error();
    char reason[REASON_MAX];

    stream->broken = true;
    take_reason(reason);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        return iok_err(err, IOK_ETLS, "certificate verify failed: %s (expected %s)",
                       X509_verify_cert_error_string(SSL_get_verify_result(stream->ssl)),
                       stream->served ? "one of tls_ca" : stream->tls->server_name);
    }
    /* RFC 8446 5.1: a server's first record is a handshake (22) or an alert (21). */
    if (stream->first_byte >= 0 && stream->first_byte != 22 && stream->first_byte != 21) {
        return iok_err(err, IOK_ETLS, "the peer does not speak TLS (%s)", reason);
    }
    return iok_err(err, IOK_ETLS, "TLS failure: %s", reason);
}

bool iok_tls_stream_feed(struct iok_tls_stream *stream, const uint8_t *bytes, size_t n)
{
    bool fed = true;

    if (n > 0) {
        if (stream->first_byte < 0) {
            stream->first_byte = bytes[0];
        }
        fed = BIO_write(stream->from_peer, bytes, (int)n) == (int)n;
        ERR_clear_error();
    }
    return fed;
}

/* Is it only that more bytes must come, or go? */
static bool wants_more(const struct iok_tls_stream *stream, int rc)
{
    int why = SSL_get_error(stream->ssl, rc);

    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
}

int iok_tls_stream_handshake(struct iok_tls_stream *stream, struct iok_error *err)
{
    int rc;

    ERR_clear_error();
    rc = SSL_do_handshake(stream->ssl);
    if (rc == 1) {
        return 1;
    }
    return wants_more(stream, rc) ? 0 : fail(stream, err);
}

void iok_tls_stream_alpn(const struct iok_tls_stream *stream, char at[IOK_TLS_ALPN_MAX])
{
    const unsigned char *name = NULL;
    unsigned n = 0;

    SSL_get0_alpn_selected(stream->ssl, &name, &n);
    snprintf(at, IOK_TLS_ALPN_MAX, "%.*s", (int)n, name != NULL ? (const char *)name : "");
}

/* RFC 5929 4.1: by the digest of the certificate's signature, but SHA-256 in place of MD5 and SHA-1. */
size_t iok_tls_stream_binding(const struct iok_tls_stream *stream, uint8_t at[IOK_BINDING_BYTES_MAX])
{
    X509 *certificate = SSL_get_peer_certificate(stream->ssl);
    const EVP_MD *digest = NULL;
    unsigned n = 0;
    int kind = NID_undef;

    _Static_assert(IOK_BINDING_BYTES_MAX >= EVP_MAX_MD_SIZE, "room for any digest");
    if (certificate != NULL && X509_get_signature_info(certificate, &kind, NULL, NULL, NULL) == 1) {
        digest = kind == NID_md5 || kind == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(kind);
    }
    if (digest == NULL || X509_digest(certificate, digest, at, &n) != 1) {
        n = 0;
    }
    X509_free(certificate);
    ERR_clear_error();
    return n;
}

bool iok_tls_stream_buffered(const struct iok_tls_stream *stream)
{
    return BIO_ctrl_pending(stream->from_peer) > 0 || SSL_pending(stream->ssl) > 0;
}

ptrdiff_t iok_tls_stream_read(struct iok_tls_stream *stream, uint8_t *at, size_t n, struct iok_error *err)
{
    int rc;

    ERR_clear_error();
    rc = SSL_read(stream->ssl, at, n < INT_MAX ? (int)n : INT_MAX);
    if (rc > 0) {
        return rc;
    }
    if (wants_more(stream, rc)) {
        return 0;
    }
    return SSL_get_error(stream->ssl, rc) == SSL_ERROR_ZERO_RETURN ? IOK_ECLOSED : fail(stream, err);
}

ptrdiff_t iok_tls_stream_write(struct iok_tls_stream *stream, const struct iovec *vec, int n, size_t skip,
                               struct iok_error *err)
{
    ptrdiff_t accepted = 0;

    ERR_clear_error();
    for (int i = 0; i < n; i++) {
        size_t skipped = skip < vec[i].iov_len ? skip : vec[i].iov_len;
        size_t left = vec[i].iov_len - skipped;
        const uint8_t *p = vec[i].iov_len > 0 ? (const uint8_t *)vec[i].iov_base + skipped : NULL;

        skip -= skipped;
        while (left > 0) {
            int rc;

            if (BIO_ctrl_pending(stream->to_peer) >= IOK_TLS_PENDING_MAX) {
                return accepted;
            }
            rc = SSL_write(stream->ssl, p, left < RECORD_BYTES_MAX ? (int)left : (int)RECORD_BYTES_MAX);
            if (rc <= 0) {
                return wants_more(stream, rc) ? accepted : fail(stream, err);
            }
            p += rc;
            left -= (size_t)rc;
            accepted += rc;
        }
    }
    return accepted;
}

void iok_tls_stream_shutdown(struct iok_tls_stream *stream)
{
    if (!stream->broken && !SSL_in_init(stream->ssl)) {
        SSL_shutdown(stream->ssl);
        ERR_clear_error();
    }
}

struct iok_span iok_tls_stream_peek(struct iok_tls_stream *stream)
{
    char *p = NULL;
    long n = BIO_get_mem_data(stream->to_peer, &p);

    return iok_span(p, n > 0 ? (size_t)n : 0);
}

void iok_tls_stream_take(struct iok_tls_stream *stream, size_t n)
{
    char waste[4096];

    /* The only way to drop bytes of a memory BIO is to read them. */
    while (n > 0) {
        int got = BIO_read(stream->to_peer, waste, n < sizeof(waste) ? (int)n : (int)sizeof(waste));

        if (got <= 0) {
            return;
        }
        n -= (size_t)got;
    }
}
