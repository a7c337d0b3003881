/* postgres_signin.c - how a connection to PostgreSQL becomes ready: options, TLS's question, the start-up message, and
 * the three ways to prove a password: SCRAM-SHA-256, MD5, and in clear text.
 *
 *     StartupMessage -->   <-- Authentication...  [password messages -->]  <-- AuthenticationOk, ParameterStatus...,
 *     BackendKeyData, ReadyForQuery
 *
 * Invariants: a password goes out in clear text only over TLS, a unix socket, or when the URL says so; with SCRAM the
 * server has to prove that it knows the password, too; no error text repeats the password.
 *
 * [PG] "Message Flow, Start-up", "SASL Authentication"; RFC 5802 and RFC 7677 (SCRAM-SHA-256). Over TLS the
 * sign-in is bound to the server's certificate (SCRAM-SHA-256-PLUS, RFC 5929), if the server can do that. */
#include "postgres.h"

#include <stdio.h>

#include "../base/digest.h"
#include "../base/mem.h"
#include "saslprep.h"

#define PROTOCOL_3_0 0x00030000u
#define PROTOCOL_3_2 0x00030002u
#define SHOWN_MAX 160u /* of the server's error text in ours */
/* The server's default is 4096; so many take about 60 ms of the kernel's thread. */
#define ITERATIONS_MAX 200000
#define SALT_BYTES_MAX 64u       /* the server's has 16 */
#define SCRAM_TEXT_MAX 512u      /* of one of the server's messages; they have about 90 octets */
#define PASSWORD_BYTES_MAX 1024u /* libpq's limit is 1000 for a prompt, the server's 65535 */

enum authentication { AUTH_OK = 0, AUTH_CLEARTEXT = 3, AUTH_MD5 = 5, AUTH_SASL = 10, AUTH_SASL_MORE, AUTH_SASL_END };

/* ---- options -------------------------------------------------------------------------------------------------- */

struct iok_span pg_user(const struct iok_url *url)
{
    struct iok_span value = url->user;
    if (!url->has_user)
        iok_url_option(url, "user", &value);
    return value;
}

struct iok_span pg_password(const struct iok_url *url)
{
    struct iok_span value = url->password;
    if (!url->has_password)
        iok_url_option(url, "password", &value);
    return value;
}

/* Two names for the same thing, and not the same said twice. */
static int check_sign_in(const struct iok_url *url, struct iok_error *err)
{
    struct iok_span value;
    if (url->has_user && iok_url_option(url, "user", &value))
        return iok_err(err, IOK_EOPTION, "the user is given twice, before the host and by user=");
    if (url->has_password && iok_url_option(url, "password", &value))
        return iok_err(err, IOK_EOPTION, "the password is given twice, before the host and by password=");
    if (pg_user(url).n == 0)
        return iok_err(err, IOK_EURL, "no user: expected postgresql://user@host/database");
    if (pg_password(url).n > PASSWORD_BYTES_MAX)
        return iok_err(err, IOK_EURL, "a password of more than %u bytes", PASSWORD_BYTES_MAX);
    return 0;
}

static int read_binding(const struct iok_url *url, enum pg_binding *binding, struct iok_error *err)
{
    static const char *const words[] = {
        [PG_BINDING_PREFER] = "prefer", [PG_BINDING_DISABLE] = "disable", [PG_BINDING_REQUIRE] = "require"};
    struct iok_span value;
    if (!iok_url_option(url, "channel_binding", &value))
        return 0;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (iok_span_eq(value, iok_span_of(words[i]))) {
            *binding = (enum pg_binding)i;
            return 0;
        }
    }
    return iok_err(err, IOK_EOPTION, "channel_binding= takes disable, prefer or require");
}

