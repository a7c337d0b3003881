/* url.h - a service URL, taken apart and percent-decoded.
 *
 *     scheme://user:password@host:port,host:port/path?key=value&key=value
 *     scheme+unix:///path/to/socket?key=value     also  unix:///path  where the scheme is unambiguous
 *
 * IPv6 addresses stand in brackets. A host that begins with '/' (as %2F) or '@' (as %40) is a directory of sockets. Each
 * part is NUL-terminated as well as counted. Immutable after parsing: any thread may read it. */
#ifndef IOK_BASE_URL_H
#define IOK_BASE_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "span.h"

#define IOK_URL_OPTIONS_MAX 64u /* more than all option names together need */
#define IOK_URL_BYTES_MAX 8192u /* as web servers limit a request line */
#define IOK_URL_HOSTS_MAX 16u   /* a primary and more standbys than anybody has */

struct iok_url_option {
    struct iok_span key, value;
};

struct iok_url_host {
    struct iok_span name; /* without brackets */
    uint16_t port;        /* 0 if absent */
    bool any_port;        /* 0 because it was said: of an address to listen on */
};

struct iok_url {
    struct iok_span scheme;   /* lower case, without "+unix" */
    struct iok_span user;     /* n 0 if absent */
    struct iok_span password; /* secret: never shown */
    bool has_user, has_password;
    struct iok_url_host hosts[IOK_URL_HOSTS_MAX]; /* none for a unix socket, and for scheme:///path */
    uint32_t n_hosts;
    bool unix_socket;
    bool listens;         /* it says what to listen on */
    struct iok_span path; /* of the socket when unix_socket, else without the leading '/' */
    struct iok_url_option options[IOK_URL_OPTIONS_MAX];
    uint32_t n_options;
    struct iok_span text; /* the whole, as it was given: secret */
    char *storage;        /* owns all the spans; wiped when freed */
    size_t storage_bytes;
};

/* 0, or IOK_EURL / IOK_ENOMEM with *err. On failure nothing needs freeing. */
int iok_url_parse(struct iok_url *url, const char *text, struct iok_error *err);
/* The same of an address to listen on: port 0 is allowed, and "scheme:" before a path or an option, which needs no "//". */
int iok_url_parse_listen(struct iok_url *url, const char *text, struct iok_error *err);
void iok_url_deinit(struct iok_url *url);
/* The hosts that options name, "a,b" and "5432,5433", after those of the URL itself: either may name them, not both. One
 * port is for all hosts that have none. 0, or IOK_EURL / IOK_EOPTION with *err. */
int iok_url_add_hosts(struct iok_url *url, const char *hosts_key, const char *ports_key, struct iok_error *err);
/* Whether it is a directory of sockets, by its name. */
static inline bool iok_url_is_directory(struct iok_span host)
{
    return host.n > 0 && (host.p[0] == '/' || host.p[0] == '@');
}

/* The option's value; false if it was not given. */
bool iok_url_option(const struct iok_url *url, const char *key, struct iok_span *value);
/* Typed look-ups: *out keeps its (default) value when the key is absent. IOK_EOPTION names the key, what was given's
 * form, and what is allowed. Durations are "250ms", "2s", "1m", or a bare number of seconds; result in nanoseconds. */
int iok_url_option_u64(const struct iok_url *url, const char *key, uint64_t min, uint64_t max, uint64_t *out,
                       struct iok_error *err);
int iok_url_option_duration(const struct iok_url *url, const char *key, uint64_t min_ns, uint64_t max_ns, uint64_t *out,
                            struct iok_error *err);
int iok_url_option_bytes(const struct iok_url *url, const char *key, uint64_t min, uint64_t max, uint64_t *out,
                         struct iok_error *err); /* "64k", "16m", "1g" or a bare number */
int iok_url_option_bool(const struct iok_url *url, const char *key, bool *out, struct iok_error *err);
/* The URL for people: no password, no option whose name ends in "password". Length, at most cap - 1, NUL-terminated. */
size_t iok_url_safe_text(const struct iok_url *url, char *at, size_t cap);
/* Of NULL-terminated names the one nearest to key (edit distance at most a third of its length), or NULL. */
const char *iok_nearest(struct iok_span key, const char *const *names);

#endif
