#include "url.h"

#include <stdio.h>

#include "mem.h"

/* Takes what stands before any of the stop characters off *rest. */
static struct iok_span until(struct iok_span *rest, const char *stops)
{
    struct iok_span part = {rest->p, 0};

    while (part.n < rest->n && strchr(stops, rest->p[part.n]) == NULL) {
        part.n++;
    }
    *rest = iok_span_skip(*rest, part.n);
    return part;
}

static bool take(struct iok_span *rest, const char *text)
{
    size_t n = strlen(text);

    if (rest->n < n || memcmp(rest->p, text, n) != 0) {
        return false;
    }
    *rest = iok_span_skip(*rest, n);
    return true;
}

static int hex(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes part to *at, NUL-terminates, and moves *at on. */
static int decode(uint8_t **at, struct iok_span part, const char *what, struct iok_span *out, struct iok_error *err)
{
    uint8_t *start = *at;

    for (size_t i = 0; i < part.n; i++) {
        uint8_t c = part.p[i];

        if (c == '%') {
            int high = i + 2 < part.n ? hex(part.p[i + 1]) : -1;
            int low = i + 2 < part.n ? hex(part.p[i + 2]) : -1;

            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                return iok_err(err, IOK_EURL, "bad %%-escape in the %s: expected %% and two hexadecimal digits, not 00",
                               what);
            }
            c = (uint8_t)(high * 16 + low);
            i += 2;
        }
        *(*at)++ = c;
    }
    *out = iok_span(start, (size_t)(*at - start));
    *(*at)++ = '\0';
    return 0;
}

static int parse_scheme(struct iok_url *url, uint8_t **at, struct iok_span *rest, struct iok_error *err)
{
    struct iok_span scheme = until(rest, ":/?#@");
    uint8_t *start = *at;

    if (scheme.n == 0 || !(take(rest, "://") || (url->listens && take(rest, ":")))) {
        return iok_err(err, IOK_EURL, "no scheme: expected scheme://host:port/path, such as redis://localhost:6379/0");
    }
    for (size_t i = 0; i < scheme.n; i++) {
        uint8_t c = scheme.p[i];

        c = c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')) {
            return iok_err(err, IOK_EURL, "bad scheme: only letters, digits, '+', '-' and '.' are allowed");
        }
        start[i] = c;
    }
    url->scheme = iok_span(start, scheme.n);
    if (scheme.n > 5 && memcmp(start + scheme.n - 5, "+unix", 5) == 0) {
        url->scheme.n -= 5;
        url->unix_socket = true;
    } else if (scheme.n == 4 && memcmp(start, "unix", 4) == 0) {
        url->unix_socket = true;
    }
    start[url->scheme.n] = '\0';
    *at += scheme.n + 1;
    return 0;
}

static int parse_port(struct iok_span text, uint16_t *out, struct iok_error *err)
{
    int64_t port;

    if (!iok_span_i64(text, &port) || port < 1 || port > 65535) {
        /* Not shown: it is a password when the '@' and the host were forgotten. */
        return iok_err(err, IOK_EURL,
                       "bad port: expected a number from 1 to 65535 after the host (after user:password comes @host)");
    }
    *out = (uint16_t)port;
    return 0;
}

/* A name, an IPv4 address or, in brackets, an IPv6 address with its %zone: nothing else can be looked up. Or a
 * directory. */
