/* postgres_env.c - what a URL of PostgreSQL leaves open, from where libpq's users keep it: a service file, the PG*
 * variables, the password file, certificates in the user's home, and the usual values. In libpq's order: the URL, the service, the environment.
 *
 * The result is the URL with further options at its end. This is the one part of a codec that reads files. It does so on
 * the program's thread, once, when a service is made; the kernel's thread never does.
 *
 * What it is not: a check of the values, which is that of all options, wherever they come from; but for who may read the
 * private key, as that is a file's matter.
 *
 * https://www.postgresql.org/docs/current/libpq-envars.html, libpq-pgservice.html, libpq-pgpass.html */
#include "postgres.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/digest.h"
#include "../base/mem.h"

#define PATH_BYTES_MAX 4096u
#define LINE_BYTES_MAX 4096u
#define SOCKETS "/var/run/postgresql" /* where distributions have the server's sockets */
#define SYSTEM_SERVICES "/etc/postgresql-common"

static const struct {
    const char *variable; /* NULL: none */
    const char *option;
} known[] = {
    {"PGHOST", "host"},
    {"PGPORT", "port"},
    {"PGDATABASE", "dbname"},
    {"PGUSER", "user"},
    {"PGPASSWORD", "password"},
    {"PGPASSFILE", "passfile"},
    {"PGAPPNAME", "application_name"},
    {"PGOPTIONS", "options"},
    {"PGSSLMODE", "sslmode"},
    {"PGSSLROOTCERT", "sslrootcert"},
    {"PGSSLCERT", "sslcert"},
    {"PGSSLKEY", "sslkey"},
    {"PGSSLCRL", "sslcrl"},
    {NULL, "sslpassword"},
    {"PGREQUIREAUTH", "require_auth"},
    {"PGCHANNELBINDING", "channel_binding"},
    {"PGMINPROTOCOLVERSION", "min_protocol_version"},
    {"PGMAXPROTOCOLVERSION", "max_protocol_version"},
    {"PGCONNECT_TIMEOUT", "connect_timeout"},
    {"PGTARGETSESSIONATTRS", "target_session_attrs"},
    {"PGLOADBALANCEHOSTS", "load_balance_hosts"},
};
#define KNOWN (sizeof(known) / sizeof(*known))

/* Options of libpq that a service may have and that change nothing here. */
static const char *const needless[] = {
    "client_encoding", "fallback_application_name", "gssencmode",     "keepalives",      "keepalives_count",
    "keepalives_idle", "keepalives_interval",       "sslcompression", "tcp_user_timeout"};

struct found {
    const struct iok_url *url;
    struct pg_bytes values[KNOWN]; /* with a NUL; n 0: the URL has it, or nobody */
};

static bool put(struct pg_bytes *to, struct iok_span text)
{
    to->n = 0;
    return pg_bytes_put(to, text) && pg_bytes_put(to, iok_span("", 1));
}

static struct iok_span value_of(const struct found *found, const char *option)
{
    struct iok_span value;
    if (iok_url_option(found->url, option, &value))
        return value;
    for (size_t i = 0; i < KNOWN; i++)
        if (strcmp(known[i].option, option) == 0 && found->values[i].n > 0)
            return iok_span(found->values[i].p, found->values[i].n - 1);
    return iok_span(NULL, 0);
}

/* Whether the URL itself says it, in one way or another. */
static bool is_given(const struct iok_url *url, const char *option)
{
    /* tls_cert without tls_key is both; sslcert, as with libpq, is not. */
    static const char *const other_names[][2] = {{"sslrootcert", "tls_ca"}, {"sslcert", "tls_cert"},
                                                 {"sslkey", "tls_key"},     {"sslkey", "tls_cert"},
                                                 {"sslcrl", "tls_crl"},     {"sslpassword", "tls_key_password"}};
    struct iok_span value;
    if (iok_url_option(url, option, &value))
        return true;
    for (size_t i = 0; i < sizeof(other_names) / sizeof(*other_names); i++)
        if (strcmp(option, other_names[i][0]) == 0 && iok_url_option(url, other_names[i][1], &value))
            return true;
    if (strcmp(option, "host") == 0)
        return url->unix_socket || url->n_hosts > 0;
    if (strcmp(option, "port") == 0) {
        bool all = url->unix_socket || url->n_hosts > 0;
        for (uint32_t i = 0; i < url->n_hosts; i++)
            all &= url->hosts[i].port != 0;
        return all;
    }
    if (strcmp(option, "sslmode") == 0)
        return url->unix_socket;
    if (strcmp(option, "dbname") == 0)
        return !url->unix_socket && url->path.n > 0;
    if (strcmp(option, "user") == 0)
        return url->has_user;
    return strcmp(option, "password") == 0 && url->has_password;
}