/* https://www.postgresql.org/docs/current/libpq-connect.html, require_auth: a list of what is allowed, or of what is not. */
static int read_auths(const struct iok_url *url, unsigned *auths, struct iok_error *err)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"none", PG_AUTH_NONE},
                 {"password", PG_AUTH_PASSWORD},
                 {"md5", PG_AUTH_MD5},
                 {"scram-sha-256", PG_AUTH_SCRAM},
                 {"gss", 0},
                 {"sspi", 0},
                 {"oauth", 0}};
    struct iok_span list;
    bool allows = false, forbids = false;
    unsigned named = 0;
    *auths = PG_AUTH_ANY;
    if (!iok_url_option(url, "require_auth", &list) || list.n == 0)
        return 0;
    for (bool more = true; more;) {
        const uint8_t *comma = list.n > 0 ? memchr(list.p, ',', list.n) : NULL;
        struct iok_span word = iok_span(list.p, comma != NULL ? (size_t)(comma - list.p) : list.n);
        bool no = word.n > 0 && word.p[0] == '!';
        size_t i = 0;
        more = comma != NULL;
        list = iok_span_skip(list, word.n + more);
        word = iok_span_skip(word, no);
        while (i < sizeof(known) / sizeof(*known) && !iok_span_eq(word, iok_span_of(known[i].name)))
            i++;
        if (i == sizeof(known) / sizeof(*known))
            return iok_err(err, IOK_EOPTION,
                           "require_auth= takes a list of none, password, md5, scram-sha-256, gss, sspi and oauth");
        named |= known[i].bit;
        allows |= !no;
        forbids |= no;
    }
    if (allows && forbids)
        return iok_err(err, IOK_EOPTION, "require_auth= takes names with ! before each, or before none");
    *auths = forbids ? PG_AUTH_ANY & ~named : named;
    return 0;
}

static int read_version(const struct iok_url *url, const char *key, uint32_t *version, struct iok_error *err)
{
    struct iok_span value;
    if (!iok_url_option(url, key, &value))
        return 0;
    *version = iok_span_eq(value, iok_span_of("3.0")) ? PROTOCOL_3_0 : PROTOCOL_3_2;
    if (*version == PROTOCOL_3_0 || iok_span_eq(value, iok_span_of("3.2")) || iok_span_eq(value, iok_span_of("latest")))
        return 0;
    return iok_err(err, IOK_EOPTION, "%s= takes 3.0, 3.2 or latest", key);
}

int pg_read_wishes(const struct iok_url *url, struct pg_wishes *wishes, struct iok_error *err)
{
    *wishes = (struct pg_wishes){.user = pg_user(url),
                                 .statements = 128,
                                 .oldest = PROTOCOL_3_0,
                                 .newest = PROTOCOL_3_0,
                                 .application_name = iok_span_of("iokernel")};
    int rc = check_sign_in(url, err);
    if (rc < 0)
        return rc;
    wishes->database = url->unix_socket ? iok_span(NULL, 0) : url->path;
    struct iok_span name;
    if (iok_url_option(url, "dbname", &name)) {
        if (wishes->database.n > 0)
            return iok_err(err, IOK_EOPTION, "the database is given twice, by the path and by dbname=");
        wishes->database = name;
    }
    if (wishes->database.n == 0)
        wishes->database = wishes->user;
    iok_url_option(url, "application_name", &wishes->application_name);
    iok_url_option(url, "options", &wishes->options);
    const struct iok_span texts[] = {wishes->user, wishes->database, wishes->application_name, wishes->options};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        if (texts[i].n > 0 && memchr(texts[i].p, '\0', texts[i].n) != NULL)
            return iok_err(err, IOK_EURL, "user, database and options cannot hold a NUL");
    rc = iok_url_option_u64(url, "statements", 0, PG_STATEMENTS_MAX, &wishes->statements, err);
    if (rc == 0) /* the server's has milliseconds, as an int */
        rc = iok_url_option_duration(url, "statement_timeout", 1000000, 86400 * UINT64_C(1000000000),
                                     &wishes->statement_timeout, err);
    if (rc == 0)
        rc = read_binding(url, &wishes->binding, err);
    if (rc == 0)
        rc = read_auths(url, &wishes->auths, err);
    if (rc == 0)
        rc = read_version(url, "min_protocol_version", &wishes->oldest, err);
    if (rc == 0)
        rc = read_version(url, "max_protocol_version", &wishes->newest, err);
    if (rc == 0 && wishes->oldest > wishes->newest)
        rc = iok_err(err, IOK_EOPTION, "min_protocol_version= is more than max_protocol_version=");
    return rc == 0 ? iok_url_option_bool(url, "cleartext", &wishes->cleartext, err) : rc;
}