static bool host_is_valid(struct iok_span host, bool brackets)
{
    if (iok_url_is_directory(host) && !brackets) {
        return host.n > 1;
    }
    for (size_t i = 0; i < host.n; i++) {
        uint8_t c = host.p[i], letter = c | 32;

        if (!((letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' ||
              (brackets && (c == ':' || c == '%')))) {
            return false;
        }
    }
    return !brackets || memchr(host.p, ':', host.n) != NULL;
}

static int add_host(struct iok_url *url, struct iok_span name, bool brackets, struct iok_error *err)
{
    if (!host_is_valid(name, brackets)) {
        return iok_err(err, IOK_EURL, "bad host: only letters, digits, '.', '-' and '_' are allowed; IPv6 in brackets");
    }
    if (url->n_hosts == IOK_URL_HOSTS_MAX) {
        return iok_err(err, IOK_EURL, "more than %u hosts", IOK_URL_HOSTS_MAX);
    }
    url->hosts[url->n_hosts++] = (struct iok_url_host){.name = name};
    return 0;
}

/* "name", "name:port", "[address]", "[address]:port" */
static int parse_host(struct iok_url *url, uint8_t **at, struct iok_span host, struct iok_error *err)
{
    bool brackets = host.n > 0 && host.p[0] == '[';
    struct iok_span name, decoded;
    int rc;

    if (brackets) {
        name = iok_span_skip(host, 1);
        host = name;
        name = until(&host, "]");
        if (!take(&host, "]")) {
            return iok_err(err, IOK_EURL, "bad host: '[' without ']'");
        }
    } else {
        name = until(&host, ":");
    }
    rc = decode(at, name, "host", &decoded, err);
    if (rc == 0) {
        rc = add_host(url, decoded, brackets, err);
    }
    if (rc == 0 && host.n > 0) {
        if (!take(&host, ":")) {
            return iok_err(err, IOK_EURL, "bad host: text after ']'");
        }
        url->hosts[url->n_hosts - 1].any_port = url->listens && iok_span_eq(host, iok_span_of("0"));
        rc = url->hosts[url->n_hosts - 1].any_port ? 0 : parse_port(host, &url->hosts[url->n_hosts - 1].port, err);
    }
    return rc;
}

static int parse_hosts(struct iok_url *url, uint8_t **at, struct iok_span list, struct iok_error *err)
{
    bool several = memchr(list.p, ',', list.n) != NULL;

    while (list.n > 0) {
        struct iok_span host = until(&list, ",");
        int rc = host.n == 0 && several ? iok_err(err, IOK_EURL, "an empty host in the list of hosts")
                                        : parse_host(url, at, host, err);

        if (rc != 0) {
            return rc;
        }
        if (take(&list, ",") && list.n == 0) {
            return iok_err(err, IOK_EURL, "an empty host in the list of hosts");
        }
    }
    return 0;
}

/* A list of ports: one for each host, or one for all. An empty one is the usual port. */
static int add_ports(struct iok_url *url, struct iok_span list, const char *key, struct iok_error *err)
{
    uint32_t n = 0;
    uint16_t port = 0;
    bool more = true;

    for (; more; n++) {
        struct iok_span text = until(&list, ",");

        more = take(&list, ",");
        port = 0;
        if (n < url->n_hosts && url->hosts[n].port != 0) {
            return iok_err(err, IOK_EOPTION, "a port is given twice, after its host and by %s=", key);
        }
        if (text.n > 0 && parse_port(text, &port, err) != 0) {
            return iok_err(err, IOK_EOPTION, "bad %s=: expected numbers from 1 to 65535, separated by commas", key);
        }
        if (n < url->n_hosts) {
            url->hosts[n].port = port;
        }
    }
    for (uint32_t i = 1; n == 1 && i < url->n_hosts; i++) {
        url->hosts[i].port = url->hosts[i].port != 0 ? url->hosts[i].port : port;
    }
    return n == 1 || n == url->n_hosts
               ? 0
               : iok_err(err, IOK_EOPTION, "%s= has %u ports for %u hosts", key, n, url->n_hosts);
}

int iok_url_add_hosts(struct iok_url *url, const char *hosts_key, const char *ports_key, struct iok_error *err)
{
    struct iok_span list;

    if (iok_url_option(url, hosts_key, &list)) {
        bool more = true;

        if (url->unix_socket || url->n_hosts > 0) {
            return iok_err(err, IOK_EOPTION, "the host is given twice, before the path and by %s=", hosts_key);
        }
        while (more) {
            struct iok_span name = until(&list, ",");
            int rc = add_host(url, name, memchr(name.p, ':', name.n) != NULL, err);

            if (rc != 0) {
                return rc;
            }
            more = take(&list, ",");
        }
    }
    if (!iok_url_option(url, ports_key, &list)) {
        return 0;
    }
    return url->unix_socket
               ? iok_err(err, IOK_EOPTION, "a unix socket whose path is given has no port: leave out %s=", ports_key)
               : add_ports(url, list, ports_key, err);
}

static int parse_authority(struct iok_url *url, uint8_t **at, struct iok_span part, struct iok_error *err)
{
    const uint8_t *sign = NULL;
    struct iok_span user;
    int rc;

    for (size_t i = 0; i < part.n; i++) {
        sign = part.p[i] == '@' ? part.p + i : sign;
    }
    if (sign != NULL) {
        struct iok_span info = {part.p, (size_t)(sign - part.p)};

        part = iok_span_skip(part, info.n + 1);
        user = until(&info, ":");
        url->has_user = user.n > 0;
        rc = decode(at, user, "user name", &url->user, err);
        if (rc == 0 && take(&info, ":")) {
            url->has_password = true;
            rc = decode(at, info, "password", &url->password, err);
        }
        if (rc != 0) {
            return rc;
        }
    }
    if (url->unix_socket) {
        return part.n == 0 ? 0 : iok_err(err, IOK_EURL, "a unix socket's URL has no host: expected unix:///path");
    }
    return parse_hosts(url, at, part, err);
}

static int parse_query(struct iok_url *url, uint8_t **at, struct iok_span rest, struct iok_error *err)
{
    while (rest.n > 0) {
        struct iok_span pair = until(&rest, "&");
        struct iok_span key = until(&pair, "=");
        struct iok_url_option *option = &url->options[url->n_options];
        struct iok_span value;
        int rc;

        (void)take(&rest, "&");
        if (url->n_options == IOK_URL_OPTIONS_MAX) {
            return iok_err(err, IOK_EURL, "more than %u options", IOK_URL_OPTIONS_MAX);
        }
        rc = decode(at, key, "option's name", &option->key, err);
        if (rc != 0) {
            return rc;
        }
        if (option->key.n == 0 || !take(&pair, "=")) {
            return iok_err(err, IOK_EOPTION, "bad option %u: expected name=value", url->n_options + 1);
        }
        if (iok_url_option(url, (const char *)option->key.p, &value)) {
            return iok_err(err, IOK_EOPTION, "option '%s' is given twice", (const char *)option->key.p);
        }
        rc = decode(at, pair, "option's value", &option->value, err);
        if (rc != 0) {
            return rc;
        }
        url->n_options++;
    }
    return 0;
}

static int parse(struct iok_url *url, struct iok_span rest, struct iok_error *err)
{
    uint8_t *at = (uint8_t *)url->storage;
    struct iok_span part;
    int rc;

    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] <= ' ' || rest.p[i] == 0x7f) {
            return iok_err(err, IOK_EURL, "blank or control character at byte %zu: write it as a %%-escape", i);
        }
    }
    rc = parse_scheme(url, &at, &rest, err);
    if (rc != 0) {
        return rc;
    }
    part = until(&rest, "/?#");
    /* Most likely a password with an unescaped '/', '?' or '#'. Said before its pieces pass for a port, a path or an
     * option, which are shown. */
    if (rest.n != 0 && memchr(rest.p, '@', rest.n) != NULL) {
        return iok_err(err, IOK_EURL,
                       "'@' after the host: in a password write / ? # @ as %%2F %%3F %%23 %%40, in a "
                       "path or an option @ as %%40");
    }
    rc = parse_authority(url, &at, part, err);
    if (rc != 0) {
        return rc;
    }
    if (!url->unix_socket) {
        (void)take(&rest, "/");
    }
    part = until(&rest, "?#");
    rc = decode(&at, part, "path", &url->path, err);
    if (rc == 0 && url->unix_socket && url->path.n < 2) {
        return iok_err(err, IOK_EURL, "no path to the unix socket");
    }
    if (rc == 0 && take(&rest, "?")) {
        rc = parse_query(url, &at, until(&rest, "#"), err);
    }
    return rc != 0 ? rc : rest.n == 0 ? 0 : iok_err(err, IOK_EURL, "a fragment ('#...') means nothing here");
}