/* Takes a value for an option that has none yet. false: out of memory. */
static bool take(struct found *found, size_t i, struct iok_span value)
{
    /* libpq: no limit. Here there always is one. */
    bool endless = strcmp(known[i].option, "connect_timeout") == 0 && iok_span_eq(value, iok_span_of("0"));
    if (value.n == 0 || endless || found->values[i].n > 0 || is_given(found->url, known[i].option))
        return true;
    return put(&found->values[i], value);
}

static int out_of_memory(struct iok_error *err)
{
    return iok_err(err, IOK_ENOMEM, "out of memory for a URL");
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

/* A file of the user's home; false if it has none. */
static bool at_home(const char *name, char path[PATH_BYTES_MAX])
{
    char room[4096];
    struct passwd entry, *found = NULL;
    const char *home = getenv("HOME");
    if ((home == NULL || home[0] == '\0') && getpwuid_r(geteuid(), &entry, room, sizeof(room), &found) == 0)
        home = found != NULL ? found->pw_dir : NULL;
    return home != NULL && snprintf(path, PATH_BYTES_MAX, "%s/%s", home, name) < (int)PATH_BYTES_MAX;
}

/* The next line without its end and blanks around; false at the file's end. Longer ones than LINE_BYTES_MAX are cut. */
static bool next_line(FILE *file, char line[LINE_BYTES_MAX], struct iok_span *text)
{
    if (fgets(line, LINE_BYTES_MAX, file) == NULL)
        return false;
    size_t n = strlen(line);
    bool whole = n > 0 && line[n - 1] == '\n';
    for (int c = 0; !whole && c != EOF && c != '\n';)
        c = fgetc(file);
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        n--;
    *text = iok_span(line, n);
    return true;
}

static struct iok_span trim(struct iok_span text)
{
    while (text.n > 0 && (text.p[0] == ' ' || text.p[0] == '\t'))
        text = iok_span_skip(text, 1);
    while (text.n > 0 && (text.p[text.n - 1] == ' ' || text.p[text.n - 1] == '\t'))
        text.n--;
    return text;
}

/* ---- service files -------------------------------------------------------------------------------------------- */

static int take_line(struct found *found, struct iok_span line, const char *path, struct iok_error *err)
{
    const uint8_t *sign = memchr(line.p, '=', line.n);
    if (sign == NULL)
        return iok_err(err, IOK_EOPTION, "%s: a line that is neither name=value nor [service]", path);
    struct iok_span key = trim(iok_span(line.p, (size_t)(sign - line.p)));
    struct iok_span value = trim(iok_span_skip(line, (size_t)(sign - line.p) + 1));
    for (size_t i = 0; i < KNOWN; i++)
        if (iok_span_eq(key, iok_span_of(known[i].option)))
            return take(found, i, value) ? 0 : out_of_memory(err);
    for (size_t i = 0; i < sizeof(needless) / sizeof(*needless); i++)
        if (iok_span_eq(key, iok_span_of(needless[i])))
            return 0;
    return iok_err(err, IOK_EOPTION, "%s: '%.*s' is not possible here", path, (int)(key.n < 40 ? key.n : 40), key.p);
}

/* 1: the service was in the file, 0: it was not, or there is no file. */
static int read_services(struct found *found, struct iok_span name, const char *path, struct iok_error *err)
{
    char line[LINE_BYTES_MAX];
    struct iok_span text;
    FILE *file = fopen(path, "re");
    bool within = false, there = false;
    int rc = 0;
    if (file == NULL && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (file == NULL)
        return iok_err(err, IOK_EOPTION, "%s: %s", path, strerror_r(errno, line, sizeof(line)));
    while (rc == 0 && next_line(file, line, &text)) {
        text = trim(text);
        if (text.n == 0 || text.p[0] == '#')
            continue;
        if (text.p[0] == '[' && text.p[text.n - 1] == ']') {
            if (there)
                break;
            within = there = iok_span_eq(trim(iok_span(text.p + 1, text.n - 2)), name);
        } else if (within) {
            rc = take_line(found, text, path, err);
        }
    }
    (void)fclose(file);
    iok_wipe(line, sizeof(line));
    return rc < 0 ? rc : there;
}

static int take_service(struct found *found, struct iok_error *err)
{
    struct iok_span name = value_of(found, "service");
    const char *own = getenv("PGSERVICEFILE"), *directory = getenv("PGSYSCONFDIR"), *variable = getenv("PGSERVICE");
    char home[PATH_BYTES_MAX], system[PATH_BYTES_MAX];
    int rc = 0;
    if (name.n == 0 && variable != NULL)
        name = iok_span_of(variable);
    if (name.n == 0)
        return 0;
    if (own != NULL)
        rc = read_services(found, name, own, err);
    else if (at_home(".pg_service.conf", home))
        rc = read_services(found, name, home, err);
    (void)snprintf(system, sizeof(system), "%s/pg_service.conf", directory != NULL ? directory : SYSTEM_SERVICES);
    if (rc == 0)
        rc = read_services(found, name, system, err);
    if (rc == 0)
        return iok_err(err, IOK_EOPTION, "service=%.*s is in no service file", (int)(name.n < 40 ? name.n : 40),
                       name.p);
    return rc < 0 ? rc : 0;
}

/* ---- the password file ---------------------------------------------------------------------------------------- */

/* Takes the field up to the next colon off the line, and says whether it is '*' or this text. A backslash stands before
 * a colon or a backslash of the text's own. */
static bool take_field(struct iok_span *line, struct iok_span wanted)
{
    bool any = line->n > 0 && line->p[0] == '*' && (line->n == 1 || line->p[1] == ':'), same = true;
    size_t i = 0, k = 0;
    for (; i < line->n && line->p[i] != ':'; i++) {
        if (line->p[i] == '\\' && i + 1 < line->n)
            i++;
        same &= k < wanted.n && wanted.p[k] == line->p[i];
        k++;
    }
    *line = iok_span_skip(*line, i < line->n ? i + 1 : i);
    return any || (same && k == wanted.n);
}

/* The password of the first line that fits. 1: there is one, 0: there is none, or IOK_ENOMEM. */
static int find_password(FILE *file, const struct iok_span fields[4], struct pg_bytes *password)
{
    char line[LINE_BYTES_MAX];
    struct iok_span text;
    int rc = 0;
    rewind(file);
    while (rc == 0 && next_line(file, line, &text)) {
        bool fits = text.n > 0 && text.p[0] != '#';
        for (size_t i = 0; i < 4 && fits; i++)
            fits = take_field(&text, fields[i]);
        if (!fits || text.n == 0)
            continue;
        size_t n = 0;
        for (size_t i = 0; i < text.n; i++) {
            i += text.p[i] == '\\' && i + 1 < text.n;
            line[n++] = (char)text.p[i]; /* behind what is read */
        }
        rc = put(password, iok_span(line, n)) ? 1 : IOK_ENOMEM;
    }
    iok_wipe(line, sizeof(line));
    return rc;
}

/* As libpq: it has to be a plain file that nobody else may read; else it is as if it were not there. */
static FILE *open_passfile(const struct found *found)
{
    char path[PATH_BYTES_MAX];
    struct iok_span named = value_of(found, "passfile");
    struct stat stat;
    if (named.n > 0 ? snprintf(path, sizeof(path), "%.*s", (int)named.n, named.p) >= (int)sizeof(path)
                    : !at_home(".pgpass", path))
        return NULL;
    FILE *file = fopen(path, "re");
    if (file != NULL &&
        (fstat(fileno(file), &stat) != 0 || !S_ISREG(stat.st_mode) || (stat.st_mode & (S_IRWXG | S_IRWXO)) != 0)) {
        (void)fclose(file);
        return NULL;
    }
    return file;
}

/* The i-th of a list with commas; the only one for all. */
static struct iok_span item(struct iok_span list, size_t i)
{
    struct iok_span rest = list;
    for (;; i--) {
        const uint8_t *comma = rest.n > 0 ? memchr(rest.p, ',', rest.n) : NULL;
        size_t n = comma != NULL ? (size_t)(comma - rest.p) : rest.n;
        if (i == 0)
            return iok_span(rest.p, n);
        if (comma == NULL)
            return rest.p == list.p ? list : iok_span(NULL, 0);
        rest = iok_span_skip(rest, n + 1);
    }
}

static size_t count(struct iok_span list)
{
    size_t n = list.n > 0;
    for (size_t i = 0; i < list.n; i++)
        n += list.p[i] == ',';
    return n;
}

/* Of the i-th host: its name and port, as the password file has them. */
static void name_host(const struct found *found, size_t i, struct iok_span fields[2], char port[8])
{
    const struct iok_url *url = found->url;
    struct iok_span host = i < url->n_hosts ? url->hosts[i].name : item(value_of(found, "host"), i);
    fields[1] = item(value_of(found, "port"), i);
    if (i < url->n_hosts && url->hosts[i].port != 0) {
        (void)snprintf(port, 8, "%u", url->hosts[i].port);
        fields[1] = iok_span_of(port);
    } else if (fields[1].n == 0) {
        fields[1] = iok_span_of("5432");
    }
    /* A socket in the usual place goes by the name of localhost. */
    bool usual = url->unix_socket || iok_span_eq(host, iok_span_of(SOCKETS));
    fields[0] = usual || host.n == 0 ? iok_span_of("localhost") : host;
}

static int take_password(struct found *found, struct pg_bytes *password, struct iok_error *err)
{
    struct pg_bytes other = {.n = 0};
    struct iok_span user = found->url->has_user ? found->url->user : value_of(found, "user");
    struct iok_span database = found->url->unix_socket ? iok_span(NULL, 0) : found->url->path;
    size_t n = found->url->n_hosts > 0 ? found->url->n_hosts : count(value_of(found, "host"));
    FILE *file = open_passfile(found);
    int rc = 0;
    if (file == NULL)
        return 0;
    database = database.n > 0 ? database : value_of(found, "dbname");
    for (size_t i = 0; i < (n > 0 ? n : 1) && rc >= 0; i++) {
        char port[8];
        struct iok_span fields[4] = {[2] = database.n > 0 ? database : user, [3] = user};
        name_host(found, i, fields, port);
        rc = find_password(file, fields, password->n == 0 ? password : &other);
        if (rc < 0)
            (void)out_of_memory(err);
        else if (other.n > 0 && !iok_span_eq(iok_span(other.p, other.n), iok_span(password->p, password->n)))
            rc = iok_err(err, IOK_EOPTION, "the password file has different passwords for the hosts of one URL");
    }
    (void)fclose(file);
    if (other.cap > 0)
        iok_wipe(other.p, other.cap);
    pg_bytes_free(&other);
    return rc < 0 ? rc : 0;
}

/* ---- certificates ---------------------------------------------------------------------------------------------- */

/* https://www.postgresql.org/docs/current/libpq-ssl.html: what is in the home, as far as it is there. A list of revoked
 * certificates goes with authorities from a file. */
static int take_certificates(struct found *found, struct iok_error *err)
{
    static const char *const files[][2] = {{"sslrootcert", ".postgresql/root.crt"},
                                           {"sslcrl", ".postgresql/root.crl"},
                                           {"sslcert", ".postgresql/postgresql.crt"},
                                           {"sslkey", ".postgresql/postgresql.key"}};
    struct iok_span system = iok_span_of("system"), value;
    for (size_t k = 0; k < sizeof(files) / sizeof(*files); k++) {
        char path[PATH_BYTES_MAX];
        bool certified = value_of(found, "sslcert").n > 0, trusted = value_of(found, "sslrootcert").n > 0;
        trusted = (trusted && !iok_span_eq(value_of(found, "sslrootcert"), system)) ||
                  iok_url_option(found->url, "tls_ca", &value);
        if (!at_home(files[k][1], path) || access(path, F_OK) != 0 ||
            (strcmp(files[k][0], "sslcrl") == 0 && !trusted) || (strcmp(files[k][0], "sslkey") == 0 && !certified))
            continue;
        value = iok_span_of(path);
        for (size_t i = 0; i < KNOWN; i++)
            if (strcmp(known[i].option, files[k][0]) == 0 && !take(found, i, value))
                return out_of_memory(err);
    }
    return 0;
}

/* As libpq: nobody but the user may read the private key; of one that belongs to root, its group may. */
static int check_key(const struct found *found, struct iok_error *err)
{
    char path[PATH_BYTES_MAX];
    struct iok_span mode = value_of(found, "sslmode"), file = value_of(found, "tls_key");
    struct stat stat_;
    if (file.n == 0)
        file = value_of(found, "sslkey");
    if (file.n == 0)
        file = value_of(found, "tls_cert");
    if (file.n == 0)
        file = value_of(found, "sslcert");
    if (file.n == 0 || found->url->unix_socket || iok_span_eq(mode, iok_span_of("disable")) ||
        snprintf(path, sizeof(path), "%.*s", (int)file.n, file.p) >= (int)sizeof(path) || stat(path, &stat_) != 0)
        return 0; /* it is not used, or whoever loads it says what is wrong */
    if (!S_ISREG(stat_.st_mode))
        return iok_err(err, IOK_ETLS, "%s: the private key is not a plain file", path);
    if ((stat_.st_mode & (stat_.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO)) != 0)
        return iok_err(err, IOK_ETLS,
                       "%s: others may read the private key; its permissions have to be 0600 or less, or 0640 if it "
                       "belongs to root",
                       path);
    return 0;
}

/* ---- all together --------------------------------------------------------------------------------------------- */

/* What nobody has said. */
static int take_usual(struct found *found, struct iok_error *err)
{
    char room[4096];
    struct passwd entry, *self = NULL;
    for (size_t i = 0; i < KNOWN; i++) {
        struct iok_span value = iok_span(NULL, 0);
        if (strcmp(known[i].option, "host") == 0)
            value = access(SOCKETS, X_OK) == 0 ? iok_span_of(SOCKETS) : iok_span_of("localhost");
        else if (strcmp(known[i].option, "user") == 0 &&
                 getpwuid_r(geteuid(), &entry, room, sizeof(room), &self) == 0 && self != NULL)
            value = iok_span_of(self->pw_name);
        if (!take(found, i, value))
            return out_of_memory(err);
    }
    return 0;
}

static int take_all(struct found *found, struct iok_error *err)
{
    const char *address = getenv("PGHOSTADDR");
    int rc = take_service(found, err);
    if (rc == 0 && address != NULL && address[0] != '\0' && !is_given(found->url, "host"))
        rc = iok_err(err, IOK_EOPTION, "PGHOSTADDR is not possible here: use PGHOST, and tls_name= for the name");
    for (size_t i = 0; i < KNOWN && rc == 0; i++) {
        const char *value = known[i].variable != NULL ? getenv(known[i].variable) : NULL;
        if (value != NULL && !take(found, i, iok_span_of(value)))
            rc = out_of_memory(err);
    }
    if (rc == 0)
        rc = take_usual(found, err);
    if (rc == 0)
        rc = take_certificates(found, err);
    if (rc == 0)
        rc = check_key(found, err);
    for (size_t i = 0; i < KNOWN && rc == 0; i++)
        if (strcmp(known[i].option, "password") == 0 && found->values[i].n == 0 &&
            !is_given(found->url, known[i].option))
            rc = take_password(found, &found->values[i], err);
    return rc;
}

/* "name=value" with all but letters and digits as %-escapes. */
static char *put_option(char *at, char separator, const char *name, struct iok_span value)
{
    static const char digits[] = "0123456789ABCDEF";
    *at++ = separator;
    for (; *name != '\0'; name++)
        *at++ = *name;
    *at++ = '=';
    for (size_t i = 0; i < value.n; i++) {
        uint8_t c = value.p[i];
        if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) {
            *at++ = (char)c;
        } else {
            *at++ = '%';
            *at++ = digits[c >> 4];
            *at++ = digits[c & 15];
        }
    }
    return at;
}

static int join(const struct found *found, char **whole, struct iok_error *err)
{
    struct iok_span text = found->url->text;
    size_t bytes = text.n + 1;
    for (size_t i = 0; i < KNOWN; i++)
        bytes += found->values[i].n > 0 ? 2 + strlen(known[i].option) + 3 * found->values[i].n : 0;
    *whole = iok_malloc(bytes);
    if (*whole == NULL)
        return out_of_memory(err);
    char *at = (char *)pg_put_span((uint8_t *)*whole, text);
    char separator = memchr(text.p, '?', text.n) != NULL ? '&' : '?';
    for (size_t i = 0; i < KNOWN; i++) {
        if (found->values[i].n > 0) {
            at = put_option(at, separator, known[i].option, iok_span(found->values[i].p, found->values[i].n - 1));
            separator = '&';
        }
    }
    *at = '\0';
    return 0;
}

int pg_complete(const struct iok_url *url, char **whole, struct iok_error *err)
{
    struct found found = {.url = url};
    int rc = take_all(&found, err);
    if (rc == 0)
        rc = join(&found, whole, err);
    for (size_t i = 0; i < KNOWN; i++) {
        if (found.values[i].cap > 0)
            iok_wipe(found.values[i].p, found.values[i].cap);
        pg_bytes_free(&found.values[i]);
    }
    return rc;
}