static const char *file_option(const struct iok_url *url, const char *ours, const char *libpqs)
{
    struct iok_span value;
    if (!iok_url_option(url, ours, &value) && !iok_url_option(url, libpqs, &value))
        return NULL;
    return iok_span_eq(value, iok_span_of("system")) ? NULL : (const char *)value.p; /* the system's authorities */
}

static const char *text_option(const struct iok_url *url, const char *ours, const char *libpqs)
{
    struct iok_span value;
    return iok_url_option(url, ours, &value) || iok_url_option(url, libpqs, &value) ? (const char *)value.p : NULL;
}

/* https://www.postgresql.org/docs/current/libpq-ssl.html */
enum ssl_mode { SSL_DISABLE = 0, SSL_ALLOW, SSL_PREFER, SSL_REQUIRE, SSL_VERIFY_CA, SSL_VERIFY_FULL, SSL_MODES };

static int read_mode(const struct iok_url *url, enum ssl_mode *mode, bool *given, struct iok_error *err)
{
    static const char *const words[SSL_MODES] = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"};
    struct iok_span word, root;
    /* Anybody has a certificate of some authority that the system trusts, so only the name says who it is. */
    bool system = iok_url_option(url, "sslrootcert", &root) && iok_span_eq(root, iok_span_of("system"));
    *given = iok_url_option(url, "sslmode", &word);
    *mode = system ? SSL_VERIFY_FULL : SSL_PREFER;
    for (size_t i = 0; *given && i < SSL_MODES; i++) {
        if (!iok_span_eq(word, iok_span_of(words[i])))
            continue;
        *mode = (enum ssl_mode)i;
        if (system && *mode != SSL_VERIFY_FULL && *mode != SSL_DISABLE)
            return iok_err(err, IOK_EOPTION, "sslrootcert=system goes with sslmode=verify-full only");
        return 0;
    }
    return *given
               ? iok_err(err, IOK_EOPTION, "sslmode= takes disable, allow, prefer, require, verify-ca or verify-full")
               : 0;
}