static int parse_text(struct iok_url *url, const char *text, bool listens, struct iok_error *err)
{
    size_t n = text == NULL ? 0 : strnlen(text, IOK_URL_BYTES_MAX + 1);
    int rc;

    *url = (struct iok_url){.listens = listens};
    if (n == 0 || n > IOK_URL_BYTES_MAX) {
        return iok_err(err, IOK_EURL, n == 0 ? "the URL is empty" : "the URL is longer than 8192 bytes");
    }
    url->storage_bytes = 3 * n + 17; /* each part shrinks or stays, and gets a NUL for its separator; and the text */
    url->storage = iok_calloc(url->storage_bytes);
    if (url->storage == NULL) {
        return iok_err(err, IOK_ENOMEM, "out of memory for a URL");
    }
    url->text = iok_span(memcpy(url->storage + 2 * n + 16, text, n), n);
    rc = parse(url, iok_span(text, n), err);
    if (rc != 0) {
        iok_url_deinit(url);
    }
    return rc;
}

int iok_url_parse(struct iok_url *url, const char *text, struct iok_error *err)
{
    return parse_text(url, text, false, err);
}

int iok_url_parse_listen(struct iok_url *url, const char *text, struct iok_error *err)
{
    return parse_text(url, text, true, err);
}

void iok_url_deinit(struct iok_url *url)
{
    if (url->storage != NULL) {
        explicit_bzero(url->storage, url->storage_bytes);
        iok_free(url->storage);
    }
    *url = (struct iok_url){0};
}

bool iok_url_option(const struct iok_url *url, const char *key, struct iok_span *value)
{
    for (uint32_t i = 0; i < url->n_options; i++) {
        if (iok_span_eq(url->options[i].key, iok_span_of(key))) {
            *value = url->options[i].value;
            return true;
        }
    }
    return false;
}

int iok_url_option_u64(const struct iok_url *url, const char *key, uint64_t min, uint64_t max, uint64_t *out,
                       struct iok_error *err)
{
    struct iok_span value;
    int64_t number;

    if (!iok_url_option(url, key, &value)) {
        return 0;
    }
    if (!iok_span_i64(value, &number) || number < 0 || (uint64_t)number < min || (uint64_t)number > max) {
        return iok_err(err, IOK_EOPTION, "bad %s=%.*s: expected a whole number from %llu to %llu", key,
                       (int)(value.n < 40 ? value.n : 40), value.p, (unsigned long long)min, (unsigned long long)max);
    }
    *out = (uint64_t)number;
    return 0;
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits, perhaps a point and up to nine digits more, and one of the units. Not by strtod, which follows the program's
 * locale and takes hexadecimal, exponents and infinity. False also when it does not fit. */
static bool scaled(struct iok_span value, const struct unit *units, uint64_t *out)
{
    struct iok_span unit = value, whole = until(&unit, ".abcdefghijklmnopqrstuvwxyz"), part = {0};
    int64_t number, fraction = 0;
    uint64_t scale = 1, extra, result;

    if (take(&unit, ".")) {
        part = until(&unit, "abcdefghijklmnopqrstuvwxyz");
        if (part.n == 0 || part.n > 9 || part.p[0] == '-' || !iok_span_i64(part, &fraction)) {
            return false;
        }
    }
    if (!iok_span_i64(whole, &number) || whole.p[0] == '-') {
        return false;
    }
    while (units->name != NULL && !iok_span_eq(unit, iok_span_of(units->name))) {
        units++;
    }
    for (size_t i = 0; i < part.n; i++) {
        scale *= 10;
    }
    extra = (uint64_t)((double)fraction / (double)scale * (double)units->factor + 0.5);
    if (units->name == NULL || __builtin_mul_overflow((uint64_t)number, units->factor, &result) ||
        __builtin_add_overflow(result, extra, &result)) {
        return false;
    }
    *out = result;
    return true;
}

int iok_url_option_duration(const struct iok_url *url, const char *key, uint64_t min_ns, uint64_t max_ns, uint64_t *out,
                            struct iok_error *err)
{
    static const struct unit units[] = {{"ms", 1000000},      {"us", 1000},     {"s", 1000000000}, {"m", 60000000000},
                                        {"h", 3600000000000}, {"", 1000000000}, {NULL, 0}};
    struct iok_span value;
    uint64_t ns;

    if (!iok_url_option(url, key, &value)) {
        return 0;
    }
    if (!scaled(value, units, &ns) || ns < min_ns || ns > max_ns) {
        return iok_err(err, IOK_EOPTION, "bad %s=%.*s: expected a duration such as 250ms, 2s or 1m, from %gs to %gs",
                       key, (int)(value.n < 40 ? value.n : 40), value.p, (double)min_ns / 1e9, (double)max_ns / 1e9);
    }
    *out = ns;
    return 0;
}

int iok_url_option_bytes(const struct iok_url *url, const char *key, uint64_t min, uint64_t max, uint64_t *out,
                         struct iok_error *err)
{
    static const struct unit units[] = {{"k", 1024}, {"m", 1048576}, {"g", 1073741824}, {"", 1}, {NULL, 0}};
    struct iok_span value;
    uint64_t bytes;