int pg_check_ssl(const struct iok_url *url, struct iok_proto_tls *tls, struct iok_error *err)
{
    /* [PG] "SSL Session Encryption" */
    static const uint8_t request[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
    enum ssl_mode mode;
    bool given;
    *tls = (struct iok_proto_tls){
        .ask = iok_span(request, sizeof(request)),
        .yes = 'S',
        .no = 'N',
        .ca_file = file_option(url, "tls_ca", "sslrootcert"),
        .crl_file = text_option(url, "tls_crl", "sslcrl"),
        .cert_file = text_option(url, "tls_cert", "sslcert"),
        .key_file = text_option(url, "tls_key", "sslkey"),
        .passphrase = text_option(url, "tls_key_password", "sslpassword"),
    };
    int rc = read_mode(url, &mode, &given, err);
    if (rc < 0)
        return rc;
    if (url->unix_socket) {
        if (given && mode >= SSL_REQUIRE)
            return iok_err(err, IOK_EOPTION, "TLS is not spoken on a unix socket: leave out sslmode=");
        return 0;
    }
    tls->wanted = mode != SSL_DISABLE;
    tls->ways = mode == SSL_ALLOW ? IOK_PLAIN_THEN_TLS : mode == SSL_PREFER ? IOK_TLS_THEN_PLAIN : IOK_TLS_ONE_WAY;
    tls->required = mode != SSL_PREFER;
    tls->verify_name = mode == SSL_VERIFY_FULL;
    /* With a root certificate require is as verify-ca. */
    tls->verify_chain = mode >= SSL_VERIFY_CA || (mode == SSL_REQUIRE && tls->ca_file != NULL);
    return 0;
}

int pg_check(const struct iok_url *url, struct iok_error *err)
{
    struct pg_wishes wishes;
    struct iok_proto_tls tls;
    int rc = pg_read_wishes(url, &wishes, err);
    return rc == 0 ? pg_check_ssl(url, &tls, err) : rc;
}

/* ---- start-up ------------------------------------------------------------------------------------------------- */

static void put_u32(struct iok_out *out, size_t value)
{
    uint8_t at[4];
    pg_put_u32(at, value);
    iok_out_put(out, iok_span(at, 4));
}

static int written(struct iok_io *io)
{
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for the sign-in") : 0;
}

int pg_put_startup(struct iok_io *io)
{
    struct pg_wishes wishes;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    if (rc < 0)
        return rc;
    char timeout[24] = "";
    if (wishes.statement_timeout > 0)
        (void)snprintf(timeout, sizeof(timeout), "%llu", (unsigned long long)wishes.statement_timeout / 1000000);
    /* DateStyle, so that times in text can be read; poolers know these parameters, and not many others. */
    const struct iok_span pairs[][2] = {
        {iok_span_of("user"), wishes.user},
        {iok_span_of("database"), wishes.database},
        {iok_span_of("client_encoding"), iok_span_of("UTF8")},
        {iok_span_of("DateStyle"), iok_span_of("ISO")},
        {iok_span_of("application_name"), wishes.application_name},
        {iok_span_of("options"), wishes.options},
        {iok_span_of("statement_timeout"), iok_span_of(timeout)},
    };
    size_t n = sizeof(pairs) / sizeof(*pairs), bytes = 4 + 4 + 1;
    for (size_t i = 0; i < n; i++)
        bytes += pairs[i][1].n > 0 ? pairs[i][0].n + pairs[i][1].n + 2 : 0;
    put_u32(io->out, bytes);
    put_u32(io->out, wishes.newest);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 2 && pairs[i][1].n > 0; k++) {
            iok_out_put(io->out, pairs[i][k]);
            iok_out_put(io->out, iok_span("", 1));
        }
    }
    iok_out_put(io->out, iok_span("", 1));
    return written(io);
}

/* ---- passwords ------------------------------------------------------------------------------------------------ */

static int garbled(struct iok_io *io)
{
    return iok_io_fail(io, IOK_EPROTO, "an authentication message that is not well formed");
}

static int failed_digest(struct iok_io *io, const char *what)
{
    return iok_io_fail(io, IOK_EAUTH, "%s failed in the cryptographic library", what);
}

/* 'p': PasswordMessage, SASLInitialResponse, SASLResponse. */
static int put_password(struct iok_io *io, struct iok_span head, struct iok_span data, bool nul)
{
    iok_out_put(io->out, iok_span("p", 1));
    put_u32(io->out, 4 + head.n + data.n + nul);
    iok_out_put(io->out, head);
    iok_out_put(io->out, data);
    iok_out_put(io->out, iok_span("", nul));
    return written(io);
}

static int answer_cleartext(struct iok_io *io)
{
    struct pg_wishes wishes;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    if (rc < 0)
        return rc;
    io->refused = !io->encrypted && !wishes.cleartext;
    if (io->refused)
        return iok_io_fail(io, IOK_EAUTH,
                           "the server asks for the password in clear text on a connection that is not "
                           "encrypted: use sslmode=require, or cleartext=yes where nobody can listen");
    return put_password(io, iok_span(NULL, 0), pg_password(io->url), true);
}

static bool md5_hex(struct iok_span a, struct iok_span b, char hex[2 * IOK_MD5_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t text[PASSWORD_BYTES_MAX + 4096], digest[IOK_MD5_BYTES];
    if (a.n + b.n > sizeof(text))
        return false;
    pg_put_span(pg_put_span(text, a), b);
    bool ok = iok_md5(iok_span(text, a.n + b.n), digest);
    iok_wipe(text, sizeof(text));
    for (size_t i = 0; i < IOK_MD5_BYTES && ok; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    return ok;
}

/* [PG] "AuthenticationMD5Password": md5(md5(password user) salt) */
static int answer_md5(struct iok_io *io, struct iok_span salt)
{
    char hex[2 * IOK_MD5_BYTES];
    if (salt.n != 4)
        return garbled(io);
    if (!md5_hex(pg_password(io->url), pg_user(io->url), hex) || !md5_hex(iok_span(hex, sizeof(hex)), salt, hex))
        return failed_digest(io, "MD5");
    return put_password(io, iok_span_of("md5"), iok_span(hex, sizeof(hex)), true);
}

/* ---- SCRAM-SHA-256 -------------------------------------------------------------------------------------------- */

/* The server knows the user from the start-up message, and ignores this one. */
static const char first_bare[] = "n=,r=";

static bool make_nonce(struct pg_scram *scram, struct iok_io *io)
{
    /* By a digest, as the host's generator is for jitter: what goes out shows nothing of its state. */
    uint64_t random[4];
    uint8_t digest[IOK_SHA256_BYTES];
    for (size_t i = 0; i < 4; i++)
        random[i] = io->host->random(io);
    bool ok = iok_sha256(iok_span(random, sizeof(random)), digest);
    scram->nonce[ok ? iok_base64(scram->nonce, iok_span(digest, 18)) : 0] = '\0';
    return ok;
}

static const char gs2_bound[] = "p=tls-server-end-point,,";

/* Chooses among the mechanisms that the server offers; NULL: none will do. */
static const char *choose(struct pg_scram *scram, const struct iok_io *io, enum pg_binding wish,
                          struct iok_span mechanisms)
{
    static const char plain[] = "SCRAM-SHA-256", plus[] = "SCRAM-SHA-256-PLUS";
    bool can_bind = io->binding.n > 0 && wish != PG_BINDING_DISABLE, has_plain = false, has_plus = false;
    struct iok_span mechanism;
    while (pg_take_cstring(&mechanisms, &mechanism) && mechanism.n > 0) {
        has_plain |= iok_span_eq(mechanism, iok_span_of(plain));
        has_plus |= iok_span_eq(mechanism, iok_span_of(plus));
    }
    scram->gs2 = has_plus && can_bind ? gs2_bound
                 : can_bind           ? "y,,"
                                      : "n,,"; /* y: so a server that could will object */
    if (scram->gs2 == gs2_bound)
        return plus;
    return has_plain && wish != PG_BINDING_REQUIRE ? plain : NULL;
}

static int scram_first(struct pg_scram *scram, struct iok_io *io, struct iok_span mechanisms)
{
    struct pg_wishes wishes;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    if (rc < 0)
        return rc;
    *scram = (struct pg_scram){.asked = true};
    const char *name = choose(scram, io, wishes.binding, mechanisms);
    if (name == NULL)
        return iok_io_fail(io, IOK_EAUTH, "the server offers no way to sign in that %s",
                           wishes.binding == PG_BINDING_REQUIRE ? "channel_binding=require allows, or there is no TLS"
                                                                : "is known here (SCRAM-SHA-256)");
    if (!make_nonce(scram, io))
        return failed_digest(io, "SCRAM");
    char text[sizeof(gs2_bound) + sizeof(first_bare) + sizeof(scram->nonce)];
    uint8_t head[32];
    int n = snprintf(text, sizeof(text), "%s%s%s", scram->gs2, first_bare, scram->nonce);
    uint8_t *end = pg_put_u32(pg_put_span(head, iok_span(name, strlen(name) + 1)), (size_t)n);
    return put_password(io, iok_span(head, (size_t)(end - head)), iok_span(text, (size_t)n), false);
}

/* The attribute "c=..." that comes next, up to a comma; false if another one does. */
static bool take_attribute(struct iok_span *text, char name, struct iok_span *value)
{
    if (text->n < 2 || text->p[0] != (uint8_t)name || text->p[1] != '=')
        return false;
    *text = iok_span_skip(*text, 2);
    const uint8_t *comma = text->n > 0 ? memchr(text->p, ',', text->n) : NULL;
    *value = iok_span(text->p, comma != NULL ? (size_t)(comma - text->p) : text->n);
    *text = iok_span_skip(*text, value->n + (comma != NULL));
    return true;
}

struct challenge {
    struct iok_span nonce;
    uint8_t salt[SALT_BYTES_MAX];
    size_t n_salt;
    int64_t iterations;
};

static int read_challenge(const struct pg_scram *scram, struct iok_io *io, struct iok_span text, struct challenge *to)
{
    struct iok_span salt, iterations;
    size_t ours = strlen(scram->nonce);
    if (!take_attribute(&text, 'r', &to->nonce) || !take_attribute(&text, 's', &salt) ||
        !take_attribute(&text, 'i', &iterations) || !iok_span_i64(iterations, &to->iterations) ||
        !iok_base64_decode(salt, to->salt, sizeof(to->salt), &to->n_salt))
        return garbled(io);
    if (to->nonce.n <= ours || memcmp(to->nonce.p, scram->nonce, ours) != 0)
        return iok_io_fail(io, IOK_EAUTH, "the server's SCRAM nonce does not begin with ours");
    if (to->iterations < 1 || to->iterations > ITERATIONS_MAX)
        return iok_io_fail(io, IOK_EAUTH, "the server asks for %lld SCRAM iterations; 1 to %d are allowed",
                           (long long)to->iterations, ITERATIONS_MAX);
    return 0;
}

/* RFC 5802, section 3: the client's proof, and the signature that the server has to answer. */
static bool prove(struct pg_scram *scram, struct iok_span password, const struct challenge *challenge,
                  struct iok_span message, uint8_t proof[IOK_SHA256_BYTES])
{
    uint8_t salted[IOK_SHA256_BYTES], client[IOK_SHA256_BYTES], stored[IOK_SHA256_BYTES], server[IOK_SHA256_BYTES];
    struct iok_span key = iok_span(salted, sizeof(salted));
    bool ok = iok_pbkdf2_sha256(password, iok_span(challenge->salt, challenge->n_salt), (uint32_t)challenge->iterations,
                                salted) &&
              iok_hmac_sha256(key, iok_span_of("Client Key"), client) &&
              iok_sha256(iok_span(client, sizeof(client)), stored) &&
              iok_hmac_sha256(iok_span(stored, sizeof(stored)), message, proof) &&
              iok_hmac_sha256(key, iok_span_of("Server Key"), server) &&
              iok_hmac_sha256(iok_span(server, sizeof(server)), message, scram->server_signature);
    for (size_t i = 0; i < IOK_SHA256_BYTES && ok; i++)
        proof[i] ^= client[i];
    iok_wipe(salted, sizeof(salted));
    iok_wipe(client, sizeof(client));
    iok_wipe(server, sizeof(server));
    return ok;
}

static int scram_proof(struct pg_scram *scram, struct iok_io *io, struct iok_span text)
{
    struct challenge challenge;
    uint8_t proof[IOK_SHA256_BYTES];
    char message[2 * SCRAM_TEXT_MAX + 256], encoded[IOK_BASE64_BYTES(IOK_SHA256_BYTES)];
    if (scram->nonce[0] == '\0' || scram->proof_sent || text.n > SCRAM_TEXT_MAX)
        return garbled(io);
    int rc = read_challenge(scram, io, text, &challenge);
    if (rc < 0)
        return rc;
    uint8_t bound[sizeof(gs2_bound) + IOK_SHA512_BYTES];
    char binding[IOK_BASE64_BYTES(sizeof(bound))];
    uint8_t *end = pg_put_span(bound, iok_span_of(scram->gs2));
    if (scram->gs2 == gs2_bound)
        end = pg_put_span(end,
                          iok_span(io->binding.p, io->binding.n < IOK_SHA512_BYTES ? io->binding.n : IOK_SHA512_BYTES));
    int n_binding = (int)iok_base64(binding, iok_span(bound, (size_t)(end - bound)));
    /* AuthMessage. Its last part is what goes out, without the proof. */
    int before = snprintf(message, sizeof(message), "%s%s,%.*s,", first_bare, scram->nonce, (int)text.n, text.p);
    int last = snprintf(message + before, sizeof(message) - (size_t)before, "c=%.*s,r=%.*s", n_binding, binding,
                        (int)challenge.nonce.n, challenge.nonce.p);
    if (memchr(text.p, '\0', text.n) != NULL)
        return garbled(io);
    struct iok_span password;
    uint8_t *prepared;
    if (!iok_saslprep(pg_password(io->url), &password, &prepared))
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for the sign-in");
    bool proven = prove(scram, password, &challenge, iok_span(message, (size_t)(before + last)), proof);
    if (prepared != NULL)
        iok_wipe(prepared, password.n);
    iok_free(prepared);
    if (!proven)
        return failed_digest(io, "SCRAM");
    scram->proof_sent = true;
    char head[SCRAM_TEXT_MAX + 192];
    int n = snprintf(head, sizeof(head), "%s,p=", message + before);
    return put_password(io, iok_span(head, (size_t)n),
                        iok_span(encoded, iok_base64(encoded, iok_span(proof, sizeof(proof)))), false);
}

static int scram_end(struct pg_scram *scram, struct iok_io *io, struct iok_span text)
{
    struct iok_span value;
    uint8_t signature[IOK_SHA256_BYTES];
    size_t n;
    if (!scram->proof_sent || !take_attribute(&text, 'v', &value) ||
        !iok_base64_decode(value, signature, sizeof(signature), &n))
        return garbled(io);
    if (n != sizeof(signature) || !iok_digest_eq(signature, scram->server_signature, n))
        return iok_io_fail(io, IOK_EAUTH, "the server does not know the password itself: somebody may be in between");
    scram->verified = true;
    return 0;
}

/* ---- what the server says ------------------------------------------------------------------------------------- */

/* With channel_binding=require nothing but a bound and proven sign-in will do. */
static int check_binding(const struct pg_scram *scram, struct iok_io *io, uint32_t what)
{
    struct pg_wishes wishes;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    if (rc < 0 || wishes.binding != PG_BINDING_REQUIRE || (what >= AUTH_SASL && what <= AUTH_SASL_END))
        return rc;
    if (what == AUTH_OK && scram->verified && scram->gs2 == gs2_bound)
        return 0;
    return iok_io_fail(io, IOK_EAUTH, "channel_binding=require, and the server signs in without it");
}

/* What require_auth= allows; a certificate of TLS goes with none. */
static int check_auth(struct pg_scram *scram, struct iok_io *io, uint32_t what)
{
    struct pg_wishes wishes;
    unsigned auth = what == AUTH_CLEARTEXT ? PG_AUTH_PASSWORD
                    : what == AUTH_MD5     ? PG_AUTH_MD5
                    : what == AUTH_SASL    ? PG_AUTH_SCRAM
                                           : 0;
    bool ends = what == AUTH_OK && !scram->asked;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    scram->asked |= auth != 0;
    auth = ends ? PG_AUTH_NONE : auth;
    if (rc < 0 || (auth & wishes.auths) == auth)
        return rc;
    return iok_io_fail(io, IOK_EAUTH, "require_auth= does not allow the server's way to sign in, which is %s",
                       auth == PG_AUTH_NONE       ? "none"
                       : auth == PG_AUTH_PASSWORD ? "password"
                       : auth == PG_AUTH_MD5      ? "md5"
                                                  : "scram-sha-256");
}

int pg_authenticate(struct pg_scram *scram, struct iok_io *io, struct iok_span body)
{
    int rc;
    if (body.n < 4)
        return garbled(io);
    uint32_t what = pg_u32(body.p);
    body = iok_span_skip(body, 4);
    bool wants_password = what == AUTH_CLEARTEXT || what == AUTH_MD5 || what == AUTH_SASL;
    if (wants_password && pg_password(io->url).n == 0)
        return iok_io_fail(io, IOK_EAUTH,
                           "the server wants a password, and the URL has none, nor PGPASSWORD, a service file, or a "
                           "password file that nobody else may read");
    rc = check_auth(scram, io, what);
    if (rc == 0)
        rc = check_binding(scram, io, what);
    if (rc < 0)
        return rc;
    switch (what) {
    case AUTH_OK: /* a server that was asked for a proof of its own cannot leave it out */
        return scram->nonce[0] != '\0' && !scram->verified ? garbled(io) : 0;
    case AUTH_CLEARTEXT:
        return answer_cleartext(io);
    case AUTH_MD5:
        return answer_md5(io, body);
    case AUTH_SASL:
        return scram_first(scram, io, body);
    case AUTH_SASL_MORE:
        return scram_proof(scram, io, body);
    case AUTH_SASL_END:
        return scram_end(scram, io, body);
    default:
        return iok_io_fail(io, IOK_EAUTH, "the server asks for a way to sign in that is not known here (number %u)",
                           (unsigned)what);
    }
}

/* [PG] "NegotiateProtocolVersion": the newest minor version that the server knows, and options that it does not. */
int pg_negotiate(struct iok_io *io, struct iok_span body)
{
    struct pg_wishes wishes;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    if (rc < 0)
        return rc;
    if (body.n < 8)
        return garbled(io);
    uint32_t version = pg_u32(body.p);
    version = version < 0x10000 ? PROTOCOL_3_0 | version : version; /* servers before 18 leave the major version out */
    if (version >= wishes.newest || version < PROTOCOL_3_0 || pg_u32(body.p + 4) != 0)
        return iok_io_fail(io, IOK_EPROTO, "an answer to the protocol's version that does not fit what was asked for");
    if (version < wishes.oldest)
        return iok_io_fail(io, IOK_EPROTO, "the server speaks protocol 3.%u, and min_protocol_version= wants more",
                           version & 0xffff);
    return 0;
}

int pg_refused(struct iok_io *io, struct iok_span body)
{
    char words[SHOWN_MAX + 1];
    struct iok_span code = pg_field(body, 'C'), text = pg_field(body, 'M'), password = pg_password(io->url);
    if (password.n > 0 && text.n > 0 && memmem(text.p, text.n, password.p, password.n) != NULL)
        text = iok_span_of("(its text is withheld, as it repeats the password)");
    size_t n = text.n < SHOWN_MAX ? text.n : SHOWN_MAX;
    for (size_t i = 0; i < n; i++)
        words[i] = text.p[i] >= ' ' && text.p[i] != 0x7f ? (char)text.p[i] : '?';
    words[n] = '\0';
    /* Appendix A "PostgreSQL Error Codes": too many connections; shutting down, crashed, starting. */
    if (iok_span_eq(code, iok_span_of("53300")))
        return iok_io_fail(io, IOK_ECONNECT, "the server has no room for another connection: %s", words);
    /* 08P01 is what pgbouncer has for all that it does not let in. */
    if (code.n == 5 && !iok_span_eq(code, iok_span_of("08P01")) &&
        (memcmp(code.p, "57P", 3) == 0 || memcmp(code.p, "08", 2) == 0 || memcmp(code.p, "53", 2) == 0))
        return iok_io_fail(io, IOK_ECONNECT, "the server is not ready: %s", words);
    if (iok_span_eq(code, iok_span_of("3D000")))
        return iok_io_fail(io, IOK_EOPTION, "the URL's database was refused: %s", words);
    io->refused = !iok_span_eq(code, iok_span_of("28P01")); /* a wrong password is wrong on each connection */
    return iok_io_fail(io, IOK_EAUTH, "sign-in refused: %s", words);
}