    if (!iok_url_option(url, key, &value)) {
        return 0;
    }
    if (!scaled(value, units, &bytes) || bytes < min || bytes > max) {
        return iok_err(err, IOK_EOPTION, "bad %s=%.*s: expected bytes such as 65536, 64k, 16m or 1g, from %llu to %llu",
                       key, (int)(value.n < 40 ? value.n : 40), value.p, (unsigned long long)min,
                       (unsigned long long)max);
    }
    *out = bytes;
    return 0;
}

int iok_url_option_bool(const struct iok_url *url, const char *key, bool *out, struct iok_error *err)
{
    struct iok_span value;

    if (!iok_url_option(url, key, &value)) {
        return 0;
    }
    if (iok_span_eq_nocase(value, "yes") || iok_span_eq_nocase(value, "true") || iok_span_eq_nocase(value, "1")) {
        *out = true;
    } else if (iok_span_eq_nocase(value, "no") || iok_span_eq_nocase(value, "false") ||
               iok_span_eq_nocase(value, "0")) {
        *out = false;
    } else {
        return iok_err(err, IOK_EOPTION, "bad %s=%.*s: expected yes or no", key, (int)(value.n < 40 ? value.n : 40),
                       value.p);
    }
    return 0;
}

struct writer {
    char *at;
    size_t cap, n;
};

static void put(struct writer *w, const char *text, size_t n)
{
    while (n-- > 0 && w->n + 1 < w->cap) {
        w->at[w->n++] = *text++;
    }
    w->at[w->n] = '\0';
}

static void put_text(struct writer *w, const char *text)
{
    put(w, text, strlen(text));
}

/* Escapes what would be read otherwise, or is not printable. */
static void put_span(struct writer *w, struct iok_span span, const char *also)
{
    for (size_t i = 0; i < span.n; i++) {
        uint8_t c = span.p[i];
        char text[4];

        if (c > ' ' && c != 0x7f && strchr("%?#@&", c) == NULL && strchr(also, c) == NULL) {
            put(w, (const char *)&span.p[i], 1);
        } else {
            (void)snprintf(text, sizeof(text), "%%%02X", c);
            put(w, text, 3);
        }
    }
}

static void put_host(struct writer *w, const struct iok_url_host *host)
{
    bool ipv6 = !iok_url_is_directory(host->name) && memchr(host->name.p, ':', host->name.n) != NULL;
    char port[8];

    put_text(w, ipv6 ? "[" : "");
    put_span(w, host->name, ipv6 ? "/," : "/,:");
    put_text(w, ipv6 ? "]" : "");
    if (host->port != 0) {
        (void)snprintf(port, sizeof(port), ":%u", host->port);
        put_text(w, port);
    }
}

size_t iok_url_safe_text(const struct iok_url *url, char *at, size_t cap)
{
    struct writer w = {at, cap, 0};
    const char *separator = "?";

    put_span(&w, url->scheme, "");
    put_text(&w, url->unix_socket && !iok_span_eq(url->scheme, iok_span_of("unix")) ? "+unix://" : "://");
    if (url->has_user) {
        put_span(&w, url->user, ":/");
        put_text(&w, "@");
    }
    for (uint32_t i = 0; i < url->n_hosts; i++) {
        put_text(&w, i > 0 ? "," : "");
        put_host(&w, &url->hosts[i]);
    }
    put_text(&w, !url->unix_socket && url->path.n != 0 ? "/" : "");
    put_span(&w, url->path, "");
    for (uint32_t i = 0; i < url->n_options; i++) {
        struct iok_span key = url->options[i].key;

        if (key.n >= 8 && memcmp(key.p + key.n - 8, "password", 8) == 0) {
            continue;
        }
        put_text(&w, separator);
        put_span(&w, key, "=");
        put_text(&w, "=");
        put_span(&w, url->options[i].value, "");
        separator = "&";
    }
    return w.n;
}

/* Levenshtein distance of two short names. */
static size_t distance(struct iok_span a, struct iok_span b)
{
    size_t row[64];

    if (a.n >= 64 || b.n >= 64) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b.n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t change = diagonal + (a.p[i - 1] != b.p[j - 1]);

            diagonal = row[j];
            row[j] = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < row[j] ? change : row[j];
        }
    }
    return row[b.n];
}

const char *iok_nearest(struct iok_span key, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = key.n / 3 + 1;

    for (; *names != NULL; names++) {
        size_t d = distance(key, iok_span_of(*names));

        if (d < best_distance) {
            best_distance = d;
            best = *names;
        }
    }
    return best;
}
